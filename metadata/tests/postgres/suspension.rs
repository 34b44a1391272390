//! An operator suspends a user.

use tidings_metadata::{OutboxKey, RegisterError, SuspendError};
use tidings_protocol::Registration;

use crate::test_database::{TestDatabase, client, hello, user};

#[tokio::test]
async fn a_suspended_user_is_refused_until_resumed() {
    let database = TestDatabase::new().await;
    let (metadata, alice) = (&database.metadata, user("alice"));
    let phone = client();
    database.register("alice", phone).await;
    assert!(metadata.suspend_user(&alice).await.expect("anybody can be"));
    assert!(!metadata.suspend_user(&alice).await.expect("she is already"));
    assert!(metadata.is_suspended(&alice).await.expect("it can be read"));
    for client in [phone, client()] {
        let refusal = metadata
            .register_client(hello("alice", client))
            .await
            .expect_err("she is suspended");
        assert!(matches!(refusal, RegisterError::Suspended), "{refusal}");
    }
    assert!(metadata.resume_user(&alice).await.expect("she exists"));
    assert!(!metadata.resume_user(&alice).await.expect("she exists"));
    assert!(!metadata.is_suspended(&alice).await.expect("it can be read"));
    assert_eq!(
        database.register("alice", phone).await.registration,
        Registration::Known
    );
    // Gateways hear of both.
    assert_eq!(database.publish(OutboxKey::User(alice), 1).await, [1, 2, 3]);
}

#[tokio::test]
async fn who_never_connected_can_be_suspended_too() {
    let database = TestDatabase::new().await;
    let (metadata, eve) = (&database.metadata, user("eve"));
    assert!(matches!(
        metadata.resume_user(&eve).await,
        Err(SuspendError::NotFound)
    ));
    assert!(!metadata.is_suspended(&eve).await.expect("it can be read"));
    assert!(metadata.suspend_user(&eve).await.expect("anybody can be"));
    let refusal = metadata
        .register_client(hello("eve", client()))
        .await
        .expect_err("she is suspended");
    assert!(matches!(refusal, RegisterError::Suspended), "{refusal}");
}
