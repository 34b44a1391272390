//! An S3 server that is killed under media and comes again, and a media that is killed over one.

use std::time::Duration;

use rand::RngExt as _;
use tidings_blobs::{BlobStoreConfig, S3Keys};
use tidings_protocol::AttachmentId;
use tidings_stack::Seaweed;
use tidings_tests::{System, SystemOptions, eventually};

use crate::support::{Books, seeded};
use crate::uploader::{Answer, File, Uploader, Way, fed, feed};

/// For an answer while the store refuses connections: a few tries with a second in between.
const SOON: Duration = Duration::from_secs(15);
/// More than a part of S3, so that some of it is there and some of it lies with media.
const LARGE: usize = 12_000_000;

/// A system whose attachments lie in a bucket.
pub(crate) fn over(seaweed: &Seaweed) -> (BlobStoreConfig, SystemOptions) {
    let mut config = BlobStoreConfig::folder(&std::env::temp_dir()).expect("the path is absolute");
    config.blob_store = format!("s3://{}/attachments", seaweed.bucket())
        .parse()
        .expect("it is a URL");
    config.blob_store_endpoint = Some(seaweed.endpoint().parse().expect("it is a URL"));
    config.blob_store_keys = Some(S3Keys {
        access_key_id: seaweed.access_key_id().to_owned(),
        secret_access_key: seaweed.secret_access_key().to_owned(),
    });
    let options = SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        settings: vec![
            ("TIDINGS_BLOB_STORE", config.blob_store.to_string()),
            ("TIDINGS_BLOB_STORE_ENDPOINT", seaweed.endpoint()),
            ("AWS_ACCESS_KEY_ID", seaweed.access_key_id().to_owned()),
            ("AWS_SECRET_ACCESS_KEY", seaweed.secret_access_key().to_owned()),
        ],
        ..SystemOptions::default()
    };
    (config, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_is_killed_and_comes_again() {
    let mut seaweed = Seaweed::start_temp().await.expect("SeaweedFS starts");
    let (config, options) = over(&seaweed);
    let system = System::start(&options).await;
    let books = Books::with(&system, config);
    let uploader = Uploader::fresh(&system, "s3");
    let (mut rng, _) = seeded("away");
    let [small, put, resumed, posted] =
        [200_000, LARGE, LARGE, 300_000].map(|size| File::random(&mut rng, size));
    let [small_id, put_id, resumed_id] = [
        uploader.slot(&small, "small").await,
        uploader.slot(&put, "put").await,
        uploader.slot(&resumed, "resumed").await,
    ];
    let answer = uploader
        .upload(Way::Put, small_id, &small)
        .await
        .expect("media answers");
    assert_eq!(answer.status, 201, "{answer:?}");
    // A part of one has arrived and is noted, of the other it is on its way or has arrived.
    let uploads = [(Way::Tus, resumed_id, &resumed), (Way::Put, put_id, &put)];
    let mut requests = Vec::new();
    for (way, id, file) in uploads {
        let (feeder, request) = uploader.begin(way, id, file, 10_000_000).await;
        requests.push((way, id, file, feeder, request));
    }
    until_a_part_has_arrived(&books, resumed_id).await;

    seaweed.kill().await;
    for (way, id, file, mut feeder, request) in requests {
        feed(&mut feeder, file.bytes.slice(10_000_000..)).await;
        drop(feeder);
        let answer = request.await.expect("no panic").expect("media answers");
        away(&format!("{way:?} under way"), &answer);
        assert!(!is_read(&uploader, id).await, "{way:?}");
    }
    let (get, post, put_again, patch) = tokio::join!(
        uploader.get(small_id),
        uploader.upload(Way::Post, small_id, &posted),
        uploader.upload(Way::Put, put_id, &put),
        uploader.send(Way::Tus, resumed_id, &resumed, 0, resumed.bytes.clone())
    );
    for (what, answer) in [("GET", get), ("POST", post), ("PUT", put_again), ("PATCH", patch)] {
        away(what, &answer.expect("media answers"));
    }

    seaweed.start().await.expect("SeaweedFS starts again");
    for (way, id, file) in uploads {
        let answer = again(&uploader, way, id, file).await;
        assert!(answer.is_stored(file), "{way:?}: {answer:?}");
        assert!(uploader.is_ready(id, file, "again").await, "{way:?}");
    }
    media_is_killed(&system, &books, &uploader).await;
    let answer = again(&uploader, Way::Post, small_id, &posted).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(uploader.is_ready(small_id, &small, "again").await);
    books.until_at_rest().await;
    books.assert_right("again").await;
    let stored = books.stored().await;
    assert!(
        stored.len() == 6 && stored.iter().all(|blob| blob.whole),
        "six files, and nothing else: {stored:?}"
    );
}

/// `kill -9` of media while a part of an upload is with S3: what has been noted is gone on with.
async fn media_is_killed(system: &System, books: &Books, uploader: &Uploader) {
    let (mut rng, seed) = seeded("killed over S3");
    for way in [Way::Put, Way::Tus] {
        let file = File::random(&mut rng, LARGE);
        let id = uploader.slot(&file, "killed").await;
        let (mut feeder, body) = fed();
        let request = tokio::spawn({
            let (uploader, file) = (uploader.clone(), file.clone());
            async move { uploader.send(way, id, &file, 0, body).await }
        });
        let sent = rng.random_range(9_000_000..LARGE);
        feed(&mut feeder, file.bytes.slice(..sent)).await;
        until_a_part_has_arrived(books, id).await;
        system.kill_and_wait("media-1").await;
        drop(feeder);
        let note = format!("TIDINGS_SEED={seed}, {way:?}, {sent} bytes sent");
        let answer = request.await.expect("no panic");
        assert!(answer.is_err(), "{note}: {answer:?}");
        books.assert_right(&note).await;
        assert!(!uploader.is_ready(id, &file, &note).await, "{note}");
        let answer = again(uploader, way, id, &file).await;
        assert!(answer.is_stored(&file), "{note}: {answer:?}");
        assert!(uploader.is_ready(id, &file, &note).await, "{note}");
    }
}

async fn until_a_part_has_arrived(books: &Books, id: AttachmentId) {
    eventually("a part has arrived", async || {
        let begun = books.begun(id).await;
        let stored = books.stored().await;
        let arrived = |id| stored.iter().any(|blob| blob.blob_id == id);
        if begun.iter().any(|row| arrived(row.blob_id)) {
            Ok(())
        } else {
            Err(begun)
        }
    })
    .await;
}

/// That the store is away was said soon.
fn away(what: &str, answer: &Answer) {
    eprintln!(
        "away: {what} is answered {} after {:?}",
        answer.status, answer.took
    );
    answer.assert_unavailable(503, what);
    assert!(answer.took < SOON, "{what}: {answer:?}");
}

/// Whether anything is read: there is no store to read from.
async fn is_read(uploader: &Uploader, id: AttachmentId) -> bool {
    let answer = uploader.get(id).await.expect("media answers");
    answer.is_success()
}

/// An upload, as soon as the store answers.
async fn again(uploader: &Uploader, way: Way, id: AttachmentId, file: &File) -> Answer {
    eventually("an upload works again", async || {
        let answer = uploader.upload(way, id, file).await?;
        if answer.status == 503 {
            Err(format!("{answer:?}"))
        } else {
            Ok(answer)
        }
    })
    .await
}
