//! What only a folder has to stand.

use std::path::Path;
use std::process::Command;

use tidings_blobs::{BlobError, BlobStore, BlobStoreConfig, FinishError, SignedDownload};
use uuid::Uuid;

use crate::support::{content, folder, hash, list, write};

#[tokio::test]
async fn a_folder_signs_no_urls_and_is_not_made_by_itself() {
    let (store, folder) = folder().await;
    let download = SignedDownload {
        content_type: "text/plain".to_owned(),
        disposition: "inline".to_owned(),
    };
    let url = store.signed_url(Uuid::new_v4(), &download, std::time::Duration::from_mins(1));
    assert_eq!(url.await.expect("it answers"), None);

    let config = BlobStoreConfig::folder(&folder.path().join("not mounted")).expect("the path is absolute");
    let away = BlobStore::open(&config).expect("nothing is touched");
    assert_eq!(away.id().await.expect("nothing is there"), None);
    assert!(matches!(
        away.begin(Uuid::new_v4()).await,
        Err(BlobError::Away(_))
    ));
    assert!(matches!(
        away.read(Uuid::new_v4(), 0..1).await,
        Err(BlobError::Away(_))
    ));
    assert!(!folder.path().join("not mounted").exists());
}

/// A file that is shorter than what was noted, as after a loss of power, is begun where it ends.
#[tokio::test]
async fn what_the_disk_has_lost_is_sent_again() {
    let (store, folder) = folder().await;
    let bytes = content(3_000_000);
    let blob_id = Uuid::new_v4();
    let mut upload = store.begin(blob_id).await.expect("the id is new");
    write(&mut upload, &bytes).await;
    let noted = upload.checkpoint().await.expect("the folder is writable");
    drop(upload);
    let path = folder.path().join("uploads").join(blob_id.to_string());
    let file = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("it is there");
    file.set_len(1_234_567).expect("it is ours");
    drop(file);
    let mut upload = store
        .resume(blob_id, Some(&noted.state))
        .await
        .expect("it is there");
    assert_eq!(upload.received(), 1_234_567);
    write(&mut upload, &bytes.slice(1_234_567..)).await;
    upload
        .finish(hash(&bytes), bytes.len() as u64)
        .await
        .expect("the bytes are right");
}

/// A row is there before the file, and whoever reads it may be faster.
#[tokio::test]
async fn an_upload_that_was_resumed_before_it_began_is_the_others() {
    let (store, _folder) = folder().await;
    let blob_id = Uuid::new_v4();
    let bytes = content(1_000);
    let mut other = store.resume(blob_id, None).await.expect("nobody else writes it");
    assert!(matches!(store.begin(blob_id).await, Err(BlobError::Busy)));
    write(&mut other, &bytes).await;
    other
        .finish(hash(&bytes), bytes.len() as u64)
        .await
        .expect("the bytes are right");
    assert!(list(&store).await.iter().all(|blob| blob.whole));
}

/// A filesystem in memory. Unmounted when it is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tidings-blobs"])
            .arg(folder.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_says_so_and_goes_on_when_there_is_room() {
    let Some(disk) = Disk::mount() else {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    };
    let config = BlobStoreConfig::folder(disk.path()).expect("the path is absolute");
    let store = BlobStore::open(&config).expect("a folder needs no more");
    store.claim(Uuid::new_v4()).await.expect("there is room");
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).expect("there is room");

    let bytes = content(12 << 20);
    let blob_id = Uuid::new_v4();
    let mut upload = store.begin(blob_id).await.expect("there is room");
    let mut rest = bytes.clone();
    let full = loop {
        if rest.is_empty() {
            match upload.finish(hash(&bytes), bytes.len() as u64).await {
                Err(FinishError::Blob(error)) => break error,
                other => panic!("there is no room: {other:?}"),
            }
        }
        let piece = rest.split_to(rest.len().min(100_000));
        if let Err(error) = upload.write(piece).await {
            drop(upload);
            break error;
        }
    };
    assert!(matches!(full, BlobError::Full(_)), "{full:?}");
    assert!(list(&store).await.iter().all(|blob| !blob.whole));

    std::fs::remove_file(ballast).expect("it is there");
    let mut upload = store.resume(blob_id, None).await.expect("it is there");
    let received = upload.received() as usize;
    assert!(
        received > 4 << 20,
        "what there was room for has been kept: {received}"
    );
    write(&mut upload, &bytes.slice(received..)).await;
    upload
        .finish(hash(&bytes), bytes.len() as u64)
        .await
        .expect("there is room now");
}
