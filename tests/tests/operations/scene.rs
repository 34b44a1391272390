//! Two people, one of whom is away while the other writes.

use tidings_protocol::{ChatId, Codec};
use tidings_tests::{Device, Identity, Stored, System};

/// What is said. No operator may see it.
pub(crate) const SAID: &str = "nobody's business";

/// Alice is connected, bob has been here and is away.
pub(crate) struct Scene {
    pub(crate) alice: Device,
    pub(crate) bob: Identity,
    pub(crate) chat_id: ChatId,
}

impl Scene {
    /// With so many messages in bob's inbox, and nothing else.
    pub(crate) async fn new(system: &System, messages: u64) -> Self {
        let alice = Device::fresh(system, "alice").await;
        let bob = Identity::fresh("bob");
        let mut device = Device::of(system, &bob).await;
        let chat_id = device.direct_chat(&alice.user_id()).await;
        let created = device.update().await;
        device.confirm(created.delivery).await;
        let stored = Stored::of(system).await;
        stored.until(&bob.user_id, bob.client_id, 0).await;
        device.close().await;
        let mut scene = Self { alice, bob, chat_id };
        for _ in 0..messages {
            scene.alice.say(chat_id, SAID).await;
        }
        stored
            .until(&scene.bob.user_id, scene.bob.client_id, messages)
            .await;
        scene
    }

    /// Bob's connection, which has confirmed nothing; and the numbers of his deliveries.
    pub(crate) async fn bob_connects(&self, system: &System, messages: u64) -> (Device, Vec<u64>) {
        let mut device = Device::on(system, 1, &self.bob, Codec::Json).await;
        let mut deliveries = Vec::new();
        for _ in 0..messages {
            deliveries.push(device.message().await.delivery);
        }
        (device, deliveries)
    }
}
