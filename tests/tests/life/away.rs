//! Too old, and away for too long: what is gone is told, on a system where days are seconds.

use tidings_nats::Inbox;
use tidings_protocol::{Codec, Registration, ServerFrame, TrimReason};
use tidings_tests::{Device, Identity, Stored, System, SystemOptions, eventually};

use crate::support::{elsewhere, marks, trimmed};

/// Keeps entries for two seconds, and clients for five.
async fn hasty() -> System {
    let options = SystemOptions {
        settings: vec![
            ("TIDINGS_RETENTION", "2s".to_owned()),
            ("TIDINGS_IDLE_AFTER", "5s".to_owned()),
        ],
        ..SystemOptions::default()
    };
    System::start(&options).await
}

async fn welcomed(system: &System, identity: &Identity) -> (Device, Registration) {
    let (device, welcome) = Device::hello(system, 1, identity, Codec::Json, None).await;
    (device, welcome.expect("it is welcome").registration)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_expired_and_an_absence_are_told() {
    let system = hasty().await;
    let stored = Stored::of(&system).await;
    let mut alice = Device::of(&system, &elsewhere("alice")).await;
    let bob = elsewhere("bob");
    let inbox = Inbox::Client(bob.client_id);
    let mut device = Device::of(&system, &bob).await;
    let chat = alice.create_group(std::slice::from_ref(&bob.user_id)).await;
    alice.say(chat, "a").await;
    alice.say(chat, "b").await;
    // He hears them and does not confirm.
    device.message().await;
    device.message().await;
    stored.until(&bob.user_id, bob.client_id, 0).await;
    let mark = eventually("what has expired is marked", async || {
        let marks = marks(&system, &bob.user_id, inbox).await;
        match &marks[..] {
            [mark] if mark.missed == Some(3) => Ok(mark.clone()),
            _ => Err(marks),
        }
    })
    .await;
    assert_eq!((mark.reason, &mark.chats[..]), (TrimReason::Expired, &[chat][..]));
    // A gateway finds it within half a minute; whoever connects again sees it at once.
    let (mut again, registration) = welcomed(&system, &bob).await;
    assert_eq!(registration, Registration::Known);
    let told = trimmed(&mut again).await;
    assert_eq!((told.delivery, told.missed), (1, Some(3)));
    again.confirm(told.delivery).await;
    eventually("the mark is deleted", async || {
        let left = marks(&system, &bob.user_id, inbox).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;

    // Away for longer than a client is kept.
    again.close().await;
    device.close().await;
    let metadata = system.metadata();
    eventually("he is idle", async || {
        let record = metadata.client(bob.client_id).await.expect("Postgres answers");
        let state = record.expect("he registered").state;
        if state == tidings_metadata::ClientState::Idle {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    // What is written to him now waits for his next client, which is this one again.
    let (mut back, registration) = welcomed(&system, &bob).await;
    assert_eq!(registration, Registration::Reactivated);
    let told = trimmed(&mut back).await;
    assert_eq!((told.reason, told.missed), (TrimReason::Inactive, None));
    assert!(told.since < told.until && told.chats.is_empty(), "{told:?}");
    back.until_caught_up().await;
    alice.say(chat, "c").await;
    let heard = back.message().await;
    assert_eq!(heard.message, "c");
    back.confirm_through(heard.delivery).await;
    stored.until(&bob.user_id, bob.client_id, 0).await;
    back.close().await;
    let (mut known, registration) = welcomed(&system, &bob).await;
    assert_eq!(registration, Registration::Known);
    known.until_caught_up().await;
    let rest = known.settle().await;
    assert!(
        !rest
            .iter()
            .any(|heard| matches!(heard, ServerFrame::InboxTrimmed(_))),
        "it is told once: {rest:?}"
    );
    // Alice was connected all the time.
    let record = metadata
        .client(alice.identity.client_id)
        .await
        .expect("Postgres answers");
    assert_eq!(
        record.expect("she registered").state,
        tidings_metadata::ClientState::Active
    );
}
