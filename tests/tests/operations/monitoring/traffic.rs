//! People who use a system while somebody watches it.

use tidings_protocol::{ChatId, CreateAttachment, MessageId, SendMessage, UserId};
use tidings_tests::{Device, Identity, System, sha256};
use uuid::Uuid;

/// Alice writes, bob is connected and confirms, carol has been here and is away.
pub(super) struct Traffic<'a> {
    system: &'a System,
    http: reqwest::Client,
    alice: Device,
    bob: Device,
    chat_id: ChatId,
}

impl<'a> Traffic<'a> {
    pub(super) async fn new(system: &'a System) -> Self {
        let mut alice = Device::fresh(system, "alice").await;
        let bob = Device::fresh(system, "bob").await;
        let carol = Identity::fresh("carol");
        Device::of(system, &carol).await.close().await;
        let others: [UserId; 2] = [bob.user_id(), carol.user_id.clone()];
        let chat_id = alice.create_group(&others).await;
        Self {
            system,
            http: reqwest::Client::new(),
            alice,
            bob,
            chat_id,
        }
    }

    /// One message that is confirmed, one with an attachment that is downloaded, one that is refused.
    pub(super) async fn go_on(&mut self) {
        self.alice.say(self.chat_id, "hello").await;
        let content = Uuid::new_v4().to_string();
        let id = self.alice.id();
        let announced = CreateAttachment {
            id,
            hash: sha256(content.as_bytes()).to_string(),
            size: content.len() as u64,
            content_type: "text/plain".to_owned(),
            name: None,
        };
        let slot = self.alice.request(announced).await.expect("there is room");
        let secret = self.system.secret();
        let put = self
            .http
            .put(slot.upload_url.expect("it says where to"))
            .bearer_auth(self.alice.identity.token(&secret))
            .header("Content-Type", "text/plain")
            .body(content);
        assert!(put.send().await.expect("media answers").status().is_success());
        let attachment_id = slot.attachment_id.expect("it has an id");
        let id = self.alice.id();
        let message = SendMessage {
            id,
            chat_id: self.chat_id,
            message_id: MessageId(Uuid::new_v4()),
            message: String::new(),
            attachments: vec![attachment_id],
        };
        self.alice.request(message).await.expect("it was uploaded");
        for _ in 0..2 {
            let heard = self.bob.message().await;
            self.bob.confirm(heard.delivery).await;
        }
        let media = self.system.up_file().media.expect("media runs");
        let get = self
            .http
            .get(format!("{media}/v1/attachments/{attachment_id}"))
            .bearer_auth(self.bob.identity.token(&secret));
        let bytes = async { get.send().await?.bytes().await };
        bytes.await.expect("bob may read it");
        let id = self.alice.id();
        let stranger = SendMessage {
            id,
            chat_id: ChatId(Uuid::new_v4()),
            message_id: MessageId(Uuid::new_v4()),
            message: "nobody hears this".to_owned(),
            attachments: Vec::new(),
        };
        self.alice
            .request(stranger)
            .await
            .expect_err("there is no such chat");
    }
}
