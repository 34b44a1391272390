//! What these tests do beside what a device does.

use tidings_nats::{Shard, Topology};
use tidings_protocol::{ChatId, MessageId, NewMessage, SendMessage};
use tidings_tests::{Device, Identity};
use uuid::Uuid;

/// The shard whose stream a test may spoil.
pub(crate) const SPOILED: Shard = Shard(63);

/// Somebody whose inbox is in the shard that is spoiled, or in another one.
pub(crate) fn person(name: &str, spoiled: bool) -> Identity {
    std::iter::repeat_with(|| Identity::fresh(name))
        .find(|identity| (Topology::default().shard(&identity.user_id) == SPOILED) == spoiled)
        .expect("one in 64 is, and the others are not")
}

/// Sends so many messages without waiting in between, and waits until all are accepted.
pub(crate) async fn say_many(device: &mut Device, chat_id: ChatId, count: usize) {
    // Fewer than a gateway takes at once from a connection.
    const AT_ONCE: usize = 32;
    let mut sent = 0;
    while sent < count {
        let mut ids = Vec::new();
        for _ in 0..AT_ONCE.min(count - sent) {
            let id = device.id();
            let request = SendMessage {
                id,
                chat_id,
                message_id: MessageId(Uuid::new_v4()),
                message: format!("message {sent}"),
                attachments: vec![],
            };
            device.send(request).await;
            ids.push(id);
            sent += 1;
        }
        for id in ids {
            device.reply(id).await.expect("the message is accepted");
        }
    }
}

/// The next messages, in the order they come.
pub(crate) async fn hear(device: &mut Device, count: usize) -> Vec<NewMessage> {
    let mut heard = Vec::new();
    while heard.len() < count {
        heard.push(device.message().await);
    }
    heard
}
