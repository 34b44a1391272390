//! What these tests look at beside the answers.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sqlx::{Connection as _, PgConnection, Row as _};
use tidings_blobs::{BlobStore, BlobStoreConfig, StoredBlob};
use tidings_protocol::AttachmentId;
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

    /// Rows of `blobs` that were begun for a slot, with their states.
    pub(crate) async fn begun(&self, id: AttachmentId) -> Vec<(Uuid, String)> {
        let mut postgres = self.postgres().await;
        let rows = sqlx::query("SELECT blob_id, state FROM blobs WHERE attachment_id = $1")
            .bind(id.0)
            .fetch_all(&mut postgres)
            .await
            .expect("Postgres answers");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Rows of `blobs` of a content, with their states.
    pub(crate) async fn of_content(&self, hash: &[u8]) -> Vec<(Uuid, String)> {
        let mut postgres = self.postgres().await;
        let rows = sqlx::query("SELECT blob_id, state FROM blobs WHERE hash = $1")
            .bind(hash.to_vec())
            .fetch_all(&mut postgres)
            .await
            .expect("Postgres answers");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Waits until so many bytes of a slot's upload have been written to the folder.
    pub(crate) async fn until_written(&self, id: AttachmentId, bytes: u64) -> u64 {
        eventually("bytes are written", async || {
            let begun = self.begun(id).await;
            let (blob_id, _) = begun.iter().find(|(_, state)| state == "uploading").ok_or(0u64)?;
            let path = self.folder.join("uploads").join(blob_id.to_string());
            let length = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
            if length >= bytes { Ok(length) } else { Err(length) }
        })
        .await
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

    /// Waits until no upload is under way and nothing is doomed.
    pub(crate) async fn until_at_rest(&self) {
        eventually("whatever failed is removed", async || {
            let mut postgres = self.postgres().await;
            let left = sqlx::query("SELECT blob_id, state FROM blobs WHERE state <> 'stored'")
                .fetch_all(&mut postgres)
                .await
                .expect("Postgres answers");
            let left: Vec<(Uuid, String)> = left.iter().map(|row| (row.get(0), row.get(1))).collect();
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }
}
