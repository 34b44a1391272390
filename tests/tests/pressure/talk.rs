//! Pairs of people who write to each other at an even pace: what others notice of a trouble, they notice.

use std::time::{Duration, Instant};

use tidings_protocol::{ChatId, MessageId};
use tidings_tests::{Identity, System, eventually};

use crate::peer::Peer;
use crate::spread::Spread;

/// Between two messages of a pair.
const INTERVAL: Duration = Duration::from_millis(200);

/// Two people and their chat.
#[derive(Debug)]
pub(crate) struct Pair {
    writer: Peer,
    reader: Peer,
    chat_id: ChatId,
}

/// What was noticed in a stretch of time.
#[derive(Debug)]
pub(crate) struct Noticed {
    /// From the sender's reply to the delivery; zero where that came first.
    pub(crate) accept_to_delivery: Spread,
    /// From the send to the delivery.
    pub(crate) send_to_delivery: Spread,
}

impl Pair {
    /// A pair whose writer is connected at one place and whose reader at another.
    pub(crate) async fn meet(system: &System, writer_at: &str, reader_at: &str) -> Self {
        let secret = system.secret();
        let writer = Peer::connect(writer_at, &Identity::fresh("writer"), &secret, true).await;
        let reader = Peer::connect(reader_at, &Identity::fresh("reader"), &secret, true).await;
        let chat_id = writer.group(std::slice::from_ref(&reader.identity.user_id)).await;
        Self {
            writer,
            reader,
            chat_id,
        }
    }

    /// The same two people in another chat, which `wanted` wants. Chats are made until there is one.
    pub(crate) async fn in_chat(mut self, wanted: impl Fn(ChatId) -> bool) -> Self {
        while !wanted(self.chat_id) {
            self.chat_id = self
                .writer
                .group(std::slice::from_ref(&self.reader.identity.user_id))
                .await;
        }
        self
    }
}

/// Lets pairs talk for a while, and waits until everything has come. Everything is accepted, and comes once and in order.
pub(crate) async fn talk(pairs: &[Pair], length: Duration) -> Noticed {
    let end = Instant::now() + length;
    let mut interval = tokio::time::interval(INTERVAL);
    let mut sent: Vec<(usize, MessageId)> = Vec::new();
    while Instant::now() < end {
        interval.tick().await;
        for (number, pair) in pairs.iter().enumerate() {
            sent.push((number, pair.writer.send(pair.chat_id, "how are you")));
        }
    }
    eventually("what the others say comes", async || {
        let missing = sent.iter().filter(|(number, id)| {
            let pair = &pairs[*number];
            !pair.writer.seen().accepted.contains_key(id) || !pair.reader.seen().came.contains_key(id)
        });
        match missing.count() {
            0 => Ok(()),
            missing => Err((
                missing,
                pairs
                    .iter()
                    .map(|pair| pair.writer.seen().refused.clone())
                    .collect::<Vec<_>>(),
            )),
        }
    })
    .await;
    for pair in pairs {
        let seen = pair.reader.seen();
        assert_eq!((seen.doubled, seen.out_of_order), (0, 0), "once, and in order");
    }
    let times = |from: fn(&Pair, &MessageId) -> Instant| {
        Spread::of(sent.iter().map(|(number, id)| {
            let pair = &pairs[*number];
            let came = pair.reader.seen().came[id];
            came.saturating_duration_since(from(pair, id))
        }))
    };
    Noticed {
        accept_to_delivery: times(|pair, id| pair.writer.seen().accepted[id]),
        send_to_delivery: times(|pair, id| pair.writer.seen().sent_at[id]),
    }
}
