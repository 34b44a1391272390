//! What one says reaches the other's devices and one's own other ones: once, in order, each confirming for itself.

use tidings_protocol::Codec;
use tidings_tests::{Device, Identity, Stored, System};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_talk() {
    let system = System::shared().await;
    let mut alice = Device::fresh(system, "alice").await;
    let bob = Identity::fresh("bob");
    let mut bob = Device::on(system, 1, &bob, Codec::Postcard).await;
    let chat_id = alice.direct_chat(&bob.user_id()).await;
    let mut last = 0;
    for number in 0..10 {
        let reply = alice.say(chat_id, &format!("message {number}")).await;
        let seq = reply.seq.expect("a seq");
        assert!(seq > last);
        last = seq;
    }
    assert_eq!(bob.update().await.chat_id, chat_id);
    for number in 0..10 {
        let message = bob.message().await;
        assert_eq!(message.message, format!("message {number}"));
        assert_eq!(message.user_id, alice.user_id());
        assert_eq!(message.client_id, alice.identity.client_id);
        assert_eq!(message.delivery, number + 2);
        if number == 9 {
            assert_eq!(message.seq, last);
        }
    }
    let stored = Stored::of(system).await;
    stored.until(&bob.user_id(), bob.identity.client_id, 11).await;
    bob.confirm_through(10).await;
    stored.until(&bob.user_id(), bob.identity.client_id, 1).await;
    bob.confirm(11).await;
    stored.until(&bob.user_id(), bob.identity.client_id, 0).await;
}
