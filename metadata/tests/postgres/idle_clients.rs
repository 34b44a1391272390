//! Clients that were not seen for long become idle, and come back as if new.

use std::time::Duration;

use tidings_metadata::{ClientState, OutboxKey};
use tidings_protocol::{ClientId, Registration};

use crate::test_database::{TestDatabase, client, user};

const THIRTY_DAYS: Duration = Duration::from_hours(30 * 24);

impl TestDatabase {
    /// As if nobody had been seen for this many days.
    async fn days_pass(&self, days: i32) {
        sqlx::query("UPDATE clients SET last_seen_at = last_seen_at - make_interval(days => $1)")
            .bind(days)
            .execute(&self.pool)
            .await
            .expect("the test's SQL is right");
    }

    async fn state(&self, client: ClientId) -> ClientState {
        self.metadata
            .client(client)
            .await
            .expect("clients can be read")
            .expect("it registered")
            .state
    }
}

#[tokio::test]
async fn who_was_not_seen_becomes_idle_and_makes_room() {
    let database = TestDatabase::new().await;
    let alice = user("alice");
    let (old, older) = (client(), client());
    database.register("alice", older).await;
    database.days_pass(5).await;
    database.register("alice", old).await;
    database.days_pass(29).await;
    let fresh = client();
    database.register("alice", fresh).await;
    database.publish(OutboxKey::User(alice.clone()), 1).await;

    let unseen = database
        .metadata
        .unseen_clients(THIRTY_DAYS, 10)
        .await
        .expect("clients can be read");
    assert_eq!(unseen, [(alice.clone(), older)]);
    assert!(
        database
            .metadata
            .idle_client(&alice, older, THIRTY_DAYS, 100)
            .await
            .expect("it may be")
    );
    assert!(
        !database
            .metadata
            .idle_client(&alice, older, THIRTY_DAYS, 100)
            .await
            .expect("it is already")
    );
    assert!(
        !database
            .metadata
            .idle_client(&alice, fresh, THIRTY_DAYS, 100)
            .await
            .expect("it was seen")
    );
    assert!(
        !database
            .metadata
            .idle_client(&user("bob"), older, THIRTY_DAYS, 100)
            .await
            .expect("it is not bob's")
    );
    assert_eq!(database.state(older).await, ClientState::Idle);
    assert_eq!(database.publish(OutboxKey::User(alice.clone()), 9).await, [4]);
    assert!(
        database
            .metadata
            .unseen_clients(THIRTY_DAYS, 10)
            .await
            .expect("clients can be read")
            .is_empty()
    );

    // Its place is free.
    assert_eq!(
        database.register("alice", client()).await.registration,
        Registration::New
    );
}

#[tokio::test]
async fn an_idle_client_comes_back_as_one_of_three() {
    let database = TestDatabase::new().await;
    let alice = user("alice");
    let phone = client();
    assert!(database.register("alice", phone).await.heir);
    database.days_pass(31).await;
    assert!(
        database
            .metadata
            .idle_client(&alice, phone, THIRTY_DAYS, 100)
            .await
            .expect("it may be")
    );
    let back = database.register("alice", phone).await;
    assert_eq!(
        (back.registration, back.heir, back.changed),
        (Registration::Reactivated, true, true)
    );
    assert!(
        database
            .metadata
            .unseen_clients(THIRTY_DAYS, 10)
            .await
            .expect("clients can be read")
            .is_empty()
    );

    database.days_pass(31).await;
    assert!(
        database
            .metadata
            .idle_client(&alice, phone, THIRTY_DAYS, 100)
            .await
            .expect("it may be")
    );
    // Another one inherits meanwhile: the first one may have been heir, and is not any more.
    assert!(database.register("alice", client()).await.heir);
    let back = database.register("alice", phone).await;
    assert_eq!((back.registration, back.heir), (Registration::Reactivated, false));

    database.days_pass(31).await;
    assert!(
        database
            .metadata
            .idle_client(&alice, phone, THIRTY_DAYS, 100)
            .await
            .expect("it may be")
    );
    for _ in 0..2 {
        database.register("alice", client()).await;
    }
    let refusal = database
        .metadata
        .register_client(crate::test_database::hello("alice", phone))
        .await;
    assert_eq!(
        refusal.expect_err("three are active").to_string(),
        "the user has 3 active clients already"
    );
    assert_eq!(database.state(phone).await, ClientState::Idle);
    // It can be removed all the same.
    assert!(
        database
            .metadata
            .remove_client(&alice, phone, Some(100))
            .await
            .expect("it is alice's")
    );
    assert_eq!(database.state(phone).await, ClientState::Removed);
}

#[tokio::test]
async fn who_is_connected_is_not_idle() {
    let database = TestDatabase::new().await;
    let alice = user("alice");
    let (touched, greeted, removed) = (client(), client(), client());
    for client in [touched, greeted, removed] {
        database.register("alice", client).await;
    }
    database
        .metadata
        .remove_client(&alice, removed, Some(100))
        .await
        .expect("it is alice's");
    database.days_pass(31).await;
    database
        .metadata
        .touch_clients(&[touched, removed, client(), touched])
        .await
        .expect("any id may be there");
    // A hello of one that was not seen for long is noted, though it is known.
    assert_eq!(
        database.register("alice", greeted).await.registration,
        Registration::Known
    );
    for client in [touched, greeted] {
        assert!(
            !database
                .metadata
                .idle_client(&alice, client, THIRTY_DAYS, 100)
                .await
                .expect("it was seen")
        );
    }
    let removed = database
        .metadata
        .client(removed)
        .await
        .expect("clients can be read")
        .expect("it is kept");
    assert!(
        removed.last_seen_at < removed.registered_at,
        "a removed client is left alone"
    );
    database
        .metadata
        .touch_clients(&[])
        .await
        .expect("nobody may be there");
}
