//! `kill -9` of media at any point of the removal of an upload that its client ends: it is removed later, and not by
//! halves for ever.

use std::time::Duration;

use rand::RngExt as _;
use tidings_tests::System;
use tokio::time::sleep;

use crate::media::Media;
use crate::support::{Books, seeded};
use crate::uploader::{Answer, File, Uploader, Way, break_off, fed, feed};

/// Removals, each killed.
const REMOVALS: u32 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_is_killed_while_it_removes_an_upload() {
    let system = System::shared().await;
    let books = Books::of(system);
    let mut media = Media::start(system, "media-removes").await;
    let uploader = Uploader::at(system, "removes", &media.url);
    let (mut rng, seed) = seeded("removes");
    let (mut removed, mut torn) = (Vec::new(), 0);
    for number in 0..REMOVALS {
        let file = File::between(&mut rng, 1_500_000, 2_000_000);
        let id = uploader.slot(&file, "removed").await;
        let (mut feeder, body) = fed();
        let request = tokio::spawn({
            let (uploader, file) = (uploader.clone(), file.clone());
            async move { uploader.send(Way::Tus, id, &file, 0, body).await }
        });
        feed(&mut feeder, file.bytes.slice(..1_000_000)).await;
        books.until_written(id, 1).await;
        let blobs: Vec<_> = books.begun(id).await.into_iter().map(|row| row.blob_id).collect();
        // What was received is put down first.
        break_off(feeder).await;
        let upload = request.await.expect("no panic");
        assert!(upload.is_err(), "{upload:?}");
        let removal = tokio::spawn({
            let uploader = uploader.clone();
            async move { uploader.remove(id).await }
        });
        // Some are killed at any moment, others once Postgres knows that it is to be removed.
        let after = Duration::from_micros(rng.random_range(0..100_000));
        if number % 2 == 0 {
            sleep(after).await;
        } else {
            books.until_given_up(id, || removal.is_finished()).await;
        }
        media.kill().await;
        let removal = removal.await.expect("no panic");
        let left = books.begun(id).await;
        media.start_again().await;

        let note = format!("TIDINGS_SEED={seed}, removal {number}");
        eprintln!("{note}: answered: {}, left: {left:?}", removal.is_ok());
        torn += usize::from(left.iter().any(|row| row.state == "doomed"));
        books.assert_right(&note).await;
        assert!(!uploader.is_ready(id, &file, &note).await, "{note}");
        let goes_on = left.iter().any(|row| row.state == "uploading");
        assert!(
            !goes_on || !removal.as_ref().is_ok_and(Answer::is_success),
            "{note}: {removal:?}, {left:?}"
        );
        let again = uploader.remove(id).await;
        let again = again.unwrap_or_else(|error| panic!("{note}: {error}"));
        assert_eq!(again.status, 204, "{note}: {again:?}");
        removed.push((id, blobs));
    }
    eprintln!("removes: {torn} were killed in the middle");
    for (id, blobs) in removed {
        books.until_nothing_of(id, &blobs).await;
    }
    books.assert_right("after all removals").await;
}
