//! What only a bucket has to stand.

use std::time::{Duration, Instant};

use tidings_blobs::{BlobError, BlobStore, SignedDownload};
use tidings_stack::Seaweed;
use uuid::Uuid;

use crate::support::{content, hash, list, s3, s3_config, store, traces, write};

const MIB: usize = 1024 * 1024;
/// Above the memory that is held before, as the operating system counts it.
const MEMORY_MAX_KB: u64 = 4 * 1024;

#[tokio::test]
async fn anybody_can_fetch_by_a_signed_url_until_it_ends() {
    let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let one = s3(&seaweed);
    let bytes = content(300_000);
    let blob_id = store(&one, &bytes).await;
    let download = SignedDownload {
        content_type: "text/x-test".to_owned(),
        disposition: "attachment; filename*=UTF-8''a%20%C3%A4.txt".to_owned(),
    };
    let url = |life| one.signed_url(blob_id, &download, life);
    let signed = url(Duration::from_mins(1))
        .await
        .expect("it answers")
        .expect("S3 signs");
    let answer = reqwest::get(signed.clone()).await.expect("it answers");
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(header("content-type"), download.content_type);
    assert_eq!(header("content-disposition"), download.disposition);
    assert!(header("cache-control").contains("immutable"));
    assert!(answer.bytes().await.expect("it answers") == bytes);

    let mut forged = signed.clone();
    forged.set_path(
        &signed
            .path()
            .replace(&blob_id.to_string(), &Uuid::nil().to_string()),
    );
    assert_eq!(reqwest::get(forged).await.expect("it answers").status(), 403);

    let short = url(Duration::from_secs(1))
        .await
        .expect("it answers")
        .expect("S3 signs");
    let began = Instant::now();
    while reqwest::get(short.clone()).await.expect("it answers").status() != 403 {
        assert!(began.elapsed() < Duration::from_secs(10), "it ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_comes_back() {
    let mut seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let one = s3(&seaweed);
    let bytes = content(20 * MIB);
    let blob_id = Uuid::new_v4();
    let mut upload = one.begin(blob_id).await.expect("the id is new");
    write(&mut upload, &bytes.slice(..10 * MIB)).await;
    let noted = upload.checkpoint().await.expect("it answers");
    seaweed.kill().await;

    let began = Instant::now();
    let away = upload.finish(hash(&bytes), bytes.len() as u64).await;
    assert!(away.is_err(), "{away:?}");
    for error in [
        one.resume(blob_id, Some(&noted.state)).await.err(),
        one.read(blob_id, 0..1).await.err(),
        one.id().await.err(),
        one.remove(blob_id, Some(&noted.state)).await.err(),
    ] {
        assert!(matches!(error, Some(BlobError::Away(_))), "{error:?}");
        let text = error.expect("it was looked at").to_string();
        assert!(!text.contains("Signature"), "{text}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");

    seaweed.start().await.expect("it starts again");
    let began = Instant::now();
    let mut upload = loop {
        match one.resume(blob_id, Some(&noted.state)).await {
            Ok(upload) => break upload,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let received = upload.received() as usize;
    write(&mut upload, &bytes.slice(received..)).await;
    upload
        .finish(hash(&bytes), bytes.len() as u64)
        .await
        .expect("the bytes are right");
    assert_eq!(traces(&one, blob_id).await, (1, 0));
}

#[tokio::test]
async fn wrong_keys_are_a_defect() {
    let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let mut config = s3_config(&seaweed);
    if let Some(keys) = &mut config.blob_store_keys {
        keys.secret_access_key.push('x');
    }
    let stranger = BlobStore::open(&config).expect("the settings are complete");
    assert!(matches!(stranger.id().await, Err(BlobError::Defect(_))));
    let mut upload = stranger.begin(Uuid::new_v4()).await.expect("nothing is sent yet");
    write(&mut upload, &content(5)).await;
    let refused = upload.checkpoint().await.expect_err("the key is wrong");
    assert!(matches!(refused, BlobError::Defect(_)), "{refused}");
}

/// Many tiny requests must not fill the store with the ends they leave.
#[tokio::test]
async fn tails_do_not_pile_up() {
    let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let one = s3(&seaweed);
    let blob_id = Uuid::new_v4();
    let bytes = content(30_000);
    let mut noted = None;
    for piece in 0..30 {
        let mut upload = one.resume(blob_id, noted.as_ref()).await.expect("it answers");
        write(&mut upload, &bytes.slice(piece * 1000..(piece + 1) * 1000)).await;
        noted = Some(upload.checkpoint().await.expect("it answers").state);
        assert!(list(&one).await.len() <= 2);
    }
    let upload = one.resume(blob_id, noted.as_ref()).await.expect("it answers");
    upload
        .finish(hash(&bytes), 30_000)
        .await
        .expect("the bytes are right");
    assert_eq!(traces(&one, blob_id).await, (1, 0));
}

fn memory_kb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.expect("the field is there")
}

/// By the high-water mark of resident memory, which is reset before. The process is a new one, since other tests
/// would count.
#[test]
fn an_upload_of_200_mb_needs_no_memory() {
    const CHILD: &str = "TIDINGS_BLOBS_MEMORY";
    if std::env::var_os(CHILD).is_none() {
        let test = std::env::current_exe().expect("the test has a path");
        let ended = std::process::Command::new(test)
            .args([
                "--exact",
                "s3::an_upload_of_200_mb_needs_no_memory",
                "--nocapture",
            ])
            .env(CHILD, "1")
            .status()
            .expect("the test runs");
        assert!(ended.success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("threads can be made");
    runtime.block_on(async {
        let seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
        let one = s3(&seaweed);
        // Connections, threads and what they allocate once belong to the process.
        store(&one, &content(9 * MIB)).await;
        let piece = content(MIB / 4);
        let expected = hash(&piece.repeat(800));
        std::fs::write("/proc/self/clear_refs", "5").expect("this is Linux");
        let before = memory_kb("VmRSS:");
        let mut upload = one.begin(Uuid::new_v4()).await.expect("the id is new");
        for _ in 0..800 {
            upload.write(piece.clone()).await.expect("it answers");
            upload.due_checkpoint();
        }
        upload
            .finish(expected, 200 * MIB as u64)
            .await
            .expect("the bytes are right");
        let grown = memory_kb("VmHWM:").saturating_sub(before);
        println!("200 MiB to S3: resident memory grew by {grown} kB at most");
        assert!(grown <= MEMORY_MAX_KB, "{grown} kB");
    });
}
