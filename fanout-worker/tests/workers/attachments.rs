//! Whoever receives a message may read what it names, also where the chat changed between grant and publish.

use tidings_metadata::{Attempt, FinishedUpload, NewAttachment};
use tidings_protocol::{Attachment, AttachmentId, ContentHash, Operation, UserId};

use crate::support::{Person, System};

impl System {
    /// Something that is uploaded, as far as Postgres knows.
    async fn upload(&self, owner: &Person, content: u8) -> AttachmentId {
        let metadata = &self.context.metadata;
        let new = NewAttachment {
            owner: owner.user_id.clone(),
            hash: ContentHash([content; 32]),
            size: 1,
            content_type: "a/b".to_owned(),
            name: None,
        };
        let created = metadata.create_attachment(&new, None).await.expect("it fits");
        let id = created.attachment_id;
        let opened = metadata.open_upload(id, &owner.user_id, Attempt::Fresh).await;
        let opened = opened.expect("it is the owner's");
        let finished = metadata.finish_upload(opened.blob_id, opened.fence).await;
        assert_eq!(finished.expect("Postgres answers"), FinishedUpload::Stored);
        id
    }

    async fn may_read(&self, user: &UserId, id: AttachmentId) -> bool {
        let record = self.context.metadata.attachment(id, user).await;
        record.expect("Postgres answers").is_some()
    }
}

fn named(id: AttachmentId) -> Vec<Attachment> {
    vec![Attachment {
        attachment_id: id,
        size: 1,
        content_type: "a/b".to_owned(),
        hash: ContentHash([0; 32]).to_string(),
        name: None,
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_added_between_grant_and_publish_may_read() {
    let system = System::start(4).await;
    let [alice, bob, carol, dave] = [
        system.register("alice").await,
        system.register("bob").await,
        system.register("carol").await,
        system.register("dave").await,
    ];
    let file = system.upload(&alice, 1).await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
    let metadata = &system.context.metadata;

    // The gateway grants, carol is added, the gateway publishes.
    let grant = metadata.grant_attachments(chat_id, &alice.user_id, &[file]).await;
    let grant = grant.expect("it is ready");
    system
        .modify(chat_id, &alice.user_id, Operation::Add, &carol.user_id)
        .await;
    system
        .send_with(chat_id, &alice, "1", grant.attachments, Some(grant.version))
        .await;
    assert!(!system.may_read(&carol.user_id, file).await, "the race is there");
    // And nothing is granted to who comes after the message.
    system
        .modify(chat_id, &alice.user_id, Operation::Add, &dave.user_id)
        .await;

    let worker = system.worker().await;
    // Her addition, the message, the addition of dave.
    let entries = system.wait_for_entries(&carol, 3).await;
    assert!(system.may_read(&carol.user_id, file).await, "{entries:?}");
    assert!(system.may_read(&bob.user_id, file).await);
    system.wait_until_fanned_out().await;
    assert!(!system.may_read(&dave.user_id, file).await);

    // No header at all, as of a message that was put back by hand. This chat is in the worker's cache.
    let second = system.upload(&alice, 2).await;
    system.send_with(chat_id, &alice, "2", named(second), None).await;
    system.wait_for_entries(&dave, 2).await;
    for person in [&bob, &carol, &dave] {
        assert!(system.may_read(&person.user_id, second).await);
    }

    // What is gone meanwhile keeps no message back.
    let third = AttachmentId(uuid::Uuid::new_v4());
    system
        .send_with(chat_id, &alice, "3", named(third), Some(1))
        .await;
    system.wait_for_entries(&dave, 3).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_to_another_version_is_granted_to_this_one_and_to_nobody_else() {
    let system = System::start(4).await;
    let (alice, bob) = (system.register("alice").await, system.register("bob").await);
    let carol = system.register("carol").await;
    let file = system.upload(&alice, 1).await;
    let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id, &carol.user_id]).await;
    let worker = system.worker().await;
    let removed = system
        .modify(chat_id, &alice.user_id, Operation::Remove, &carol.user_id)
        .await;
    // A version that is ahead of the message's place, too: the gateway saw a change that was not published yet.
    let sent = system
        .send_with(chat_id, &alice, "1", named(file), Some(99))
        .await;
    assert!(sent > removed);
    system.wait_for_entries(&bob, 3).await;
    assert!(system.may_read(&bob.user_id, file).await);
    assert!(
        !system.may_read(&carol.user_id, file).await,
        "nothing was ever granted to her"
    );
    worker.stop().await;
}
