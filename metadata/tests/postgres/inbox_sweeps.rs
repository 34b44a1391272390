//! Inboxes of clients that are not active are listed until they were emptied three times.

use std::time::Duration;

use tidings_metadata::{ClientState, InboxSweep};
use tidings_protocol::{ClientId, Registration, Timestamp};

use crate::test_database::{TestDatabase, client, hello, user};

const MONTH: Duration = Duration::from_hours(30 * 24);

/// As if nobody had been seen for a month.
const UNSEEN: &str = "UPDATE clients SET last_seen_at = last_seen_at - interval '31 days'";
/// As if every sweep had been yesterday.
const SWEPT_YESTERDAY: &str = "UPDATE clients SET swept_at = swept_at - interval '1 day'";

impl TestDatabase {
    async fn to_sweep(&self, again_after_minutes: u64) -> Vec<InboxSweep> {
        let again_after = [Duration::from_mins(again_after_minutes); 3];
        let sweeps = self.metadata.inboxes_to_sweep(again_after, 10).await;
        sweeps.expect("the list can be read")
    }

    async fn away_since(&self, client: ClientId) -> Option<Timestamp> {
        let record = self.metadata.client(client).await;
        record
            .expect("clients can be read")
            .expect("it registered")
            .away_since
    }
}

#[tokio::test]
async fn a_removed_clients_inbox_is_emptied_three_times() {
    let database = TestDatabase::new().await;
    let (alice, heir, other) = (user("alice"), client(), client());
    database.register("alice", heir).await;
    database.register("alice", other).await;
    assert_eq!(database.to_sweep(0).await, []);
    for client in [heir, other] {
        let removed = database.metadata.remove_client(&alice, client, Some(41)).await;
        assert!(removed.expect("it is alice's"));
    }
    let sweep = |client, inherited_up_to, sweeps| InboxSweep {
        user: user("alice"),
        client,
        state: ClientState::Removed,
        inherited_up_to,
        sweeps,
    };
    let mut listed = database.to_sweep(1).await;
    listed.sort_by_key(|sweep| sweep.inherited_up_to);
    // What only the heir read goes with it; the other one, which was alone then, had inherited nothing.
    assert_eq!(listed, [sweep(other, None, 0), sweep(heir, Some(41), 0)]);

    let swept = async |sweep: &InboxSweep, emptied| {
        let swept = database.metadata.inbox_swept(sweep, emptied).await;
        swept.expect("Postgres answers");
    };
    swept(&listed[0], false).await;
    assert_eq!(
        database.to_sweep(1).await,
        [sweep(heir, Some(41), 0)],
        "it failed: others first"
    );
    swept(&listed[1], true).await;
    swept(&listed[1], true).await;
    assert_eq!(database.to_sweep(1).await, []);
    for sweeps in 1..=2 {
        database.execute(SWEPT_YESTERDAY).await;
        let listed = database.to_sweep(1).await;
        assert!(listed.contains(&sweep(heir, Some(41), sweeps)), "{listed:?}");
        swept(&sweep(heir, Some(41), sweeps), true).await;
    }
    database.execute(SWEPT_YESTERDAY).await;
    assert_eq!(
        database.to_sweep(1).await,
        [sweep(other, None, 0)],
        "three times are enough"
    );
}

#[tokio::test]
async fn an_absence_is_told_until_it_is_marked() {
    let database = TestDatabase::new().await;
    let (alice, phone) = (user("alice"), client());
    database.register("alice", phone).await;
    database.execute(UNSEEN).await;
    let idle = database.metadata.idle_client(&alice, phone, MONTH, 7).await;
    assert!(idle.expect("it may be"));
    let listed = database.to_sweep(1).await;
    assert_eq!(
        (listed.len(), listed[0].state, listed[0].inherited_up_to),
        (1, ClientState::Idle, Some(7))
    );
    let away_since = database.away_since(phone).await;
    assert!(away_since.is_some());

    let back = database.register("alice", phone).await;
    assert_eq!(
        (back.registration, back.away_since),
        (Registration::Reactivated, away_since)
    );
    assert_eq!(database.to_sweep(0).await, [], "it is back");
    // The gateway died before it was marked.
    let again = database.register("alice", phone).await;
    assert_eq!(
        (again.registration, again.away_since),
        (Registration::Known, away_since)
    );
    // What was listed before it was back is not noted for it.
    let noted = database.metadata.inbox_swept(&listed[0], true).await;
    noted.expect("Postgres answers");
    let since = away_since.expect("it was away");
    for (marked, left) in [(Timestamp(since.0 - 1), away_since), (since, None)] {
        let noted = database.metadata.absence_marked(phone, marked).await;
        noted.expect("Postgres answers");
        assert_eq!(database.away_since(phone).await, left);
    }
    assert_eq!(database.register("alice", phone).await.away_since, None);

    // Away twice without having been told: since the first time.
    database.execute(UNSEEN).await;
    for _ in 0..2 {
        let idle = database.metadata.idle_client(&alice, phone, MONTH, 8).await;
        assert!(idle.expect("it may be"));
        database.register("alice", phone).await;
        database.execute(UNSEEN).await;
    }
    let first = database.away_since(phone).await.expect("it was away");
    let now = database.metadata.clock().await.expect("Postgres answers");
    assert!(now.0 - first.0 < 32 * 86_400_000 && now.0 - first.0 > 30 * 86_400_000);
}

#[tokio::test]
async fn who_is_replaced_leaves_what_it_inherited() {
    let database = TestDatabase::new().await;
    let clients = [client(), client(), client()];
    for client in clients {
        database.register("alice", client).await;
    }
    let replacing = tidings_metadata::RegisterClient {
        replace: Some(clients[0]),
        inbox_sequence: Some(12),
        ..hello("alice", client())
    };
    let registered = database.metadata.register_client(replacing).await;
    assert_eq!(registered.expect("there is room").removed, Some(clients[0]));
    let listed = database.to_sweep(1).await;
    assert_eq!(
        (listed.len(), listed[0].client, listed[0].inherited_up_to),
        (1, clients[0], Some(12))
    );
}

#[tokio::test]
async fn how_clients_stand() {
    let database = TestDatabase::new().await;
    let (alice, phone, removed) = (user("alice"), client(), client());
    for client in [phone, removed] {
        database.register("alice", client).await;
    }
    let removal = database.metadata.remove_client(&alice, removed, None).await;
    assert!(removal.expect("it is alice's"));
    database
        .metadata
        .suspend_user(&alice)
        .await
        .expect("Postgres answers");
    let standings = database.metadata.standings(&[phone, removed, client()]).await;
    let standings = standings.expect("Postgres answers");
    assert_eq!(standings.len(), 2);
    assert_eq!(
        (standings[&phone].state, standings[&phone].suspended),
        (ClientState::Active, true)
    );
    assert_eq!(standings[&removed].state, ClientState::Removed);
    assert_eq!(
        database
            .metadata
            .count_unseen(MONTH)
            .await
            .expect("Postgres answers"),
        0
    );
    database.execute(UNSEEN).await;
    assert_eq!(
        database
            .metadata
            .count_unseen(MONTH)
            .await
            .expect("Postgres answers"),
        1
    );
}
