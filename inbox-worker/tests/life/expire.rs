//! Entries expire by age, with a mark; a wrong clock deletes nothing.

use tidings_nats::{Inbox, Lost};
use tidings_protocol::{ClientId, Timestamp, TrimReason};
use uuid::Uuid;

use crate::support::{System, Worker, chat, in_seconds, until, user};

/// Waits until a worker has looked at every stream: it renews its lease before each, twice a second here.
pub(crate) async fn after_a_round(worker: &Worker, system: &System) {
    let renewed = async || {
        let lease = system
            .context
            .metadata
            .lease("expiry")
            .await
            .expect("Postgres answers");
        let (holder, expires_at) = lease?;
        (holder == worker.context.boot_id.0).then_some(expires_at)
    };
    let first = until("the worker holds the lease", renewed).await;
    until("the worker has gone round", async || {
        (renewed().await? > Timestamp(first.0 + 1_200)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_too_old_is_marked_and_deleted() {
    let system = System::start().await;
    let (alice, phone) = (user("alice"), Inbox::Client(ClientId(Uuid::new_v4())));
    let bob = user("bob");
    for number in 0..600_u16 {
        let chat = chat(1 + u128::from(number % 3));
        system
            .store(&alice, phone, chat, Timestamp(i64::from(number)))
            .await;
    }
    system.store(&bob, Inbox::First, chat(9), Timestamp(5)).await;
    // Younger than its place says: the clock of NATS was wrong when it was stored.
    let young = system.store(&bob, Inbox::First, chat(9), in_seconds(3_600)).await;
    let after = system.store(&bob, Inbox::First, chat(9), Timestamp(6)).await;

    // Two at once do it once.
    let workers = [
        system.worker(&["--retention", "1s"]).await,
        system.worker(&["--retention", "1s"]).await,
    ];
    until("alice's inbox is empty", async || {
        system.entries(&alice, phone).await.is_empty().then_some(())
    })
    .await;
    let expected = Lost {
        reason: TrimReason::Expired,
        missed: Some(600),
        since: Timestamp(0),
        until: Timestamp(599),
        chats: vec![chat(1), chat(2), chat(3)],
    };
    assert_eq!(system.marks(&alice, phone).await, [expected]);
    let left = until("bob's entry has expired", async || {
        let left = system.entries(&bob, Inbox::First).await;
        (left.len() < 3).then_some(left)
    })
    .await;
    assert_eq!(left, [young, after], "nothing behind a young one is deleted");
    assert_eq!(system.marks(&bob, Inbox::First).await[0].missed, Some(1));

    // What expires later is added to the mark, and one worker is enough.
    let [one, other] = workers;
    one.stop().await;
    system.store(&alice, phone, chat(4), Timestamp(700)).await;
    until("the mark counts it", async || {
        let marks = system.marks(&alice, phone).await;
        (marks.len() == 1 && marks[0].missed == Some(601) && marks[0].chats.len() == 4).then_some(())
    })
    .await;
    other.stop().await;
}

#[tokio::test]
async fn a_wrong_clock_deletes_nothing() {
    let system = System::start().await;
    let (alice, phone) = (user("alice"), ClientId(Uuid::new_v4()));
    let inbox = Inbox::Client(phone);
    system.register(&alice, phone).await;
    for _ in 0..5 {
        system.store(&alice, inbox, chat(1), Timestamp(0)).await;
    }
    let (hour, forty_days) = (3_600, 40 * 86_400);
    for offset in [hour, -hour, forty_days, -forty_days] {
        let setting = format!("--clock-offset={offset}");
        let worker = system
            .worker(&["--retention", "1s", "--idle-after", "1s", &setting])
            .await;
        let reason = worker.clock().await.expect("the clocks do not agree");
        assert!(
            reason.starts_with("the clocks of this machine and Postgres differ by "),
            "{reason}"
        );
        assert!(!worker.context.is_ready());
        after_a_round(&worker, &system).await;
        assert_eq!(system.entries(&alice, inbox).await.len(), 5);
        assert_eq!(system.marks(&alice, inbox).await, []);
        let record = system
            .context
            .metadata
            .client(phone)
            .await
            .expect("Postgres answers");
        assert_eq!(
            record.expect("it registered").state,
            tidings_metadata::ClientState::Active,
            "offset {offset}"
        );
        worker.stop().await;
    }
    // The clock is all that was wrong.
    let worker = system.worker(&["--retention", "1s"]).await;
    assert_eq!(worker.clock().await, None);
    until("everything has expired", async || {
        system.entries(&alice, inbox).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(system.marks(&alice, inbox).await[0].missed, Some(5));
    worker.stop().await;
}
