//! A client that goes in the middle of an upload: of a PUT or POST nothing is left, and tus goes on where it was.

use rand::RngExt as _;
use tidings_tests::System;

use crate::support::{Books, seeded};
use crate::uploader::{File, Uploader, Way, break_off, fed, feed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_put_whose_client_went() {
    let system = System::shared().await;
    let books = Books::of(system);
    let uploader = Uploader::fresh(system, "gone");
    let (mut rng, seed) = seeded("client gone");
    for way in [Way::Put, Way::Post, Way::Put] {
        let file = File::between(&mut rng, 3_000_000, 5_000_000);
        // What is written is written in blocks, so some have to be sent.
        let sent = rng.random_range(2_000_000..file.size());
        let note = format!("TIDINGS_SEED={seed}, {way:?}, {sent} bytes of {}", file.size());
        let id = uploader.slot(&file, "posted").await;
        let (mut feeder, body) = fed();
        let request = tokio::spawn({
            let (uploader, file) = (uploader.clone(), file.clone());
            async move { uploader.send(way, id, &file, 0, body).await }
        });
        feed(&mut feeder, file.bytes.slice(..sent)).await;
        books.until_written(id, 1).await;
        let known: Vec<_> = books.begun(id).await.into_iter().map(|row| row.blob_id).collect();
        assert!(
            !uploader.is_ready(id, &file, &note).await,
            "{note}: half of it is read"
        );
        break_off(feeder).await;
        let answer = request.await.expect("no panic");
        assert!(answer.is_err(), "{note}: {answer:?}");

        books.until_nothing_of(id, &known).await;
        books.assert_right(&note).await;
        assert!(!uploader.is_ready(id, &file, &note).await, "{note}");
        let answer = uploader.upload(way, id, &file).await.expect("media answers");
        assert_eq!(answer.status, 201, "{note}: {answer:?}");
        assert!(uploader.is_ready(id, &file, &note).await, "{note}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tus_goes_on_after_its_client_went() {
    const PARTS: usize = 3;
    let system = System::shared().await;
    let books = Books::of(system);
    let uploader = Uploader::fresh(system, "back");
    let (mut rng, seed) = seeded("tus");
    let file = File::random(&mut rng, 9_000_000);
    let id = uploader.slot(&file, "resumed").await;
    let mut offset = 0;
    for part in 0..PARTS {
        let until = (part + 1) * file.size() / (PARTS + 1);
        let note = format!("TIDINGS_SEED={seed}, from {offset} until {until}");
        let (mut feeder, body) = fed();
        let request = tokio::spawn({
            let (uploader, file) = (uploader.clone(), file.clone());
            async move { uploader.send(Way::Tus, id, &file, offset, body).await }
        });
        feed(&mut feeder, file.bytes.slice(offset..until)).await;
        let written = books.until_written(id, offset as u64 + 1).await;
        break_off(feeder).await;
        let answer = request.await.expect("no panic");
        assert!(answer.is_err(), "{note}: {answer:?}");

        assert!(!uploader.is_ready(id, &file, &note).await, "{note}");
        let standing = uploader.standing(id).await.expect("media answers");
        let stands = standing
            .offset()
            .unwrap_or_else(|| panic!("{note}: {standing:?}"));
        assert!(
            stands as u64 >= written && stands <= until,
            "{note}: stands at {stands} after {written} were written"
        );
        books.assert_right(&note).await;
        offset = stands;
    }
    let answer = uploader.upload(Way::Tus, id, &file).await.expect("media answers");
    assert!(answer.is_stored(&file), "{answer:?}");
    assert!(uploader.is_ready(id, &file, "at the end").await);
    let begun = books.begun(id).await;
    assert!(
        matches!(&begun[..], [row] if row.state == "stored"),
        "it was one upload: {begun:?}"
    );
    books.assert_right("at the end").await;
}
