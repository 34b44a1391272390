//! `kill -9` of the inbox workers at any point of a removal: whoever comes next finishes it.

use std::time::Duration;

use futures::StreamExt as _;
use nix::sys::signal::Signal;
use rand::RngExt as _;
use rand::rngs::StdRng;
use sqlx::Row as _;
use tidings_protocol::AttachmentId;
use tidings_tests::{System, eventually};
use uuid::Uuid;

use crate::support::{Books, seeded};
use crate::uploader::{File, Uploader, Way, break_off, fed, feed};

/// Attachments that end at once, and uploads that do in the middle.
const FILES: usize = 160;
const PARTS: usize = 6;
/// How often the workers are killed while they remove them, at most.
const KILLS: usize = 5;
const AT_ONCE: usize = 8;
/// A worker that died keeps the others waiting for minutes; they go by here.
const LEASES_RUN_OUT: &str =
    "UPDATE leases SET expires_at = now() - interval '1 second' WHERE name = 'attachments'";
const ALL_EXPIRE: &str =
    "UPDATE attachments SET expires_at = now() - interval '1 second' WHERE gone_at IS NULL";

/// What is left to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Left {
    attachments: i64,
    blobs: i64,
}

pub(crate) async fn workers_are_killed_while_they_remove(system: &System) {
    let books = Books::of(system);
    let (mut rng, seed) = seeded("removal");
    fill(system, &books, &mut rng).await;
    let begun = left(&books).await;
    assert_eq!(begun.blobs, (FILES + PARTS) as i64, "{begun:?}");
    books.assert_right("before").await;
    books.tell(ALL_EXPIRE).await;

    let (mut torn, mut all) = (0, begun.attachments + begun.blobs);
    for kill in 1..=KILLS {
        // Fast workers may have been done before the last kill came.
        if all == 0 {
            break;
        }
        // After some more of it: so much that something is left for the kills to come.
        let share = all / (KILLS + 2 - kill) as i64;
        let due = all - rng.random_range(1..=share.max(1));
        let note = format!("TIDINGS_SEED={seed}, kill {kill}, due at {due} of {all}");
        let mut postgres = books.postgres().await;
        let seen = eventually(&note, async || {
            let left = left_by(&mut postgres).await;
            if left.attachments + left.blobs <= due {
                Ok(left)
            } else {
                Err(left)
            }
        })
        .await;
        // Within the next steps, of which each takes about so long.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..3_000))).await;
        for worker in ["inbox-worker-1", "inbox-worker-2"] {
            kill_now(system, worker).await;
        }
        // Before there is another one, which would come again only after a while.
        books.tell(LEASES_RUN_OUT).await;
        let after = left(&books).await;
        all = after.attachments + after.blobs;
        torn += usize::from(all > 0);
        eprintln!("{note}: {seen:?}, {after:?} left");
        books.assert_right(&note).await;
    }
    assert!(torn > 0, "no kill hit a removal");
    eventually("everything is removed", async || {
        let left = left(&books).await;
        let stored = books.stored().await.len();
        if left
            == (Left {
                attachments: 0,
                blobs: 0,
            })
            && stored == 0
        {
            Ok(())
        } else {
            Err((left, stored))
        }
    })
    .await;
    books.assert_right("at the end").await;
}

/// People upload a lot, and one of them leaves some of it in the middle.
async fn fill(system: &System, books: &Books, rng: &mut StdRng) {
    let people: Vec<Uploader> = (0..AT_ONCE).map(|_| Uploader::fresh(system, "heap")).collect();
    let files: Vec<File> = (0..FILES).map(|_| File::between(rng, 1, 20_000)).collect();
    let (people, nothing) = (&people, AttachmentId(Uuid::nil()));
    futures::stream::iter(files.into_iter().enumerate())
        .for_each_concurrent(AT_ONCE, |(number, file)| async move {
            let uploader = &people[number % people.len()];
            let answer = uploader
                .upload(Way::Post, nothing, &file)
                .await
                .expect("media answers");
            assert_eq!(answer.status, 201, "{answer:?}");
        })
        .await;
    let uploader = &people[0];
    for part in 0..PARTS {
        let file = File::random(rng, 1_500_000);
        let id = uploader.slot(&file, &part.to_string()).await;
        let (mut feeder, body) = fed();
        let request = tokio::spawn({
            let (uploader, file) = (uploader.clone(), file.clone());
            async move { uploader.send(Way::Tus, id, &file, 0, body).await }
        });
        feed(&mut feeder, file.bytes.slice(..1_000_000)).await;
        books.until_written(id, 1).await;
        break_off(feeder).await;
        let answer = request.await.expect("no panic");
        assert!(answer.is_err(), "{answer:?}");
    }
}

/// Kills a worker as soon as there is one: the last one may not have been started again yet.
async fn kill_now(system: &System, name: &str) {
    let pid = nix::unistd::Pid::from_raw(system.process(name).pid.cast_signed());
    // It is dead already, then.
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    eventually("it is dead", async || match nix::sys::signal::kill(pid, None) {
        Ok(()) => Err(pid),
        Err(_) => Ok(()),
    })
    .await;
}

async fn left(books: &Books) -> Left {
    left_by(&mut books.postgres().await).await
}

async fn left_by(postgres: &mut sqlx::PgConnection) -> Left {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM attachments WHERE gone_at IS NULL), (SELECT count(*) FROM blobs)",
    )
    .fetch_one(postgres)
    .await
    .expect("Postgres answers");
    Left {
        attachments: row.get(0),
        blobs: row.get(1),
    }
}
