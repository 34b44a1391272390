//! Slots, uploads, and who may read what.

use tidings_metadata::{
    AttachmentLimits, AttachmentRecord, Attempt, CreateAttachmentError, FinishedUpload, GrantError,
    GrantRefusal, NewAttachment, OpenUploadError, OutboxKey,
};
use tidings_protocol::{AttachmentId, ChatId, ContentHash, Operation};
use uuid::Uuid;

use crate::test_database::{TestDatabase, at_once, user};

pub(crate) fn new_attachment(owner: &str, content: u8) -> NewAttachment {
    NewAttachment {
        owner: user(owner),
        hash: ContentHash([content; 32]),
        size: 10,
        content_type: "image/png".to_owned(),
        name: Some("cat.png".to_owned()),
    }
}

impl TestDatabase {
    async fn slot(&self, owner: &str, content: u8) -> AttachmentId {
        let created = self
            .metadata
            .create_attachment(&new_attachment(owner, content), None)
            .await;
        created.expect("there are no limits").attachment_id
    }

    async fn ready(&self, owner: &str, content: u8) -> AttachmentId {
        let slot = self.slot(owner, content).await;
        let open = self
            .metadata
            .open_upload(slot, &user(owner), Attempt::Fresh)
            .await;
        let open = open.expect("the slot is new");
        let finished = self.metadata.finish_upload(open.blob_id, open.fence).await;
        assert_eq!(finished.expect("Postgres is up"), FinishedUpload::Stored);
        slot
    }

    async fn read(&self, slot: AttachmentId, reader: &str) -> Option<AttachmentRecord> {
        self.metadata
            .attachment(slot, &user(reader))
            .await
            .expect("Postgres is up")
    }

    /// Which of them may read it.
    async fn readers(&self, slot: AttachmentId) -> String {
        let mut readers = Vec::new();
        for reader in ["alice", "bob", "carol", "dave", "eve"] {
            if self.read(slot, reader).await.is_some() {
                readers.push(reader);
            }
        }
        readers.join(" ")
    }

    async fn grant(
        &self,
        chat_id: ChatId,
        sender: &str,
        slots: &[AttachmentId],
    ) -> Result<u64, (usize, GrantRefusal)> {
        match self
            .metadata
            .grant_attachments(chat_id, &user(sender), slots)
            .await
        {
            Ok(grant) => {
                let granted: Vec<_> = grant.attachments.iter().map(|one| one.attachment_id).collect();
                assert_eq!(granted, slots, "in the order asked");
                Ok(grant.version)
            }
            Err(GrantError::Refused { index, why }) => Err((index, why)),
            Err(error) => panic!("{error}"),
        }
    }

    async fn expire_everything(&self) {
        self.execute("UPDATE attachments SET expires_at = now() - interval '1 second' WHERE gone_at IS NULL")
            .await;
        self.metadata
            .expire_attachments(1000)
            .await
            .expect("Postgres is up");
    }
}

#[tokio::test]
async fn a_retry_makes_no_second_slot_and_another_name_does() {
    let database = TestDatabase::new().await;
    let slot = database.slot("alice", 1).await;
    assert_eq!(database.slot("alice", 1).await, slot);
    let mut other = new_attachment("alice", 1);
    other.name = None;
    let other = database
        .metadata
        .create_attachment(&other, None)
        .await
        .expect("no limits");
    assert_ne!(other.attachment_id, slot);
    assert_ne!(database.slot("bob", 1).await, slot);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_exact_when_many_ask_at_once() {
    let database = TestDatabase::new().await;
    for (owner, limits, expected) in [
        (
            "alice",
            AttachmentLimits {
                per_hour: 7,
                bytes_per_user: 1000,
            },
            7,
        ),
        (
            "bob",
            AttachmentLimits {
                per_hour: 1000,
                bytes_per_user: 59,
            },
            5,
        ),
        (
            "carol",
            AttachmentLimits {
                per_hour: 0,
                bytes_per_user: 59,
            },
            0,
        ),
    ] {
        let tries = (0..30).map(|content| {
            let metadata = database.metadata.clone();
            async move {
                metadata
                    .create_attachment(&new_attachment(owner, content), Some(limits))
                    .await
            }
        });
        let mut made = 0;
        for outcome in at_once(tries).await {
            match outcome {
                Ok(_) => made += 1,
                Err(CreateAttachmentError::TooMany { retry_after }) => {
                    assert!(
                        retry_after.as_secs() > 3500 && retry_after.as_secs() <= 3600,
                        "{retry_after:?}"
                    );
                }
                Err(CreateAttachmentError::BudgetSpent { used, budget }) => {
                    assert_eq!((used, budget), (50, 59));
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(made, expected, "{owner}");
    }
    database
        .execute("UPDATE attachments SET created_at = created_at - interval '1 hour'")
        .await;
    let limits = AttachmentLimits {
        per_hour: 7,
        bytes_per_user: 1000,
    };
    let later = database
        .metadata
        .create_attachment(&new_attachment("alice", 99), Some(limits))
        .await;
    later.expect("an hour later there is room");
}

#[tokio::test]
async fn who_was_in_at_that_version_may_read() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    let slot = database.ready("alice", 1).await;
    assert_eq!(database.readers(slot).await, "alice");
    assert_eq!(
        database.grant(chat_id, "eve", &[slot]).await,
        Err((0, GrantRefusal::Forbidden))
    );
    assert_eq!(database.grant(chat_id, "alice", &[slot, slot]).await, Ok(1));
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    database.change(chat_id, "alice", Operation::Remove, "bob").await;
    assert_eq!(
        database.readers(slot).await,
        "alice bob",
        "who left may, who came may not"
    );
    // Bob may name it elsewhere, though it is not his.
    let other = database.group("bob", &["dave"]).await;
    assert_eq!(database.grant(other, "bob", &[slot]).await, Ok(1));
    assert_eq!(database.readers(slot).await, "alice bob dave");
    let with_absent = [slot, AttachmentId(Uuid::nil())];
    let late = database.metadata.grant_attachments_at(chat_id, 2, &with_absent);
    late.await.expect("version 2 is there");
    database
        .metadata
        .grant_attachments_at(chat_id, 2, &[slot])
        .await
        .expect("again is the same");
    assert_eq!(database.readers(slot).await, "alice bob carol dave");
    let nowhere = database
        .metadata
        .grant_attachments(ChatId(Uuid::nil()), &user("alice"), &[slot])
        .await;
    assert!(matches!(nowhere, Err(GrantError::NoChat)), "{nowhere:?}");
}

#[tokio::test]
async fn each_refusal_names_the_first_attachment_and_grants_nothing() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    let gone = database.ready("alice", 1).await;
    database
        .grant(chat_id, "alice", &[gone])
        .await
        .expect("it is ready");
    database.expire_everything().await;
    let (ready, empty) = (database.ready("alice", 2).await, database.slot("alice", 3).await);
    let absent = AttachmentId(Uuid::new_v4());
    assert_eq!(
        database.grant(chat_id, "alice", &[ready, empty]).await,
        Err((1, GrantRefusal::NotReady))
    );
    assert_eq!(
        database.grant(chat_id, "bob", &[gone]).await,
        Err((0, GrantRefusal::Gone))
    );
    assert_eq!(
        database.grant(chat_id, "eve", &[gone]).await,
        Err((0, GrantRefusal::Forbidden))
    );
    assert_eq!(
        database.grant(chat_id, "alice", &[ready, absent]).await,
        Err((1, GrantRefusal::Forbidden))
    );
    assert_eq!(database.readers(ready).await, "alice");
}

#[tokio::test]
async fn what_is_gone_is_remembered_for_a_month_and_holds_its_history() {
    let database = TestDatabase::new().await;
    let chat_id = database.group("alice", &["bob"]).await;
    database.publish(OutboxKey::Chat(chat_id), 1).await;
    let slot = database.ready("alice", 1).await;
    database
        .grant(chat_id, "alice", &[slot])
        .await
        .expect("it is ready");
    database.change(chat_id, "alice", Operation::Add, "carol").await;
    database.publish(OutboxKey::Chat(chat_id), 2).await;
    database
        .execute("UPDATE outbox SET superseded_at = superseded_at - interval '8 days'")
        .await;
    let pruned = async || {
        database
            .metadata
            .prune(10)
            .await
            .expect("it can be pruned")
            .outbox
    };
    assert_eq!(pruned().await, 0, "a grant names the row");

    database.expire_everything().await;
    assert!(
        database
            .read(slot, "bob")
            .await
            .is_some_and(|record| record.gone && record.blob_id.is_none())
    );
    assert_eq!(database.readers(slot).await, "alice bob");
    let doomed = database.metadata.doomed_blobs(10).await.expect("Postgres is up");
    assert_eq!(doomed.len(), 1);
    database
        .metadata
        .forget_blob(doomed[0].blob_id)
        .await
        .expect("Postgres is up");
    let prune = async || {
        database
            .metadata
            .prune_attachments(10)
            .await
            .expect("Postgres is up")
    };
    assert_eq!(prune().await, 0);
    database
        .execute("UPDATE attachments SET gone_at = gone_at - interval '32 days'")
        .await;
    assert_eq!((prune().await, pruned().await), (1, 1));
    assert_eq!(database.readers(slot).await, "");
}

#[tokio::test]
async fn an_upload_belongs_to_who_opened_it_last() {
    let database = TestDatabase::new().await;
    let (metadata, alice) = (&database.metadata, user("alice"));
    let slot = database.slot("alice", 1).await;
    let foreign = metadata.open_upload(slot, &user("bob"), Attempt::Resume).await;
    assert!(matches!(foreign, Err(OpenUploadError::NotFound)));
    let first = metadata
        .open_upload(slot, &alice, Attempt::Resume)
        .await
        .expect("it is new");
    let checkpoint = serde_json::json!({"offset": 4});
    assert!(
        metadata
            .note_checkpoint(first.blob_id, first.fence, 4, &checkpoint)
            .await
            .expect("up")
    );
    let second = metadata
        .open_upload(slot, &alice, Attempt::Resume)
        .await
        .expect("it goes on");
    assert_eq!((second.blob_id, second.received), (first.blob_id, 4));
    assert_eq!(second.checkpoint.as_ref(), Some(&checkpoint));
    assert!(
        !metadata
            .note_checkpoint(first.blob_id, first.fence, 5, &checkpoint)
            .await
            .expect("up")
    );
    metadata
        .abandon_upload(first.blob_id, first.fence)
        .await
        .expect("up");
    let lost = metadata
        .finish_upload(first.blob_id, first.fence)
        .await
        .expect("up");
    assert_eq!(lost, FinishedUpload::Lost);
    let standing = metadata
        .upload(slot, &alice)
        .await
        .expect("up")
        .expect("it is there");
    assert_eq!(standing.received, 4);

    let third = metadata
        .open_upload(slot, &alice, Attempt::Fresh)
        .await
        .expect("it begins anew");
    assert_eq!((third.replaced, third.received), (Some(first.blob_id), 0));
}

#[tokio::test]
async fn an_upload_makes_every_slot_of_the_content_ready() {
    let database = TestDatabase::new().await;
    let (metadata, alice) = (&database.metadata, user("alice"));
    let slot = database.slot("alice", 1).await;
    let third = metadata
        .open_upload(slot, &alice, Attempt::Fresh)
        .await
        .expect("it is new");
    // Another slot of the same content is made ready by the same upload.
    let twin = metadata
        .create_attachment(
            &NewAttachment {
                name: None,
                ..new_attachment("alice", 1)
            },
            None,
        )
        .await;
    let twin = twin.expect("no limits").attachment_id;
    let late = metadata
        .open_upload(twin, &alice, Attempt::Fresh)
        .await
        .expect("it is new");
    for _ in 0..2 {
        let finished = metadata
            .finish_upload(third.blob_id, third.fence)
            .await
            .expect("up");
        assert_eq!(finished, FinishedUpload::Stored, "also for one who asks again");
    }
    let stored = metadata.open_upload(twin, &alice, Attempt::Resume).await;
    assert!(matches!(stored, Err(OpenUploadError::Stored(_))));
    let finished = metadata
        .finish_upload(late.blob_id, late.fence)
        .await
        .expect("up");
    assert_eq!(finished, FinishedUpload::AlreadyStored);
    assert_eq!(
        metadata
            .upload(twin, &alice)
            .await
            .expect("up")
            .expect("there")
            .received,
        10
    );
}

#[tokio::test]
async fn an_upload_is_begun_twenty_times_and_left_for_a_day() {
    let database = TestDatabase::new().await;
    let (metadata, alice) = (&database.metadata, user("alice"));
    let tried = database.slot("alice", 2).await;
    for _ in 0..20 {
        metadata
            .open_upload(tried, &alice, Attempt::Fresh)
            .await
            .expect("20 may be begun");
    }
    let more = metadata.open_upload(tried, &alice, Attempt::Fresh).await;
    assert!(matches!(more, Err(OpenUploadError::TooManyTries)));
    metadata
        .open_upload(tried, &alice, Attempt::Resume)
        .await
        .expect("going on is no beginning");
    database
        .execute("UPDATE blobs SET touched_at = touched_at - interval '25 hours' WHERE state = 'uploading'")
        .await;
    assert_eq!(metadata.doom_unused_blobs(10).await.expect("up"), 1);
    database.expire_everything().await;
    let gone = metadata.open_upload(tried, &alice, Attempt::Fresh).await;
    assert!(matches!(gone, Err(OpenUploadError::Gone)));
    let counts = metadata.count_attachments().await.expect("up");
    assert_eq!(
        (counts.attachments, counts.gone, counts.stored, counts.uploading),
        (0, 1, 0, 0)
    );
}

#[tokio::test]
async fn a_database_is_bound_to_one_store() {
    let database = TestDatabase::new().await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(database.metadata.blob_store().await.expect("up"), None);
    assert_eq!(database.metadata.bind_blob_store(first).await.expect("up"), first);
    assert_eq!(
        database.metadata.bind_blob_store(second).await.expect("up"),
        first
    );
    assert_eq!(database.metadata.blob_store().await.expect("up"), Some(first));
}
