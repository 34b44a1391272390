//! A doubt about all sessions is settled by few questions.

use std::time::Duration;

use futures::StreamExt as _;
use nix::sys::signal::Signal;
use tidings_protocol::MessageId;
use tidings_tests::{Device, Identity, System, SystemOptions, eventually};
use tokio::time::Instant;
use uuid::Uuid;

use crate::cluster::counter;

/// Made at once: more would only wait for each other.
const TOGETHER: usize = 16;
/// What a reading costs at least: the entries, and the leader's word about entries and marks.
const REQUESTS_A_READING: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_to_nats_makes_few_idle_sessions_read() {
    measure(150).await;
}

/// For the figures in docs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_reconnect_to_nats_with_two_thousand_sessions() {
    measure(2_000).await;
}

async fn measure(count: usize) {
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        inbox_durables: false,
        ..SystemOptions::default()
    })
    .await;
    let mut alice = Device::fresh(&system, "alice").await;
    let people: Vec<Identity> = (0..count).map(|_| Identity::fresh("idle")).collect();
    let mut devices: Vec<Device> = futures::stream::iter(&people)
        .map(|identity| Device::of(&system, identity))
        .buffered(TOGETHER)
        .collect()
        .await;
    let bob = &mut devices[0];
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    alice.say(chat_id, "before").await;
    let message = bob.message().await;
    bob.confirm_through(message.delivery).await;

    let admin = system.process("gateway-1").admin.expect("a gateway has one");
    let admin = admin.trim_start_matches("http://").to_owned();
    let connects = counter(&admin, "tidings_nats_connects_total").await;
    let (readings, checks) = counts(&admin).await;
    let doubts = counter(&admin, "tidings_doubts_total").await;
    let killed = system.process("nats-1").pid;
    system.signal("nats-1", Signal::SIGKILL);
    eventually("nats-server is started again", async || {
        let pid = system.process("nats-1").pid;
        (pid != killed).then_some(()).ok_or(pid)
    })
    .await;
    eventually("the gateway doubts", async || {
        let now = (
            counter(&admin, "tidings_nats_connects_total").await,
            counter(&admin, "tidings_doubts_total").await,
        );
        (now.0 > connects && now.1 > doubts).then_some(()).ok_or(now)
    })
    .await;
    // It is over when nothing has been asked for a while.
    let (mut last, mut since) = (counts(&admin).await, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = counts(&admin).await;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    let (readings, checks) = (last.0 - readings, last.1 - checks);
    let before = count as u64 * REQUESTS_A_READING;
    let now = readings * REQUESTS_A_READING + checks * 4;
    eprintln!(
        "{count} idle sessions: {readings} readings and {checks} checks, {now} requests; if each read: {before} for each doubt"
    );
    assert!(readings <= 10 + count as u64 / 20, "{readings} of {count} read");

    // They are live as before, once the gateway's own sends are let through again.
    let message_id = MessageId(Uuid::new_v4());
    eventually("alice can send", async || {
        alice.say_as(chat_id, message_id, "again").await
    })
    .await;
    let mut last = devices.pop().expect("there are many");
    let chat_id = alice.direct_chat(&last.user_id()).await;
    alice.say(chat_id, "after").await;
    assert_eq!(last.message().await.message, "after");
}

/// Readings of inboxes and checks of many, so far.
async fn counts(admin: &str) -> (u64, u64) {
    (
        counter(admin, "tidings_inbox_readings_total").await,
        counter(admin, "tidings_end_checks_total").await,
    )
}
