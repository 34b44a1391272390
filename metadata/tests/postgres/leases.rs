//! One holder at a time, until it gives the lease back or is late.

use std::time::Duration;

use uuid::Uuid;

use crate::test_database::TestDatabase;

#[tokio::test]
async fn a_lease_has_one_holder_until_it_runs_out() {
    let database = TestDatabase::new().await;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let take = async |name, holder| {
        let lease = database.metadata.take_lease(name, holder, Duration::from_mins(1));
        lease.await.expect("Postgres answers")
    };
    assert!(take("expiry", one).await);
    assert!(take("expiry", one).await, "it is renewed");
    assert!(!take("expiry", other).await);
    assert!(take("something else", other).await);

    database
        .execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 second'")
        .await;
    assert!(take("expiry", other).await);
    assert!(!take("expiry", one).await);
    let held = database.metadata.lease("expiry").await.expect("Postgres answers");
    assert_eq!(held.map(|(holder, _)| holder), Some(other));
    // Only its holder gives it back.
    for holder in [one, other] {
        let returned = database.metadata.return_lease("expiry", holder).await;
        returned.expect("Postgres answers");
        assert_eq!(take("expiry", one).await, holder == other);
    }
}
