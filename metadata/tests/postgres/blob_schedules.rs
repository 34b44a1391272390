//! Removal against reuse: schedules of everything that makes, stores, names, ends and removes attachments, at once. The store
//! is a set of names. A failure names its seed; `TIDINGS_SEED=<seed>` runs that one alone, `TIDINGS_SEEDS=<count>`
//! runs more than usual. The seed fixes what each task does, not how Postgres interleaves them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use sqlx::PgPool;
use tidings_metadata::{Attempt, FinishedUpload, Metadata, NewAttachment};
use tidings_protocol::{AttachmentId, ChatId};
use uuid::Uuid;

use crate::attachments::new_attachment;
use crate::test_database::{TestDatabase, at_once, user};

const TASKS: u64 = 8;
const STEPS: u64 = 40;
/// Few, so that they meet.
const CONTENTS: u64 = 2;
/// Several slots of a content: one that is made while another goes is what has no row in common with it.
const NAMES: u64 = 6;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[derive(Clone)]
struct World {
    seed: u64,
    metadata: Metadata,
    pool: PgPool,
    chat_id: ChatId,
    store: Arc<Mutex<HashSet<Uuid>>>,
}

impl World {
    fn stores(&self, blob_id: Uuid) -> bool {
        self.store.lock().expect("nobody panicked").contains(&blob_id)
    }

    async fn act(self, task: u64) {
        let mut random = Random(self.seed * TASKS + task);
        let mut slots = Vec::new();
        for _ in 0..STEPS {
            let slot = slots
                .get(random.below(slots.len().max(1) as u64) as usize)
                .copied();
            match (random.below(10), slot) {
                (0..3, _) | (_, None) => slots.push(
                    self.create(random.below(CONTENTS) as u8, random.below(NAMES))
                        .await,
                ),
                (3..5, Some(slot)) => self.upload(slot, random.below(4)).await,
                (5, Some(slot)) => {
                    // A refusal is fine; a deadlock would be none.
                    let granted = self
                        .metadata
                        .grant_attachments(self.chat_id, &user("alice"), &slots)
                        .await;
                    if let Err(tidings_metadata::GrantError::Database(error)) = granted {
                        panic!("seed {}: {error}", self.seed);
                    }
                    self.look(slot).await;
                }
                (6..8, _) => self.expire().await,
                _ => self.remove().await,
            }
        }
    }

    async fn create(&self, content: u8, name: u64) -> AttachmentId {
        let new = NewAttachment {
            name: Some(format!("{name}.png")),
            ..new_attachment("alice", content)
        };
        let created = self.metadata.create_attachment(&new, None).await;
        let created = created.expect("there are no limits");
        let record = self.look(created.attachment_id).await;
        assert!(
            !created.uploaded || record,
            "seed {}: a slot that was said to be ready is not",
            self.seed
        );
        created.attachment_id
    }

    /// Whether the slot is gone or ready. What is ready is in the store, unless it went since.
    async fn look(&self, slot: AttachmentId) -> bool {
        let read = async || {
            let read = self.metadata.attachment(slot, &user("alice")).await;
            read.expect("Postgres is up").expect("nothing is pruned here")
        };
        let record = read().await;
        if let Some(blob_id) = record.blob_id
            && !self.stores(blob_id)
        {
            assert!(
                read().await.gone,
                "seed {}: a ready attachment's blob was removed",
                self.seed
            );
        }
        record.gone || record.blob_id.is_some()
    }

    async fn upload(&self, slot: AttachmentId, choice: u64) {
        let attempt = if choice.is_multiple_of(2) {
            Attempt::Fresh
        } else {
            Attempt::Resume
        };
        let Ok(open) = self.metadata.open_upload(slot, &user("alice"), attempt).await else {
            return;
        };
        self.store.lock().expect("nobody panicked").insert(open.blob_id);
        if choice == 3 {
            let given_up = self.metadata.abandon_upload(open.blob_id, open.fence).await;
            return given_up.expect("Postgres is up");
        }
        let finished = self.metadata.finish_upload(open.blob_id, open.fence).await;
        let ready = self.look(slot).await;
        let lost = finished.expect("Postgres is up") == FinishedUpload::Lost;
        assert!(
            lost || ready,
            "seed {}: what was finished is not ready",
            self.seed
        );
    }

    async fn expire(&self) {
        // In the order of ids, like all who lock several.
        let age = "WITH aged AS (
                SELECT attachment_id FROM attachments WHERE gone_at IS NULL AND random() < 0.9
                ORDER BY attachment_id FOR UPDATE
            )
            UPDATE attachments SET expires_at = now() - interval '1 second'
            FROM aged WHERE attachments.attachment_id = aged.attachment_id";
        sqlx::query(age)
            .execute(&self.pool)
            .await
            .expect("Postgres is up");
        self.metadata
            .expire_attachments(100)
            .await
            .expect("Postgres is up");
    }

    async fn remove(&self) {
        for blob in self.metadata.doomed_blobs(100).await.expect("Postgres is up") {
            self.store.lock().expect("nobody panicked").remove(&blob.blob_id);
            self.metadata
                .forget_blob(blob.blob_id)
                .await
                .expect("Postgres is up");
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("it is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn removal_and_reuse_never_touch_the_same_object() {
    let usual = number("TIDINGS_SEEDS").unwrap_or(10);
    let seeds = number("TIDINGS_SEED").map_or(0..usual, |seed| seed..seed + 1);
    let database = TestDatabase::new().await;
    database.open_connections(TASKS).await;
    let chat_id = database.group("alice", &["bob"]).await;
    for seed in seeds {
        let world = World {
            seed,
            metadata: database.metadata.clone(),
            pool: database.pool.clone(),
            chat_id,
            store: Arc::default(),
        };
        at_once((0..TASKS).map(|task| world.clone().act(task))).await;

        let unwanted = "SELECT count(*) FROM blobs b WHERE state = 'stored' AND NOT EXISTS (
            SELECT FROM attachments a
            WHERE a.owner = b.owner AND a.hash = b.hash AND a.size = b.size AND a.gone_at IS NULL)";
        assert_eq!(
            database.count(unwanted).await,
            0,
            "seed {seed}: blobs that nothing wants"
        );
        let objects: Vec<Uuid> = world
            .store
            .lock()
            .expect("nobody panicked")
            .iter()
            .copied()
            .collect();
        let known = database
            .metadata
            .known_blobs(&objects)
            .await
            .expect("Postgres is up");
        // What was opened and then doomed and forgotten before it was written is what the search for orphans is for.
        let orphans = objects.iter().filter(|object| !known.contains(object)).count();
        database
            .execute("UPDATE attachments SET expires_at = now() - interval '1 second' WHERE gone_at IS NULL")
            .await;
        while database
            .metadata
            .expire_attachments(100)
            .await
            .expect("Postgres is up")
            > 0
        {}
        world.remove().await;
        assert_eq!(
            database.count("SELECT count(*) FROM blobs").await,
            0,
            "seed {seed}: rows are left"
        );
        let left = world.store.lock().expect("nobody panicked").len();
        assert_eq!(left, orphans, "seed {seed}: objects are left");
    }
}
