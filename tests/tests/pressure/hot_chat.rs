//! A chat into which several members write as fast as they can: they are told to wait, and nobody else has to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tidings_nats::Topology;
use tidings_protocol::{ChatId, ErrorCode, MessageId};
use tidings_tests::{Identity, System, eventually};

use crate::peer::Peer;
use crate::scale::{ALONE, measured, scale};
use crate::talk::{Noticed, Pair, talk};

/// Who writes into the hot chat, side by side.
const WRITERS: usize = 4;
/// Between two bursts of a writer; a timer does not do better.
const BURST_INTERVAL: Duration = Duration::from_millis(10);
/// Sends of a writer without a reply: four times what a gateway takes from a connection, so that it is never idle, and
/// few enough to be answered soon after the flood.
const UNANSWERED_MAX: usize = 256;
/// Longer than a test: the flood is told to end.
const FOREVER: Duration = Duration::from_hours(1);

/// Limited as people are: whoever floods is told so, and what was accepted arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_chat_is_limited() {
    let system = System::shared().await;
    let limited = system.extra_gateway(&[("TIDINGS_RATE_LIMITS", "on")]).await;
    let flood = hot(system, &limited.ws, "limits on").await;
    assert!(
        flood
            .keys()
            .any(|(code, _)| code == ErrorCode::RateLimited.as_str()),
        "{flood:?}"
    );
}

/// Without limits the chat's own bound is what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_chat_without_limits_hurts_itself() {
    let system = System::shared().await;
    hot(system, &system.ws(0), "limits off").await;
}

/// Floods a chat, measures what others notice, and says what the writers were told.
async fn hot(system: &System, ws: &str, label: &str) -> BTreeMap<(String, bool), u64> {
    let _alone = ALONE.lock().await;
    let secret = system.secret();
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(Peer::connect(ws, &Identity::fresh("hot"), &secret, true).await);
    }
    let members: Vec<_> = writers.iter().map(|peer| peer.identity.user_id.clone()).collect();
    let chat_id = writers[0].group(&members[1..]).await;
    let topology = Topology::default();
    let hot_partition = topology.partition(chat_id);
    let same = |chat: ChatId| topology.partition(chat) == hot_partition;
    let (beside, elsewhere) = (pairs(system, same).await, pairs(system, |chat| !same(chat)).await);

    let length = measured(4);
    let before = tokio::join!(talk(&beside, length), talk(&elsewhere, length));
    let rate = scale("RATE", 2_000.0) / WRITERS as f64;
    let flood = join_all(writers.iter().map(|peer| flood(peer, chat_id, rate)));
    let during = async { tokio::join!(talk(&beside, length), talk(&elsewhere, length)) };
    let during = tokio::select! {
        during = during => during,
        _ = flood => unreachable!("it ends with the selection"),
    };
    let after = tokio::join!(talk(&beside, length), talk(&elsewhere, length));

    let offered: usize = writers.iter().map(|peer| peer.seen().sent_at.len()).sum();
    eventually("every send is answered", async || {
        match writers.iter().map(Peer::unanswered).sum::<usize>() {
            0 => Ok(()),
            unanswered => Err(unanswered),
        }
    })
    .await;
    let refused = told(&writers);
    for peer in &writers {
        let seen = peer.seen();
        assert!(
            seen.only_refused_by(&[ErrorCode::RateLimited, ErrorCode::ChatBusy]),
            "{label}: {refused:?}"
        );
    }
    let accepted: usize = writers.iter().map(|peer| peer.seen().accepted.len()).sum();
    let unavailable: u64 = writers.iter().map(|peer| peer.seen().unavailable).sum();
    eprintln!(
        "hot chat, {label}: {offered} offered, {accepted} accepted, refused {refused:?}, {unavailable} tried again"
    );
    tell("same partition", &before.0, &during.0, &after.0);
    tell("other partitions", &before.1, &during.1, &after.1);
    arrives(&writers).await;
    refused
}

/// Pairs whose chats `wanted` wants.
async fn pairs(system: &System, wanted: impl Fn(ChatId) -> bool) -> Vec<Pair> {
    let wanted = &wanted;
    join_all((0..scale("PAIRS", 3)).map(|_: u32| async move {
        let pair = Pair::meet(system, &system.ws(0), &system.ws(1)).await;
        pair.in_chat(wanted).await
    }))
    .await
}

/// Offers messages at a rate, whatever the answers are, until it is dropped.
async fn flood(peer: &Peer, chat_id: ChatId, rate: f64) {
    let (began, mut sent) = (Instant::now(), 0_u64);
    let mut interval = tokio::time::interval(BURST_INTERVAL);
    while began.elapsed() < FOREVER {
        interval.tick().await;
        while (sent as f64) < began.elapsed().as_secs_f64() * rate {
            if peer.unanswered() < UNANSWERED_MAX {
                peer.send(chat_id, "hot");
            }
            sent += 1;
        }
    }
}

fn told(writers: &[Peer]) -> BTreeMap<(String, bool), u64> {
    let mut all = BTreeMap::new();
    for peer in writers {
        for (code, count) in &peer.seen().refused {
            *all.entry(code.clone()).or_default() += count;
        }
    }
    all
}

/// Everything that was accepted comes to each of the others, once and in order.
async fn arrives(writers: &[Peer]) {
    let accepted: Vec<Vec<MessageId>> = writers
        .iter()
        .map(|peer| peer.seen().accepted.keys().copied().collect())
        .collect();
    eventually("what was accepted has come to everybody", async || {
        let mut missing = 0;
        for (reader, peer) in writers.iter().enumerate() {
            let seen = peer.seen();
            let others = accepted
                .iter()
                .enumerate()
                .filter(|(writer, _)| *writer != reader);
            missing += others
                .flat_map(|(_, ids)| ids)
                .filter(|id| !seen.came.contains_key(id))
                .count();
        }
        if missing == 0 { Ok(()) } else { Err(missing) }
    })
    .await;
    for peer in writers {
        let seen = peer.seen();
        assert_eq!((seen.doubled, seen.out_of_order), (0, 0), "once, and in order");
    }
}

fn tell(who: &str, before: &Noticed, during: &Noticed, after: &Noticed) {
    let (from, to) = (&before.accept_to_delivery, &during.accept_to_delivery);
    eprintln!(
        "  {who}: accept to delivery {from}; with the hot chat {to} (p99 times {:.2}); afterwards {}",
        to.p99_ratio(from),
        after.accept_to_delivery,
    );
    let (from, to) = (&before.send_to_delivery, &during.send_to_delivery);
    eprintln!(
        "    send to delivery {from}; with the hot chat {to} (p99 times {:.2})",
        to.p99_ratio(from)
    );
}
