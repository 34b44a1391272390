//! A store without room: uploads are told so, nothing is there by halves, what is there can be read, and with room
//! everything is as before.

use tidings_tests::faults::Disk;
use tidings_tests::{System, SystemOptions};

use crate::support::{Books, seeded};
use crate::uploader::{Answer, File, Uploader, Way, feed};

/// Enough for everything here, and filled in a moment.
const DISK_MIB: u32 = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_says_so_and_goes_on() {
    let folder = tempfile::TempDir::with_prefix("tidings-full-").expect("a folder for the test");
    let disk = match Disk::mount(folder.path(), DISK_MIB) {
        Ok(disk) => disk,
        Err(error) => {
            eprintln!("SKIPPED: a disk of one's own is only for root: {error:#}");
            return;
        }
    };
    let options = SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        settings: vec![(
            "TIDINGS_BLOB_STORE",
            format!("file://{}", folder.path().display()),
        )],
        ..SystemOptions::default()
    };
    let system = System::start(&options).await;
    let books = Books::at(&system, folder.path());
    let uploader = Uploader::fresh(&system, "full");
    let (mut rng, _) = seeded("full");
    let [before, put, posted, resumed] =
        [3_000_000, 6_000_000, 200_000, 6_000_000].map(|size| File::random(&mut rng, size));
    let [before_id, put_id, resumed_id] = [
        uploader.slot(&before, "before").await,
        uploader.slot(&put, "put").await,
        uploader.slot(&resumed, "resumed").await,
    ];
    let answer = uploader
        .upload(Way::Put, before_id, &before)
        .await
        .expect("media answers");
    assert_eq!(answer.status, 201, "{answer:?}");

    // It fills in the middle of both.
    let uploads = [(Way::Tus, resumed_id, &resumed), (Way::Put, put_id, &put)];
    let mut requests = Vec::new();
    for (way, id, file) in uploads {
        let (feeder, request) = uploader.begin(way, id, file, 2_500_000).await;
        books.until_written(id, 1).await;
        requests.push((way, id, file, feeder, request));
    }
    disk.fill().expect("it can be filled");
    for (way, id, file, mut feeder, request) in requests {
        feed(&mut feeder, file.bytes.slice(2_500_000..)).await;
        drop(feeder);
        let answer: Result<Answer, String> = request.await.expect("no panic");
        let answer = answer.expect("media answers");
        answer.assert_unavailable(507, &format!("{way:?}"));
        assert!(!uploader.is_ready(id, file, "full").await, "{way:?}");
    }
    // What the PUT had is given back.
    disk.fill().expect("it can be filled");
    let answer = uploader
        .upload(Way::Post, put_id, &posted)
        .await
        .expect("media answers");
    answer.assert_unavailable(507, "POST");
    let answer = uploader
        .upload(Way::Tus, resumed_id, &resumed)
        .await
        .expect("media answers");
    answer.assert_unavailable(507, "PATCH");
    assert!(
        uploader.is_ready(before_id, &before, "full").await,
        "what was there is read"
    );
    books.assert_right("while it is full").await;

    disk.make_room().expect("the ballast goes");
    let standing = uploader.standing(resumed_id).await.expect("media answers");
    let stands = standing.offset().expect("it is told");
    assert!(stands > 0, "what was there is lost");
    for (way, id, file) in uploads {
        let answer = uploader.upload(way, id, file).await.expect("media answers");
        assert!(answer.is_stored(file), "{way:?}: {answer:?}");
        assert!(uploader.is_ready(id, file, "with room").await, "{way:?}");
    }
    let answer = uploader
        .upload(Way::Post, put_id, &posted)
        .await
        .expect("media answers");
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(uploader.is_ready(before_id, &before, "with room").await);
    books.until_at_rest().await;
    books.assert_right("with room").await;
    assert_eq!(books.stored().await.len(), 4, "four files, and nothing else");
}
