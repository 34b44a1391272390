//! What these tests look at beside the answers.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{Connection as _, PgConnection, Postgres};
use tidings_blobs::{BlobStore, BlobStoreConfig, StoredBlob};
use tidings_protocol::{AttachmentId, ContentHash};
use tidings_tests::files_count::count;
use tidings_tests::{System, eventually};
use uuid::Uuid;

/// The random moments of a test, and what to say of them when it fails.
pub(crate) fn seeded(test: &str) -> (StdRng, u64) {
    let given = std::env::var("TIDINGS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(rand::random::<u32>).into();
    eprintln!("{test}: TIDINGS_SEED={seed}");
    (StdRng::seed_from_u64(seed), seed)
}

const BEGUN_FOR_SLOT: &str = "SELECT blob_id, state, fence FROM blobs WHERE attachment_id = $1";
const BEGUN_WITH_CONTENT: &str = "SELECT blob_id, state, fence FROM blobs WHERE hash = $1";
const BEGUN_AND_NOT_STORED: &str = "SELECT blob_id, state, fence FROM blobs WHERE state <> 'stored'";

/// A row of `blobs`.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Begun {
    pub(crate) blob_id: Uuid,
    pub(crate) state: String,
    /// Names the request that has it.
    fence: Uuid,
}

/// A store, and the rows about it.
#[derive(Debug)]
pub(crate) struct Books {
    config: BlobStoreConfig,
    store: BlobStore,
    postgres: String,
    /// Where it lies, if it is a folder.
    folder: PathBuf,
}

impl Books {
    /// Of a system whose store is the usual folder.
    pub(crate) fn of(system: &System) -> Self {
        Self::at(system, &system.dir().join("attachments"))
    }

    /// Of one whose store is another folder.
    pub(crate) fn at(system: &System, folder: &Path) -> Self {
        let config = BlobStoreConfig::folder(folder).expect("the path is absolute");
        Self {
            folder: folder.to_owned(),
            ..Self::with(system, config)
        }
    }

    /// Of one whose store is anywhere.
    pub(crate) fn with(system: &System, config: BlobStoreConfig) -> Self {
        Self {
            store: BlobStore::open(&config).expect("the settings are complete"),
            config,
            postgres: system.up_file().postgres,
            folder: PathBuf::new(),
        }
    }

    /// Everything is as it should be.
    pub(crate) async fn assert_right(&self, note: &str) {
        let complaints = count(&self.config, &self.postgres).await;
        let complaints = complaints.unwrap_or_else(|error| panic!("{note}: {error:#}"));
        assert!(complaints.is_empty(), "{note}: {complaints:#?}");
    }

    /// What lies in the store.
    pub(crate) async fn stored(&self) -> Vec<StoredBlob> {
        self.store.list().try_collect().await.expect("the store answers")
    }

    /// The one connection of somebody who looks once.
    pub(crate) async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.postgres)
            .await
            .expect("Postgres answers")
    }

    /// Tells Postgres something.
    pub(crate) async fn tell(&self, statement: &'static str) -> u64 {
        let mut postgres = self.postgres().await;
        let done = sqlx::query(statement).execute(&mut postgres).await;
        done.expect("Postgres does it").rows_affected()
    }

    /// What was begun for a slot.
    pub(crate) async fn begun(&self, id: AttachmentId) -> Vec<Begun> {
        self.select(sqlx::query_as(BEGUN_FOR_SLOT).bind(id.0)).await
    }

    /// What was begun with a content.
    pub(crate) async fn of_content(&self, hash: ContentHash) -> Vec<Begun> {
        self.select(sqlx::query_as(BEGUN_WITH_CONTENT).bind(hash.0.to_vec()))
            .await
    }

    async fn select(&self, query: QueryAs<'_, Postgres, Begun, PgArguments>) -> Vec<Begun> {
        let rows = query.fetch_all(&mut self.postgres().await).await;
        rows.expect("Postgres answers")
    }

    /// Waits until so many bytes of a slot's upload have been written to the folder.
    pub(crate) async fn until_written(&self, id: AttachmentId, bytes: u64) -> u64 {
        eventually("bytes are written", async || {
            let begun = self.begun(id).await;
            let upload = begun.iter().find(|row| row.state == "uploading").ok_or(0u64)?;
            let path = self.folder.join("uploads").join(upload.blob_id.to_string());
            let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            if length >= bytes { Ok(length) } else { Err(length) }
        })
        .await
    }

    /// Waits until a request has opened the upload of a slot, which was as `before`, and holds its row: nobody can say
    /// of it that it is finished until what is returned is dropped.
    pub(crate) async fn hold(&self, id: AttachmentId, before: &[Begun]) -> PgConnection {
        let mut postgres = self.postgres().await;
        eventually("the upload is opened", async || {
            let begun = self.begun(id).await;
            let new = begun
                .iter()
                .any(|row| row.state == "uploading" && !before.contains(row));
            if new { Ok(()) } else { Err(begun) }
        })
        .await;
        sqlx::query("BEGIN")
            .execute(&mut postgres)
            .await
            .expect("Postgres answers");
        sqlx::query("SELECT FROM blobs WHERE attachment_id = $1 AND state = 'uploading' FOR UPDATE")
            .bind(id.0)
            .execute(&mut postgres)
            .await
            .expect("Postgres answers");
        postgres
    }

    /// Waits until the object of a slot's upload is whole in the folder.
    pub(crate) async fn until_whole(&self, id: AttachmentId) {
        let begun = self.begun(id).await;
        eventually("the object is whole", async || {
            let whole = begun.iter().any(|row| {
                let name = row.blob_id.to_string();
                let path = self.folder.join("blobs").join(&name[..2]).join(&name);
                row.state == "uploading" && path.exists()
            });
            if whole { Ok(()) } else { Err(&begun) }
        })
        .await;
    }

    /// Waits until a slot's upload is not going on any more, or until it is over.
    pub(crate) async fn until_given_up(&self, id: AttachmentId, is_over: impl Fn() -> bool) {
        let mut postgres = self.postgres().await;
        while !is_over() && uploading(&mut postgres, id).await.is_some() {}
    }

    /// Waits until nothing of a slot is left, in the store or of rows.
    pub(crate) async fn until_nothing_of(&self, id: AttachmentId, known: &[Uuid]) {
        eventually("nothing of the upload is left", async || {
            let rows = self.begun(id).await;
            let objects = self.stored().await;
            let left = objects.into_iter().find(|blob| known.contains(&blob.blob_id));
            if rows.is_empty() && left.is_none() {
                Ok(())
            } else {
                Err((rows, left))
            }
        })
        .await;
    }

    /// Waits until of all that was begun for these slots only what was stored is left.
    pub(crate) async fn until_only_stored(&self, slots: &[AttachmentId]) {
        for id in slots {
            eventually("tries that failed are removed", async || {
                let begun = self.begun(*id).await;
                if begun.len() == 1 && begun[0].state == "stored" {
                    Ok(())
                } else {
                    Err(begun)
                }
            })
            .await;
        }
        self.assert_right("when tries that failed are removed").await;
    }

    /// Waits until no upload is under way and nothing is doomed.
    pub(crate) async fn until_at_rest(&self) {
        eventually("whatever failed is removed", async || {
            let left = self.select(sqlx::query_as(BEGUN_AND_NOT_STORED)).await;
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}

/// The object that is uploaded into a slot.
async fn uploading(postgres: &mut PgConnection, id: AttachmentId) -> Option<Uuid> {
    sqlx::query_scalar("SELECT blob_id FROM blobs WHERE attachment_id = $1 AND state = 'uploading'")
        .bind(id.0)
        .fetch_optional(postgres)
        .await
        .expect("Postgres answers")
}
