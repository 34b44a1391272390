//! A process that is killed at any moment of an upload leaves nothing that looks whole and is not, and nothing that
//! cannot be gone on with. This program starts itself as the process that uploads, and kills it again and again.
//! `TIDINGS_SEED` repeats a run.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::TryStreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use tidings_blobs::{BlobStore, BlobStoreConfig, S3Keys};
use tidings_protocol::ContentHash;
use tidings_stack::Seaweed;
use uuid::Uuid;

/// Makes this program the one that uploads: `<blob id> <size> <folder for what it notes>`.
const CHILD: &str = "TIDINGS_BLOBS_UPLOAD";
/// How often a process is killed in one upload before one may end.
const KILLS: u32 = 6;
/// A few parts of S3, and what a test build hashes in a second or two.
const SIZE_MAX: usize = 20_000_000;
/// Uploads to a folder, and to S3.
const UPLOADS: [u32; 2] = [12, 3];

#[tokio::main]
async fn main() {
    if let Ok(order) = std::env::var(CHILD) {
        return upload(&order).await;
    }
    let seed = std::env::var("TIDINGS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    });
    println!("TIDINGS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);

    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let config = BlobStoreConfig::folder(&folder.path().join("store")).expect("the path is absolute");
    round(&mut rng, &config, UPLOADS[0], 30).await;

    let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let mut config = config;
    config.blob_store = "s3://tidings".parse().expect("it is a URL");
    config.blob_store_endpoint = Some(seaweed.endpoint().parse().expect("it is a URL"));
    config.blob_store_keys = Some(S3Keys {
        access_key_id: seaweed.access_key_id().to_owned(),
        secret_access_key: seaweed.secret_access_key().to_owned(),
    });
    round(&mut rng, &config, UPLOADS[1], 500).await;
}

/// Some uploads, with kills within so many milliseconds after the start of a process.
async fn round(rng: &mut StdRng, config: &BlobStoreConfig, uploads: u32, millis_max: u64) {
    let store = BlobStore::open(config).expect("the settings are complete");
    store.claim(Uuid::new_v4()).await.expect("it answers");
    let (mut kills, mut whole_early, mut resumed) = (0, 0, 0);
    for _ in 0..uploads {
        let notes = tempfile::tempdir().expect("the temporary folder is writable");
        let blob_id = Uuid::new_v4();
        let size = rng.random_range(0..SIZE_MAX);
        let expected = hash(&content(size));
        for _ in 0..rng.random_range(0..=KILLS) {
            let mut child = start(config, blob_id, size, notes.path());
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..millis_max))).await;
            // It may have ended.
            let _ = child.kill();
            child.wait().expect("the child is ours");
            kills += 1;
            if is_whole(&store, blob_id).await {
                // It was killed between the end of its work and its own.
                whole_early += 1;
                assert!(
                    stored(&store, blob_id, size).await == expected,
                    "{blob_id} is whole and wrong"
                );
            }
        }
        resumed += u64::from(notes.path().join("state").exists());
        let ended = start(config, blob_id, size, notes.path()).wait();
        assert!(
            ended.expect("the child is ours").success(),
            "{blob_id} of {size} ends well"
        );
        assert!(is_whole(&store, blob_id).await, "{blob_id} is whole");
        assert!(
            stored(&store, blob_id, size).await == expected,
            "{blob_id} is right"
        );
        store.remove(blob_id, None).await.expect("it answers");
        let left: Vec<_> = store.list().try_collect().await.expect("it answers");
        assert_eq!(left, [], "nothing is left of {blob_id}");
    }
    println!(
        "{}: {uploads} uploads, {kills} kills, {whole_early} after the end, {resumed} with something noted: ok",
        config.blob_store
    );
}

fn start(config: &BlobStoreConfig, blob_id: Uuid, size: usize, notes: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the test has a path"));
    command
        .env(CHILD, format!("{blob_id} {size} {}", notes.display()))
        .env("STORE", config.blob_store.as_str());
    if let (Some(endpoint), Some(keys)) = (&config.blob_store_endpoint, &config.blob_store_keys) {
        command
            .env("ENDPOINT", endpoint.as_str())
            .env("AWS_ACCESS_KEY_ID", &keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &keys.secret_access_key);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the test runs");
    // It has made its bytes, which takes longer than to store them.
    let mut ready = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("it is piped"));
    said.read_line(&mut ready).expect("it is text");
    assert_eq!(ready, "ready\n");
    child
}

async fn is_whole(store: &BlobStore, blob_id: Uuid) -> bool {
    let all: Vec<_> = store.list().try_collect().await.expect("it answers");
    assert!(all.iter().all(|blob| blob.blob_id == blob_id), "{all:?}");
    all.iter().any(|blob| blob.whole)
}

async fn stored(store: &BlobStore, blob_id: Uuid, size: usize) -> ContentHash {
    let stream = store.read(blob_id, 0..size as u64).await.expect("it is whole");
    let pieces: Vec<Bytes> = stream.try_collect().await.expect("it answers");
    hash(&pieces.concat())
}

/// The child: goes on from what it finds, notes what is due, and finishes.
async fn upload(order: &str) {
    let [blob_id, size, notes] = order.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("an order has three words");
    };
    let size: usize = size.parse().expect("a size");
    let blob_id: Uuid = blob_id.parse().expect("an id");
    let state = PathBuf::from(notes).join("state");
    let mut config = BlobStoreConfig::folder(Path::new("/")).expect("the path is absolute");
    let url = |name| std::env::var(name).ok().and_then(|url| url.parse().ok());
    config.blob_store = url("STORE").expect("a store is given");
    config.blob_store_endpoint = url("ENDPOINT");
    let store = BlobStore::open(&config).expect("the settings are complete");
    let bytes = content(size);
    let expected = hash(&bytes);
    println!("ready");
    let noted = std::fs::read(&state)
        .ok()
        .map(|text| serde_json::from_slice(&text).expect("it was renamed whole"));
    let mut upload = store
        .resume(blob_id, noted.as_ref())
        .await
        .expect("nobody else writes it");
    let note = |checkpoint: tidings_blobs::Checkpoint| {
        let new = state.with_extension("new");
        std::fs::write(&new, checkpoint.state.to_string()).expect("the folder is writable");
        std::fs::rename(&new, &state).expect("the folder is writable");
    };
    let mut rest = bytes.slice(upload.received() as usize..);
    let mut pieces = 0;
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(60_000));
        upload.write(piece).await.expect("the store takes it");
        if let Some(due) = upload.due_checkpoint() {
            note(due);
        }
        pieces += 1;
        if pieces % 40 == 0 {
            note(upload.checkpoint().await.expect("it answers"));
        }
    }
    upload
        .finish(expected, size as u64)
        .await
        .expect("the bytes are right");
}

/// Bytes that repeat nowhere near.
fn content(size: usize) -> Bytes {
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

fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash(Sha256::digest(bytes).into())
}
