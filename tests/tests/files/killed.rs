//! `kill -9` of media at any point of an upload: what was announced is there and right, or not there, and a retry brings
//! it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::AttachmentId;
use tidings_tests::{System, eventually};
use tokio::time::sleep;

use crate::media::Media;
use crate::support::{Books, seeded};
use crate::uploader::{File, Uploader, Way, fed, feed};

/// Uploads, each killed some times before it may come to its end.
const UPLOADS: u32 = 10;
/// How often at most.
const KILLS_MAX: u32 = 3;

/// When it is killed.
#[derive(Copy, Clone, Debug)]
struct Moment {
    /// After so many bytes were sent.
    bytes: usize,
    when: When,
}

/// And then.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum When {
    /// After this time.
    After(Duration),
    /// So long after the object has become whole, while Postgres does not let itself be told of it.
    Whole(Duration),
    /// When the answer has come.
    Answered,
}

impl Moment {
    /// Each kind of moment in turn.
    fn choose(rng: &mut StdRng, kill: u32, left: usize) -> Self {
        let micros = |rng: &mut StdRng, max: u64| Duration::from_micros(rng.random_range(0..max));
        let (bytes, when) = match kill % 6 {
            1 => (left, When::After(micros(rng, 30_000 + left as u64 / 20))),
            2 if left > 0 => (left, When::Whole(micros(rng, 10_000))),
            3 => (0, When::After(micros(rng, 20_000))),
            5 => (left, When::Answered),
            _ => (rng.random_range(0..=left), When::After(micros(rng, 5_000))),
        };
        Self { bytes, when }
    }
}

/// How often it was found how after a kill.
#[derive(Copy, Clone, Debug, Default)]
struct Found {
    kills: u32,
    answered: u32,
    ready: u32,
    /// Whole, and Postgres did not know.
    whole: u32,
    torn: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_is_killed_at_any_point_of_an_upload() {
    let system = System::shared().await;
    let books = Books::of(system);
    let mut media = Media::start(system, "media-killed").await;
    let uploader = Uploader::at(system, "killed", &media.url);
    let (mut rng, seed) = seeded("killed");
    let (mut found, mut slots) = (Found::default(), Vec::new());
    for number in 0..UPLOADS {
        let way = *[Way::Post, Way::Put, Way::Tus, Way::Tus]
            .choose(&mut rng)
            .expect("there are four");
        let file = if rng.random_bool(0.3) {
            File::between(&mut rng, 1, 100_000)
        } else {
            File::between(&mut rng, 100_000, 6_000_000)
        };
        // A POST makes the slot again: the same, since it says the same.
        let id = uploader.slot(&file, "posted").await;
        slots.push(id);
        for _ in 0..rng.random_range(1..=KILLS_MAX) {
            let mut of_kill = StdRng::seed_from_u64(rng.random());
            let note = format!(
                "TIDINGS_SEED={seed}, upload {number}, {way:?} of {} bytes",
                file.size()
            );
            if one_kill(
                &uploader,
                &mut media,
                &books,
                (way, id, &file),
                &mut of_kill,
                &mut found,
                &note,
            )
            .await
            {
                break;
            }
        }
        let note = format!("TIDINGS_SEED={seed}, upload {number}, {way:?}, retry");
        let answer = uploader.upload(way, id, &file).await;
        let answer = answer.unwrap_or_else(|error| panic!("{note}: {error}"));
        assert!(answer.is_stored(&file), "{note}: {answer:?}");
        assert!(uploader.is_ready(id, &file, &note).await, "{note}");
        books.assert_right(&note).await;
    }
    books.until_only_stored(&slots).await;
    eprintln!("killed: {found:?}");
    assert!(found.torn > 0 && found.whole > 0, "no kill hit: {found:?}");
}

/// Begins or goes on with an upload, kills media at a moment of it, and looks. Whether the attachment is ready.
async fn one_kill(
    uploader: &Uploader,
    media: &mut Media,
    books: &Books,
    (way, id, file): (Way, AttachmentId, &File),
    rng: &mut StdRng,
    found: &mut Found,
    note: &str,
) -> bool {
    let offset = if way == Way::Tus {
        let standing = uploader.standing(id).await;
        let standing = standing.unwrap_or_else(|error| panic!("{note}: {error}"));
        standing
            .offset()
            .unwrap_or_else(|| panic!("{note}: {standing:?}"))
    } else {
        0
    };
    let left = file.size() - offset;
    let moment = Moment::choose(rng, found.kills, left);
    let note = format!("{note}, on from {offset}, {moment:?}");
    let begun = books.begun(id).await;
    let (mut feeder, body) = fed();
    let request = tokio::spawn({
        let (uploader, file) = (uploader.clone(), file.clone());
        async move { uploader.send(way, id, &file, offset, body).await }
    });
    let mut bytes = file.bytes.slice(offset..offset + moment.bytes);
    let mut held = None;
    if matches!(moment.when, When::Whole(_)) {
        feed(&mut feeder, bytes.split_to(left - 1)).await;
        held = Some(books.hold(id, &begun).await);
    }
    feed(&mut feeder, bytes).await;
    // At its end the body ends; before, it is waited for more.
    let mut feeder = Some(feeder);
    if moment.bytes == left {
        feeder = None;
    }
    match moment.when {
        When::After(after) => sleep(after).await,
        When::Whole(after) => {
            books.until_whole(id).await;
            sleep(after).await;
        }
        When::Answered => until_answered(&request).await,
    }
    media.kill().await;
    drop((feeder, held));
    let answer = request.await.expect("no panic");
    media.start_again().await;

    books.assert_right(&note).await;
    let ready = uploader.is_ready(id, file, &note).await;
    let promised = answer.as_ref().is_ok_and(|answer| answer.is_stored(file));
    assert!(ready || !promised, "{note}: lost after {answer:?}");
    let expected = match moment.when {
        When::Answered => Some(true),
        When::Whole(_) => Some(false),
        When::After(_) => None,
    };
    assert!(
        expected.is_none_or(|expected| expected == promised),
        "{note}: {answer:?}"
    );
    let begun = books.begun(id).await;
    let objects = books.stored().await;
    let of_it = |whole| {
        let mut blobs = objects.iter().filter(|blob| blob.whole == whole);
        blobs.any(|blob| begun.iter().any(|row| row.blob_id == blob.blob_id))
    };
    found.kills += 1;
    found.answered += u32::from(promised);
    found.ready += u32::from(ready);
    found.whole += u32::from(!ready && of_it(true));
    found.torn += u32::from(!ready && of_it(false));
    ready
}

/// Waits for the answer, and leaves it there.
async fn until_answered<T>(request: &tokio::task::JoinHandle<T>) {
    eventually("it is answered", async || {
        if request.is_finished() { Ok(()) } else { Err(()) }
    })
    .await;
}
