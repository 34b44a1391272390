//! Attachments end when nobody names them any more, and their bytes with them, whatever dies meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt as _;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;
use tidings_blobs::{BlobStore, BlobStoreConfig};
use tidings_metadata::{AttachmentRecord, Attempt, FinishedUpload, NewAttachment, NewChat};
use tidings_protocol::{AttachmentId, ChatId, ContentHash, RequestId};
use uuid::Uuid;

use crate::expire::after_a_round;
use crate::support::{System, Worker, until, user};

const DAY_MS: i64 = 86_400_000;

/// A system with a folder of bytes.
struct Attachments {
    system: System,
    folder: TempDir,
    store: BlobStore,
}

fn open(folder: &Path) -> BlobStore {
    let config = BlobStoreConfig::folder(folder).expect("it is an absolute path");
    BlobStore::open(&config).expect("a folder can be a store")
}

impl Attachments {
    async fn start() -> Self {
        let system = System::start().await;
        let folder = TempDir::with_prefix("tidings-attachments-").expect("a folder for the test");
        let store = open(folder.path());
        let id = store.claim(Uuid::new_v4()).await.expect("the folder is writable");
        let bound = system.context.metadata.bind_blob_store(id).await;
        assert_eq!(bound.expect("Postgres answers"), id);
        Self {
            system,
            folder,
            store,
        }
    }

    async fn worker(&self, settings: &[&str]) -> Worker {
        self.worker_at(self.folder.path(), settings).await
    }

    async fn worker_at(&self, folder: &Path, settings: &[&str]) -> Worker {
        let url = format!("file://{}", folder.display());
        self.system
            .worker(&[&["--blob-store", url.as_str()], settings].concat())
            .await
    }

    /// Alice uploads something.
    async fn upload(&self, content: &str) -> (AttachmentId, Uuid) {
        let metadata = &self.system.context.metadata;
        let (hash, size) = (hash(content), content.len() as u64);
        let new = NewAttachment {
            owner: user("alice"),
            hash,
            size,
            content_type: "text/plain".to_owned(),
            name: None,
        };
        let created = metadata.create_attachment(&new, None).await.expect("it fits");
        let id = created.attachment_id;
        let opened = metadata.open_upload(id, &user("alice"), Attempt::Fresh).await;
        let opened = opened.expect("it is alice's");
        let mut upload = self.store.begin(opened.blob_id).await.expect("the store answers");
        upload
            .write(Bytes::from(content.to_owned()))
            .await
            .expect("there is room");
        upload.finish(hash, size).await.expect("it is what was said");
        let finished = metadata.finish_upload(opened.blob_id, opened.fence).await;
        assert_eq!(finished.expect("Postgres answers"), FinishedUpload::Stored);
        (id, opened.blob_id)
    }

    /// A message of alice names it.
    async fn name(&self, id: AttachmentId) -> ChatId {
        let metadata = &self.system.context.metadata;
        let chat = NewChat {
            creator: user("alice"),
            request_id: RequestId(Uuid::new_v4()),
            others: vec![user("bob")],
            name: None,
        };
        let chat_id = metadata
            .create_chat(chat)
            .await
            .expect("the chat is made")
            .chat_id;
        let granted = metadata.grant_attachments(chat_id, &user("alice"), &[id]).await;
        granted.expect("it is ready");
        chat_id
    }

    async fn record(&self, id: AttachmentId) -> AttachmentRecord {
        let record = self.system.context.metadata.attachment(id, &user("alice")).await;
        record.expect("Postgres answers").expect("it is alice's")
    }

    /// Time passes.
    async fn pass(&self, days: i32) {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect(self.system.postgres_url())
            .await
            .expect("Postgres answers");
        sqlx::query(
            "UPDATE attachments SET expires_at = expires_at - make_interval(days => $1, secs => 1),
                                    gone_at = gone_at - make_interval(days => $1, secs => 1)",
        )
        .bind(days)
        .execute(&pool)
        .await
        .expect("there are attachments");
        pool.close().await;
    }

    /// What the store has.
    async fn stored(&self) -> Vec<Uuid> {
        let listed: Vec<_> = self
            .store
            .list()
            .try_collect()
            .await
            .expect("the folder is there");
        let mut ids: Vec<Uuid> = listed.iter().map(|blob| blob.blob_id).collect();
        ids.sort_unstable();
        ids
    }

    async fn until_stored(&self, mut expected: Vec<Uuid>) {
        expected.sort_unstable();
        until("the store has what it should", async || {
            (self.stored().await == expected).then_some(())
        })
        .await;
    }

    async fn until_nothing_is_doomed(&self) {
        until("no row is left of what was removed", async || {
            let doomed = self.system.context.metadata.doomed_blobs(10).await;
            doomed.expect("Postgres answers").is_empty().then_some(())
        })
        .await;
    }
}

fn hash(content: &str) -> ContentHash {
    use sha2::{Digest as _, Sha256};
    ContentHash(Sha256::digest(content).into())
}

/// Whether it lives for so many days from now, about.
#[track_caller]
fn assert_lives(record: &AttachmentRecord, days: i64) {
    let now = tidings_service::clock::now();
    let left = record.expires_at.0 - now.0;
    assert!((left - days * DAY_MS).abs() < 60_000, "{left} ms are left");
}

#[tokio::test]
async fn what_nobody_named_is_gone_after_a_day_and_what_was_named_after_31() {
    let files = Attachments::start().await;
    let (unnamed, unnamed_blob) = files.upload("unnamed").await;
    let (named, named_blob) = files.upload("named").await;
    files.name(named).await;
    assert_lives(&files.record(unnamed).await, 1);
    assert_lives(&files.record(named).await, 31);

    // Two at once do it once.
    let workers = [files.worker(&[]).await, files.worker(&[]).await];
    until("one of them has looked", async || {
        let lease = files.system.context.metadata.lease("attachments").await;
        lease.expect("Postgres answers")
    })
    .await;
    files.until_stored(vec![unnamed_blob, named_blob]).await;
    for worker in workers {
        worker.stop().await;
    }

    files.pass(1).await;
    let workers = [files.worker(&[]).await, files.worker(&[]).await];
    files.until_stored(vec![named_blob]).await;
    assert!(files.record(unnamed).await.gone);
    assert!(!files.record(named).await.gone);
    files.until_nothing_is_doomed().await;
    for worker in workers {
        worker.stop().await;
    }

    files.pass(29).await;
    // The last message that names it counts.
    files.name(named).await;
    assert_lives(&files.record(named).await, 31);
    files.pass(31).await;
    let worker = files.worker(&[]).await;
    files.until_stored(vec![]).await;
    assert!(files.record(named).await.gone);
    files.until_nothing_is_doomed().await;
    worker.stop().await;

    // Whoever could read it is told for a month more.
    files.pass(31).await;
    let worker = files.worker(&[]).await;
    until("nothing is known of it", async || {
        let metadata = &files.system.context.metadata;
        let record = metadata.attachment(named, &user("alice")).await;
        record.expect("Postgres answers").is_none().then_some(())
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn an_interrupted_removal_is_finished_later() {
    let files = Attachments::start().await;
    let metadata = &files.system.context.metadata;
    let (_, bytes_gone) = files.upload("its bytes are gone, its row is not").await;
    let (_, untouched) = files.upload("nothing of it is gone").await;
    let (kept, kept_blob) = files.upload("somebody needs it").await;
    files.name(kept).await;
    files.pass(1).await;
    // A worker dies after the first half.
    assert_eq!(
        metadata.expire_attachments(100).await.expect("Postgres answers"),
        2
    );
    let removed = files.store.remove(bytes_gone, None).await;
    removed.expect("the folder is writable");
    assert_eq!(
        metadata.doomed_blobs(10).await.expect("Postgres answers").len(),
        2
    );
    assert!(files.stored().await.contains(&untouched));

    let worker = files.worker(&[]).await;
    files.until_nothing_is_doomed().await;
    files.until_stored(vec![kept_blob]).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_wrong_clock_removes_nothing() {
    let files = Attachments::start().await;
    let (id, blob) = files.upload("old").await;
    files.pass(1).await;
    for offset in ["--clock-offset=3600", "--clock-offset=-3456000"] {
        let worker = files.worker(&["--retention", "1s", offset]).await;
        assert!(worker.clock().await.is_some());
        after_a_round(&worker, &files.system).await;
        assert!(!files.record(id).await.gone);
        assert_eq!(files.stored().await, [blob]);
        worker.stop().await;
    }
    let worker = files.worker(&[]).await;
    files.until_stored(vec![]).await;
    worker.stop().await;
}

#[tokio::test]
async fn another_store_is_left_alone() {
    let files = Attachments::start().await;
    let (id, blob) = files.upload("old").await;
    files.pass(1).await;
    let other = TempDir::with_prefix("tidings-attachments-").expect("a folder for the test");
    let claimed = open(other.path()).claim(Uuid::new_v4()).await;
    claimed.expect("the folder is writable");
    // A blob of the same name: whoever removes by the name alone removes what is somebody else's.
    let foreign = only_file(files.folder.path(), blob);
    let copy = other
        .path()
        .join(foreign.strip_prefix(files.folder.path()).expect("it is in there"));
    std::fs::create_dir_all(copy.parent().expect("it is in a folder")).expect("the folder is writable");
    std::fs::copy(&foreign, &copy).expect("the folder is writable");
    let nowhere = other.path().join("nowhere");
    for folder in [other.path(), &nowhere] {
        let worker = files.worker_at(folder, &["--retention", "1s"]).await;
        after_a_round(&worker, &files.system).await;
        assert!(copy.exists() && foreign.exists());
        assert!(!files.record(id).await.gone);
        worker.stop().await;
    }
    let worker = files.worker(&[]).await;
    files.until_stored(vec![]).await;
    assert!(copy.exists());
    worker.stop().await;
}

#[tokio::test]
async fn bytes_that_no_row_speaks_of_are_removed_when_they_are_old() {
    let files = Attachments::start().await;
    let (_, known) = files.upload("known").await;
    let [old, young, part] = [(); 3].map(|()| Uuid::new_v4());
    for blob_id in [old, young] {
        let mut upload = files.store.begin(blob_id).await.expect("the store answers");
        let content = blob_id.to_string();
        upload.write(content.clone().into()).await.expect("there is room");
        upload
            .finish(hash(&content), content.len() as u64)
            .await
            .expect("it is what was said");
    }
    // A process that was killed in the middle.
    let mut upload = files.store.begin(part).await.expect("the store answers");
    upload.write("half".into()).await.expect("there is room");
    upload.checkpoint().await.expect("there is room");
    drop(upload);
    for blob_id in [old, part, known] {
        let file = File::options()
            .append(true)
            .open(only_file(files.folder.path(), blob_id));
        let two_days_ago = SystemTime::now() - Duration::from_hours(48);
        file.and_then(|file| file.set_modified(two_days_ago))
            .expect("the file is ours");
    }
    let worker = files.worker(&[]).await;
    files.until_stored(vec![known, young]).await;
    worker.stop().await;
}

/// The file of a blob.
fn only_file(folder: &Path, blob_id: Uuid) -> PathBuf {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("the folder is there").path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains(&blob_id.to_string()))
            {
                return path;
            }
        }
    }
    panic!("no file of {blob_id} in {}", folder.display())
}
