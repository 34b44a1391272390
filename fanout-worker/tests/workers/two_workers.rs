//! Two workers on real servers: whatever happens to one of them, nothing is lost and chats stay in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::support::{Gateway, Nats, PATIENCE, Person, System, Worker, eventually, texts};
use serde_json::{Value, json};
use tidings_nats::{Entry, Event};
use tidings_protocol::ChatId;
use tidings_service::{NatsConnection, NatsSettings};

/// Sends to several chats in turn; says what each must be seen to have.
async fn send_many(system: &System, chats: &[ChatId], from: &Person, range: std::ops::Range<usize>) {
    for number in range {
        system
            .send(chats[number % chats.len()], from, &number.to_string())
            .await;
    }
}

/// Checks that the inbox has every number once, those of a chat in order.
fn check_order(entries: &[(u64, Entry)], chats: &[ChatId], count: usize) {
    let texts = texts(entries);
    for (place, chat) in chats.iter().enumerate() {
        let expected: Vec<String> = (place..count)
            .step_by(chats.len())
            .map(|number| number.to_string())
            .collect();
        assert_eq!(texts[chat], expected, "chat {place}");
    }
}

async fn chats(system: &System, count: usize, people: &[&Person]) -> Vec<ChatId> {
    let users: Vec<_> = people.iter().map(|person| &person.user_id).collect();
    let mut chats = Vec::new();
    for _ in 0..count {
        chats.push(system.chat(&users).await.0);
    }
    chats
}

/// How many partitions are pinned.
async fn pinned(system: &System) -> usize {
    let mut count = 0;
    for partition in system.context.topology.partitions() {
        let subject = format!("CONSUMER.INFO.CHATS.{}", tidings_nats::fanout_consumer(partition));
        let info: Value = system
            .context
            .bus
            .api(&subject, &json!({}), Duration::from_secs(5))
            .await
            .expect("the consumer is there");
        count += usize::from(info["priority_groups"][0]["pinned_client_id"].is_string());
    }
    count
}

/// Cuts a worker's connections at the server; it will connect again by itself.
pub(crate) async fn kick(system: &System, worker: &Worker) {
    let name = format!("fanout-worker-{}", worker.context.boot_id);
    let Nats::One(server) = &system.nats else {
        panic!("the connection may be at any of three servers");
    };
    let settings = NatsSettings::parse(&server.system_url()).expect("the URL is valid");
    let admin = NatsConnection::connect(&settings, "admin")
        .await
        .expect("the system account answers");
    let admin = admin.client();
    let connections = admin
        .request("$SYS.REQ.SERVER.PING.CONNZ", "{}".into())
        .await
        .expect("the server tells its connections");
    let connections: Value = serde_json::from_slice(&connections.payload).expect("JSON");
    let server = connections["server"]["id"]
        .as_str()
        .expect("the server has an id");
    for connection in connections["data"]["connections"].as_array().expect("a list") {
        if connection["name"] == name.as_str() {
            let body = json!({ "cid": connection["cid"] }).to_string();
            admin
                .request(format!("$SYS.REQ.SERVER.{server}.KICK"), body.into())
                .await
                .expect("the connection is cut");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_in_order_when_one_falls_silent() {
    let system = System::start(2).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let chats = chats(&system, 4, &[&alice, &bob]).await;
    let first = system.worker().await;
    send_many(&system, &chats, &alice, 0..40).await;
    system.wait_until_fanned_out().await;
    // Ids are random: the chats may all be in one partition.
    let topology = system.context.topology;
    let partitions: BTreeSet<_> = chats.iter().map(|chat| topology.partition(*chat)).collect();
    assert_eq!(pinned(&system).await, partitions.len(), "one worker has them all");
    let second = system.worker().await;
    // It ends without a word: no unpinning, no deletions.
    send_many(&system, &chats, &alice, 40..80).await;
    first.kill();
    send_many(&system, &chats, &alice, 80..120).await;
    let silent = Instant::now();
    let entries = system.wait_for_entries(&bob, 4 + 120).await;
    let took = silent.elapsed();
    assert!(took < Duration::from_secs(10), "took over after {took:?}");
    check_order(&entries, &chats, 120);
    system.wait_until_fanned_out().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_and_reorder_nothing() {
    let system = System::start(2).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let chats = chats(&system, 4, &[&alice, &bob]).await;
    let workers = [system.worker().await, system.worker().await];
    for round in 0..10 {
        send_many(&system, &chats, &alice, round * 100..(round + 1) * 100).await;
        kick(&system, &workers[round % 2]).await;
    }
    let entries = system.wait_for_entries(&bob, 4 + 1_000).await;
    system.wait_until_fanned_out().await;
    check_order(&entries, &chats, 1_000);
    for worker in workers {
        let connects = worker.context.nats.state().borrow().connects;
        assert!(connects > 1, "the connection was never cut");
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_nats_loses_and_reorders_nothing() {
    let mut system = System::start(2).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let chats = chats(&system, 4, &[&alice, &bob]).await;
    let workers = [system.worker().await, system.worker().await];
    send_many(&system, &chats, &alice, 0..200).await;
    system.nats.server().kill().await;
    system
        .nats
        .server()
        .start()
        .await
        .expect("nats-server starts again");
    let mut state = system.context.nats.state();
    let connected = state.wait_for(|state| state.connected && state.connects > 1);
    tokio::time::timeout(PATIENCE, connected)
        .await
        .expect("NATS is there again")
        .expect("the connection lives");
    // It has forgotten the consumers. The workers make them, and do not wait until something does not come.
    for partition in system.context.topology.partitions() {
        eventually("the consumer is there", async || {
            let consumer = system.context.bus.partition_consumer(partition, PATIENCE).await;
            consumer.is_ok()
        })
        .await;
    }
    send_many(&system, &chats, &alice, 200..300).await;
    system.wait_until_fanned_out().await;
    let entries = system.wait_for_entries(&bob, 4 + 300).await;
    check_order(&entries, &chats, 300);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_gets_its_share_and_a_stop_gives_it_back_at_once() {
    let system = System::start(4).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let chats = chats(&system, 40, &[&alice, &bob]).await;
    let mut gateway = Gateway::listen(&system, "g1").await;
    system.connect(&bob, "g1", 1).await;
    let first = system.worker().await;
    let mut sent = 40;
    send_many(&system, &chats, &alice, 0..sent).await;
    system.wait_until_fanned_out().await;
    let second = system.worker().await;
    // Pins follow messages, so somebody goes on sending; each notice says who works on its partition.
    let mut holders = BTreeMap::new();
    let began = Instant::now();
    while holders
        .values()
        .filter(|worker| **worker == second.context.boot_id.0)
        .count()
        != 2
    {
        assert!(began.elapsed() < PATIENCE, "{holders:?}");
        send_many(&system, &chats, &alice, sent..sent + 40).await;
        sent += 40;
        let last = (sent - 1).to_string();
        loop {
            let notice = gateway.notice().await;
            let entry = Entry::decode(&notice.entry).expect("a worker wrote it");
            holders.insert(
                system.context.topology.partition(entry.event.chat_id()),
                notice.worker,
            );
            if matches!(entry.event, Event::Message(message) if message.message == last) {
                break;
            }
        }
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "shared after {took:?}");
    second.stop().await;
    let stopped = Instant::now();
    send_many(&system, &chats, &alice, sent..sent + 40).await;
    sent += 40;
    system.wait_until_fanned_out().await;
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(5), "taken back after {took:?}");
    let entries = system.wait_for_entries(&bob, 40 + sent).await;
    check_order(&entries, &chats, sent);
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_of_three_dies_and_comes_back() {
    let mut system = System::start_cluster(2).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let chats = chats(&system, 4, &[&alice, &bob]).await;
    let workers = [system.worker().await, system.worker().await];
    send_many(&system, &chats, &alice, 0..100).await;
    system.nats.server().kill().await;
    send_many(&system, &chats, &alice, 100..200).await;
    system
        .nats
        .server()
        .start()
        .await
        .expect("nats-server starts again");
    send_many(&system, &chats, &alice, 200..300).await;
    system.wait_until_fanned_out().await;
    let entries = system.wait_for_entries(&bob, 4 + 300).await;
    check_order(&entries, &chats, 300);
    for worker in workers {
        worker.stop().await;
    }
}
