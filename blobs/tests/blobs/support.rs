//! Stores to test, bytes to put there, and how they are put.

use bytes::Bytes;
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tidings_blobs::{BlobStore, BlobStoreConfig, S3Keys, StoredBlob, Upload};
use tidings_protocol::ContentHash;
use tidings_stack::Seaweed;
use uuid::Uuid;

/// As an HTTP server hands them over.
const PIECE_BYTES: usize = 100_000;

/// A claimed folder.
pub(crate) async fn folder() -> (BlobStore, TempDir) {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let config = BlobStoreConfig::folder(folder.path()).expect("the path is absolute");
    let store = BlobStore::open(&config).expect("a folder needs no more");
    store.claim(Uuid::new_v4()).await.expect("the folder is writable");
    (store, folder)
}

/// The settings of a bucket.
pub(crate) fn s3_config(seaweed: &Seaweed) -> BlobStoreConfig {
    let mut config = BlobStoreConfig::folder(std::path::Path::new("/")).expect("the path is absolute");
    let url = format!("s3://{}/a/prefix", seaweed.bucket());
    config.blob_store = url.parse().expect("it is a URL");
    config.blob_store_endpoint = Some(seaweed.endpoint().parse().expect("it is a URL"));
    config.blob_spool_dir = "/var/tmp".into();
    config.blob_store_keys = Some(S3Keys {
        access_key_id: seaweed.access_key_id().to_owned(),
        secret_access_key: seaweed.secret_access_key().to_owned(),
    });
    config
}

/// Another process' view of a bucket.
pub(crate) fn s3(seaweed: &Seaweed) -> BlobStore {
    BlobStore::open(&s3_config(seaweed)).expect("the settings are complete")
}

/// Bytes that repeat nowhere near.
pub(crate) fn content(size: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ size as u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

pub(crate) fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(bytes).into())
}

/// Writes bytes in pieces.
pub(crate) async fn write(upload: &mut Upload, bytes: &Bytes) {
    let mut bytes = bytes.clone();
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        upload.write(piece).await.expect("the store takes it");
    }
}

/// Stores bytes.
pub(crate) async fn store(store: &BlobStore, bytes: &Bytes) -> Uuid {
    let blob_id = Uuid::new_v4();
    let mut upload = store.begin(blob_id).await.expect("the id is new");
    write(&mut upload, bytes).await;
    upload
        .finish(hash(bytes), bytes.len() as u64)
        .await
        .expect("the bytes are right");
    blob_id
}

pub(crate) async fn read(store: &BlobStore, blob_id: Uuid, range: std::ops::Range<u64>) -> Vec<u8> {
    let stream = store.read(blob_id, range).await.expect("the blob is there");
    let pieces: Vec<Bytes> = stream.try_collect().await.expect("the store answers");
    pieces.concat()
}

pub(crate) async fn list(store: &BlobStore) -> Vec<StoredBlob> {
    store.list().try_collect().await.expect("the store answers")
}

/// What a store has of one blob: how often it is whole, and how many traces it has.
pub(crate) async fn traces(store: &BlobStore, blob_id: Uuid) -> (usize, usize) {
    let mut all = list(store).await;
    all.retain(|blob| blob.blob_id == blob_id);
    let whole = all.iter().filter(|blob| blob.whole).count();
    (whole, all.len() - whole)
}
