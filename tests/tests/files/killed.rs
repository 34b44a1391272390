//! `kill -9` of media at any point of an upload: what was announced is there and right, or not there, and a retry brings
//! it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::AttachmentId;
use tidings_tests::System;

use crate::media::Media;
use crate::support::{Books, seeded};
use crate::uploader::{File, Uploader, Way, fed, feed};

/// Uploads, each killed some times before it may come to its end.
const UPLOADS: u32 = 12;
/// How often at most.
const KILLS_MAX: u32 = 3;

/// When it is killed.
#[derive(Copy, Clone, Debug)]
struct Moment {
    /// After so many bytes were sent.
    bytes: usize,
    /// And this has passed; `None`: the answer has come.
    after: Option<Duration>,
}

impl Moment {
    fn random(rng: &mut StdRng, left: usize) -> Self {
        let millis =
            |rng: &mut StdRng, max: u64| Some(Duration::from_micros(rng.random_range(0..max * 1000)));
        match rng.random_range(0..10) {
            // While it is begun.
            0..2 => Self {
                bytes: 0,
                after: millis(rng, 20),
            },
            2..6 => Self {
                bytes: rng.random_range(0..=left),
                after: millis(rng, 5),
            },
            // While the last of it is hashed, and it is made whole.
            6..9 => Self {
                bytes: left,
                after: millis(rng, 30 + left as u64 / 20_000),
            },
            _ => Self {
                bytes: left,
                after: None,
            },
        }
    }
}

/// How often it was found how after a kill.
#[derive(Copy, Clone, Debug, Default)]
struct Found {
    kills: u32,
    answered: u32,
    ready: u32,
    torn: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_is_killed_at_any_point_of_an_upload() {
    let system = System::shared().await;
    let books = Books::of(system);
    let mut media = Media::start(system, "media-killed").await;
    let uploader = Uploader::at(system, "killed", &media.url);
    let (mut rng, seed) = seeded("killed");
    let mut found = Found::default();
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
    eprintln!("killed: {found:?}");
    assert!(found.torn > 0, "no kill hit an upload: {found:?}");
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
    let moment = Moment::random(rng, left);
    let note = format!("{note}, on from {offset}, {moment:?}");
    let (mut feeder, body) = fed();
    let mut request = tokio::spawn({
        let (uploader, file) = (uploader.clone(), file.clone());
        async move { uploader.send(way, id, &file, offset, body).await }
    });
    let bytes = file.bytes.slice(offset..offset + moment.bytes);
    feed(&mut feeder, bytes).await;
    // At its end the body ends; before, it is waited for more.
    let mut feeder = Some(feeder);
    if moment.bytes == left {
        feeder = None;
    }
    let mut answer = None;
    match moment.after {
        Some(after) => tokio::time::sleep(after).await,
        None => answer = Some((&mut request).await),
    }
    media.kill().await;
    drop(feeder);
    let answer = match answer {
        Some(answer) => answer,
        None => request.await,
    };
    let answer = answer.expect("no panic");
    media.start_again().await;

    books.assert_right(&note).await;
    let ready = uploader.is_ready(id, file, &note).await;
    let promised = answer.as_ref().is_ok_and(|answer| answer.is_stored(file));
    assert!(ready || !promised, "{note}: lost after {answer:?}");
    if moment.after.is_none() {
        assert!(promised, "{note}: {answer:?}");
    }
    let begun = books.begun(id).await;
    let objects = books.stored().await;
    let torn = objects
        .iter()
        .any(|blob| begun.iter().any(|(id, _)| *id == blob.blob_id));
    found.kills += 1;
    found.answered += u32::from(promised);
    found.ready += u32::from(ready);
    found.torn += u32::from(!ready && torn);
    ready
}
