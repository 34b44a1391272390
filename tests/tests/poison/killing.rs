//! A message that kills every fan-out worker that touches it is contained; workers that are killed from outside are
//! no reason to give anything up.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_nats::{Bus, DEAD_LETTERS, HEADER_REASON, HEADER_TRIES, inbox_stream, setup};
use tidings_tests::{Device, System, SystemOptions};
use tokio::time::Instant;

/// Six deaths, take-overs of about 10 s, and the waits between trials: about 80 s, on a busy machine more.
const CONTAINED: Duration = Duration::from_mins(4);

/// Every dead letter: its reason and its tries.
async fn letters(system: &System) -> Vec<(String, String)> {
    let bus = Bus::new(system.nats().await);
    let stream = bus.jetstream().get_stream(DEAD_LETTERS).await;
    let stream = stream.expect("the stream is there");
    let mut letters = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let letter = stream.get_raw_message(sequence).await;
        let letter = letter.expect("none was deleted");
        let header = |name: &str| {
            letter
                .headers
                .get(name)
                .map_or("", |value| value.as_str())
                .to_owned()
        };
        letters.push((header(HEADER_REASON), header(HEADER_TRIES)));
    }
    letters
}

async fn heard(device: &mut Device, texts: &[&str]) {
    let mut missing = texts.to_vec();
    let began = Instant::now();
    while !missing.is_empty() {
        assert!(began.elapsed() < CONTAINED, "{missing:?} did not arrive");
        for frame in device.settle().await {
            if let tidings_protocol::ServerFrame::NewMessage(message) = frame {
                missing.retain(|text| *text != message.message);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_kills_five_workers_is_put_aside_and_nothing_else_is() {
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 2,
        inbox_workers: 1,
        settings: vec![("TIDINGS_FAULT", "abort:kills".to_owned())],
        ..SystemOptions::default()
    })
    .await;
    let mut alice = Device::fresh(&system, "alice").await;
    let mut bob = Device::fresh(&system, "bob").await;
    let (chat_id, other) = (
        alice.create_group(&[bob.user_id()]).await,
        alice.create_group(&[bob.user_id()]).await,
    );
    alice.say(chat_id, "before").await;
    heard(&mut bob, &["before"]).await;
    let began = Instant::now();
    alice.say(chat_id, "this kills").await;
    for number in 0..20 {
        alice.say(chat_id, &format!("behind {number}")).await;
        alice.say(other, &format!("beside {number}")).await;
    }
    let texts: Vec<String> = (0..20).map(|number| format!("beside {number}")).collect();
    heard(&mut bob, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    println!("the other chat went on after {:?}", began.elapsed());
    let texts: Vec<String> = (0..20).map(|number| format!("behind {number}")).collect();
    heard(&mut bob, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    println!("contained after {:?}", began.elapsed());
    let reason = "5 workers in a row died while they worked on it".to_owned();
    assert_eq!(letters(&system).await, [(reason, "5".to_owned())]);
}

/// In bad weather each trial lasts as long as it may, so that kills at random moments meet many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_in_bad_weather_give_nothing_up() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let system = System::start(&SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    })
    .await;
    let bus = Bus::new(system.nats().await);
    let mut alice = Device::fresh(&system, "alice").await;
    let mut bob = Device::fresh(&system, "bob").await;
    let mut chats = Vec::new();
    for _ in 0..4 {
        chats.push(alice.create_group(&[bob.user_id()]).await);
        bob.update().await;
    }
    let shard = setup::check(&bus)
        .await
        .expect("it is set up")
        .shard(&bob.user_id());
    let bound = async |bytes: i64| {
        let jetstream = bus.jetstream();
        let mut stream = jetstream
            .get_stream(inbox_stream(shard))
            .await
            .expect("the stream is there");
        let mut config = stream.info().await.expect("the stream answers").config.clone();
        config.max_bytes = bytes;
        jetstream
            .update_stream(config)
            .await
            .expect("the bound may change");
    };
    bound(1).await;
    let texts: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for (place, text) in texts.iter().enumerate() {
        alice.say(chats[place % chats.len()], text).await;
    }
    for _ in 0..5 {
        system.kill_and_wait("fanout-worker-1").await;
        let lives = random.random_range(2_000..8_000);
        tokio::time::sleep(Duration::from_millis(lives)).await;
    }
    bound(1 << 28).await;
    heard(&mut bob, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(letters(&system).await, [], "seed {seed}");
}
