//! How fast a folder takes a large file, beside what the hash and the disk allow. Prints figures and asserts nothing:
//! `cargo test --release -p tidings-blobs --test blobs speed -- --ignored --nocapture`.

use std::io::Write as _;
use std::time::Instant;

use sha2::{Digest as _, Sha256};
use tidings_blobs::{BlobStore, BlobStoreConfig};
use tidings_protocol::ContentHash;
use uuid::Uuid;

use crate::support::content;

const PIECE: usize = 64 * 1024;
const PIECES: usize = 16 * 1024;
const ROUNDS: usize = 3;

fn rate(began: Instant) -> f64 {
    (PIECE * PIECES) as f64 / 1e6 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures this machine; TIDINGS_SPEED_DIR says on which disk"]
async fn speed() {
    let dir = std::env::var("TIDINGS_SPEED_DIR").unwrap_or_else(|_| "/var/tmp".to_owned());
    let folder = tempfile::tempdir_in(dir).expect("the folder is writable");
    let config = BlobStoreConfig::folder(folder.path()).expect("the path is absolute");
    let store = BlobStore::open(&config).expect("a folder needs no more");
    store.claim(Uuid::new_v4()).await.expect("the folder is writable");
    let piece = content(PIECE);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let mut hasher = Sha256::new();
        for _ in 0..PIECES {
            hasher.update(&piece);
        }
        let expected = ContentHash(hasher.finalize().into());
        let hash = rate(began);

        let path = folder.path().join("plain");
        let large = piece.repeat(16);
        let began = Instant::now();
        let mut file = std::fs::File::create(&path).expect("the folder is writable");
        for _ in 0..PIECES / 16 {
            file.write_all(&large).expect("there is room");
        }
        file.sync_all().expect("there is room");
        let disk = rate(began);
        drop(file);
        std::fs::remove_file(path).expect("it is there");

        let began = Instant::now();
        let blob_id = Uuid::new_v4();
        let mut upload = store.begin(blob_id).await.expect("the id is new");
        for _ in 0..PIECES {
            upload.write(piece.clone()).await.expect("there is room");
            upload.due_checkpoint();
        }
        upload
            .finish(expected, (PIECE * PIECES) as u64)
            .await
            .expect("the bytes are right");
        let stored = rate(began);
        store.remove(blob_id, None).await.expect("it is there");
        let share = stored / hash.min(disk);
        println!(
            "hash {hash:.0} MB/s, disk {disk:.0} MB/s, store {stored:.0} MB/s: {share:.2} of the slower"
        );
    }
}
