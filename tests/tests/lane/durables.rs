//! Durables on a node that died, or gone with the memory of a server: the stream has everything.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidings_nats::{Bus, Inbox, Topology, inbox_stream, inbox_subject};
use tidings_protocol::MessageId;
use tidings_tests::{Device, Identity, Stored, System, SystemOptions, eventually};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cluster::Cluster;

const TIMEOUT: Duration = Duration::from_secs(1);

/// What JetStream says of a client's durable.
async fn durable(bus: &Bus, topology: Topology, identity: &Identity) -> Option<Value> {
    let stream = inbox_stream(topology.shard(&identity.user_id));
    let subject = format!("CONSUMER.INFO.{stream}.{}", identity.client_id);
    bus.api(&subject, &json!({}), TIMEOUT).await.ok()
}

/// On which node it lives, counted from 0; unknown for a moment after it was made.
fn home(durable: &Value) -> Option<usize> {
    let number = durable["cluster"]["leader"].as_str()?.rsplit('-').next()?;
    Some(number.parse::<usize>().ok()? - 1)
}

/// Hears so many messages, in order, and says them.
async fn hear(device: &mut Device, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(device.message().await.message);
    }
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_durable_died_with_its_node_is_read_by_scan() {
    let mut cluster = Cluster::start().await;
    let topology = cluster.topology;
    let _worker = cluster.service("fanout-worker", &[0, 1, 2]).await;
    let gateway = cluster.service("gateway", &[0, 1, 2]).await;
    let (alice, bob) = (Identity::fresh("alice"), Identity::fresh("bob"));
    gateway.device(&bob).await.close().await;
    let mut sender = gateway.device(&alice).await;
    let chat_id = sender.direct_chat(&bob.user_id).await;
    for number in 0..20 {
        sender.say(chat_id, &number.to_string()).await;
    }
    let any = cluster.bus(0).await;
    let dead = eventually("the durable has a node", async || {
        let durable = durable(&any, topology, &bob).await;
        durable.as_ref().and_then(home).ok_or(durable)
    })
    .await;
    let alive = (0..3).find(|node| *node != dead).expect("there are three");
    let bus = cluster.bus(alive).await;
    eventually("everything is stored", async || {
        let subject = inbox_subject(&topology, &bob.user_id, Inbox::Client(bob.client_id));
        let stream = inbox_stream(topology.shard(&bob.user_id));
        let stored = bus.messages_by_subject(&stream, &subject, TIMEOUT).await;
        match stored.ok().and_then(|stored| stored.get(&subject).copied()) {
            Some(21) => Ok(()),
            other => Err(other),
        }
    })
    .await;

    cluster.nodes[dead].kill().await;
    let killed = Instant::now();
    let elections = async {
        let inbox = inbox_stream(topology.shard(&bob.user_id));
        let streams = ["CHATS", "INVALIDATIONS", "KV_SESSIONS", "KV_INSTANCES", &inbox];
        for stream in streams {
            eventually("a leader is elected", async || {
                bus.last_sequence(stream, TIMEOUT).await
            })
            .await;
        }
        Instant::now()
    };
    let catching_up = async {
        let mut receiver = eventually("somebody is let in again", async || {
            gateway.try_device(&bob).await.ok_or("refused")
        })
        .await;
        let texts = hear(&mut receiver, 20).await;
        receiver.until_caught_up().await;
        (receiver, texts, Instant::now())
    };
    let (elected, (receiver, texts, caught_up)) = tokio::join!(elections, catching_up);
    let after_election = caught_up.saturating_duration_since(elected);
    eprintln!("{:?} for elections, {after_election:?} more", elected - killed);
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
    assert!(after_election < Duration::from_secs(10), "{after_election:?}");
    eventually("the durable is made again on a node that is up", async || {
        let remade = durable(&bus, topology, &bob).await.ok_or(Value::Null)?;
        let count = |name: &str| remade[name].as_u64().expect("a number");
        let unconfirmed = count("num_pending") + count("num_ack_pending");
        if home(&remade).is_some_and(|home| home != dead) && unconfirmed == 21 {
            Ok(())
        } else {
            Err(remade)
        }
    })
    .await;

    cluster.nodes[dead].start().await.expect("the node comes back");
    receiver.close().await;
    let mut again = gateway.device(&bob).await;
    assert_eq!(hear(&mut again, 20).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_single_server_was_killed_nothing_is_missing() {
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let stored = Stored::of(&system).await;
    let bob = Identity::fresh("bob");
    Device::of(&system, &bob).await.close().await;
    let mut alice = Device::fresh(&system, "alice").await;
    let chat_id = alice.direct_chat(&bob.user_id).await;
    for number in 0..20 {
        alice.say(chat_id, &number.to_string()).await;
    }
    stored.until(&bob.user_id, bob.client_id, 21).await;
    let killed = system.process("nats-1").pid;
    system.signal("nats-1", Signal::SIGKILL);
    eventually("nats-server is started again", async || {
        let pid = system.process("nats-1").pid;
        (pid != killed).then_some(()).ok_or(pid)
    })
    .await;
    system.until_ready("gateway-1").await;
    let mut bob_again = Device::of(&system, &bob).await;
    let expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    assert_eq!(hear(&mut bob_again, 20).await, expected);
    let stored = Stored::of(&system).await;
    let (unprocessed, outstanding) = stored.durable(&bob.user_id, bob.client_id).await;
    assert_eq!(unprocessed + outstanding, 21);
    // Who stayed connected goes on.
    let message_id = MessageId(Uuid::new_v4());
    eventually("alice can send", async || {
        alice.say_as(chat_id, message_id, "after").await
    })
    .await;
    assert_eq!(bob_again.message().await.message, "after");
}
