//! What a folder and a bucket have in common.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tidings_blobs::{BlobError, BlobStore, FinishError};
use tidings_stack::Seaweed;
use uuid::Uuid;

use crate::support::{content, folder, hash, list, read, s3, store, traces, write};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_folder_keeps_its_word() {
    let (one, folder) = folder().await;
    let config = tidings_blobs::BlobStoreConfig::folder(folder.path()).expect("the path is absolute");
    let other = BlobStore::open(&config).expect("a folder needs no more");
    keeps_its_word(&one, &other).await;
}

#[tokio::test]
async fn s3_keeps_its_word() {
    let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let one = s3(&seaweed);
    assert_eq!(one.id().await.expect("it answers"), None);
    one.claim(Uuid::new_v4()).await.expect("it answers");
    keeps_its_word(&one, &s3(&seaweed)).await;
}

/// `other` is the same store as another process sees it.
async fn keeps_its_word(one: &BlobStore, other: &BlobStore) {
    the_first_claim_holds(one, other).await;
    what_was_stored_is_read(one, other).await;
    a_mismatch_stores_nothing(one).await;
    an_upload_is_gone_on_with(one, other).await;
    an_upload_that_nothing_was_noted_of_ends_well(one, other).await;
    a_finished_upload_is_finished_again(one, other).await;
    an_upload_has_one_writer(one).await;
    a_removed_upload_is_never_whole(one, other).await;
    assert_eq!(list(one).await, [], "every test removes what it made");
}

async fn the_first_claim_holds(one: &BlobStore, other: &BlobStore) {
    let id = one.id().await.expect("it answers").expect("it was claimed");
    assert_eq!(other.claim(Uuid::new_v4()).await.expect("it answers"), id);
    assert_eq!(other.id().await.expect("it answers"), Some(id));
}

async fn what_was_stored_is_read(one: &BlobStore, other: &BlobStore) {
    for size in [0, 1, 300_000, 8 * MIB, 8 * MIB + 1, 21 * MIB + 5] {
        let bytes = content(size);
        let began = SystemTime::now();
        let blob_id = store(one, &bytes).await;
        let (size, half) = (size as u64, size as u64 / 2);
        assert_eq!(traces(other, blob_id).await, (1, 0), "{size}");
        for range in [0..size, 0..half, half..size, half..half] {
            let expected = &bytes[range.start as usize..range.end as usize];
            assert!(
                read(other, blob_id, range.clone()).await == expected,
                "{size} {range:?}"
            );
        }
        let listed = list(one).await[0];
        let age = listed.modified.duration_since(began - Duration::from_secs(2));
        assert!(age.is_ok_and(|age| age < Duration::from_mins(2)), "{listed:?}");
        other.remove(blob_id, None).await.expect("it answers");
        let gone = one.read(blob_id, 0..size.min(1)).await;
        assert!(matches!(gone, Err(BlobError::Missing)));
        assert_eq!(traces(one, blob_id).await, (0, 0));
        one.remove(blob_id, None).await.expect("that it is gone is fine");
    }
}

async fn a_mismatch_stores_nothing(one: &BlobStore) {
    for size in [5, 9 * MIB] {
        let bytes = content(size);
        for (expected, expected_size) in [(hash(b"other"), size), (hash(&bytes), size + 1)] {
            let blob_id = Uuid::new_v4();
            let mut upload = one.begin(blob_id).await.expect("the id is new");
            write(&mut upload, &bytes).await;
            let finished = upload.finish(expected, expected_size as u64).await;
            assert!(
                matches!(finished, Err(FinishError::Mismatch { hash: found, .. }) if found == hash(&bytes))
            );
            assert_eq!(traces(one, blob_id).await, (0, 0));
        }
    }
}

/// In four requests, each by another process, each beginning where the last checkpoint says.
async fn an_upload_is_gone_on_with(one: &BlobStore, other: &BlobStore) {
    let bytes = content(19 * MIB + 77);
    let blob_id = Uuid::new_v4();
    let mut upload = one.begin(blob_id).await.expect("the id is new");
    let mut noted = None;
    let mut from = 0;
    for (to, store) in [
        (3 * MIB + 1, other),
        (3 * MIB + 9, one),
        (9 * MIB, other),
        (16 * MIB, one),
    ] {
        write(&mut upload, &bytes.slice(from..to)).await;
        let checkpoint = upload.checkpoint().await.expect("it answers");
        assert_eq!(checkpoint.received, to as u64);
        drop(upload);
        assert_eq!(traces(one, blob_id).await.0, 0);
        upload = store
            .resume(blob_id, Some(&checkpoint.state))
            .await
            .expect("it answers");
        assert_eq!(upload.received(), to as u64);
        (from, noted) = (to, Some(checkpoint.state));
    }
    assert!(traces(one, blob_id).await.1 <= 4, "old tails are removed");
    write(&mut upload, &bytes.slice(from..)).await;
    upload
        .finish(hash(&bytes), bytes.len() as u64)
        .await
        .expect("the bytes are right");
    assert_eq!(traces(one, blob_id).await, (1, 0));
    assert!(read(one, blob_id, 0..bytes.len() as u64).await == bytes);
    one.remove(blob_id, noted.as_ref()).await.expect("it answers");
}

/// A request is dropped, and with it the upload; the next begins where the store says.
async fn an_upload_that_nothing_was_noted_of_ends_well(one: &BlobStore, other: &BlobStore) {
    let bytes = content(18 * MIB);
    let blob_id = Uuid::new_v4();
    let mut upload = one.begin(blob_id).await.expect("the id is new");
    write(&mut upload, &bytes.slice(..17 * MIB)).await;
    let noted = upload.due_checkpoint().map(|due| due.state);
    drop(upload);
    assert_eq!(traces(one, blob_id).await.0, 0);
    let mut upload = other.resume(blob_id, noted.as_ref()).await.expect("it answers");
    let received = upload.received() as usize;
    assert!(received <= 17 * MIB, "{received}");
    write(&mut upload, &bytes.slice(received..)).await;
    upload
        .finish(hash(&bytes), bytes.len() as u64)
        .await
        .expect("the bytes are right");
    assert_eq!(traces(one, blob_id).await, (1, 0));
    one.remove(blob_id, None).await.expect("it answers");
}

/// Whoever finished it was killed before it could tell.
async fn a_finished_upload_is_finished_again(one: &BlobStore, other: &BlobStore) {
    let bytes = content(9 * MIB);
    let blob_id = store(one, &bytes).await;
    let size = bytes.len() as u64;
    let mut upload = other.resume(blob_id, None).await.expect("it answers");
    assert_eq!(upload.received(), size);
    upload
        .write(Bytes::from_static(b"x"))
        .await
        .expect_err("it is whole");
    drop(upload);
    let upload = other.resume(blob_id, None).await.expect("it answers");
    upload
        .finish(hash(&bytes), size)
        .await
        .expect("the bytes are right");
    assert_eq!(traces(one, blob_id).await, (1, 0));
    one.remove(blob_id, None).await.expect("it answers");
}

async fn an_upload_has_one_writer(one: &BlobStore) {
    let blob_id = Uuid::new_v4();
    let mut upload = one.begin(blob_id).await.expect("the id is new");
    write(&mut upload, &content(10)).await;
    let second = one.resume(blob_id, None).await;
    assert!(matches!(second, Err(BlobError::Busy)));
    drop(upload);
    let again = one.resume(blob_id, None).await.expect("nobody writes it");
    drop(again);
    one.remove(blob_id, None).await.expect("it answers");
}

async fn a_removed_upload_is_never_whole(one: &BlobStore, other: &BlobStore) {
    let bytes = content(9 * MIB);
    let blob_id = Uuid::new_v4();
    let mut upload = one.begin(blob_id).await.expect("the id is new");
    write(&mut upload, &bytes).await;
    upload.checkpoint().await.expect("it answers");
    other.remove(blob_id, None).await.expect("it answers");
    let finished = upload.finish(hash(&bytes), bytes.len() as u64).await;
    assert!(
        matches!(finished, Err(FinishError::Blob(BlobError::Missing))),
        "{finished:?}"
    );
    one.remove(blob_id, None).await.expect("it answers");
    assert_eq!(traces(one, blob_id).await, (0, 0));
}
