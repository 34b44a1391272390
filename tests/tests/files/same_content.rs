//! The same content at once: of one user it is stored once, of two users twice.

use std::time::Duration;

use futures::future::join_all;
use tidings_protocol::AttachmentId;
use tidings_tests::proxy::{Mode, Proxy};
use tidings_tests::{System, eventually};

use crate::media::Media;
use crate::support::{Books, seeded};
use crate::uploader::{File, Uploader, Way};

/// Uploads at once in each round.
const AT_ONCE: usize = 4;
const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_of_one_user_store_it_once_and_two_users_twice() {
    let system = System::shared().await;
    let books = Books::of(system);
    // Two services: what one knows of itself is no help.
    let other = Media::start(system, "media-same").await;
    let here = Uploader::fresh(system, "alice");
    let there = here.moved(&other.url);
    let (mut rng, seed) = seeded("same content");
    for round in 0..ROUNDS {
        let note = format!("TIDINGS_SEED={seed}, round {round}");
        let file = File::between(&mut rng, 1, 2_000_000);
        let devices: Vec<Uploader> = (0..AT_ONCE)
            .map(|device| {
                if device % 2 == 0 {
                    here.clone()
                } else {
                    there.clone()
                }
            })
            .collect();
        // In half of the rounds each has a slot of its own, in the others all have the same.
        let slots = devices.iter().enumerate().map(|(device, uploader)| {
            let name = if round % 2 == 0 {
                device.to_string()
            } else {
                "same".to_owned()
            };
            let file = &file;
            async move { uploader.slot(file, &name).await }
        });
        let slots: Vec<AttachmentId> = join_all(slots).await;
        let one_slot = slots.iter().all(|id| *id == slots[0]);
        assert_eq!(one_slot, round % 2 == 1, "{note}: {slots:?}");
        let uploads = devices
            .iter()
            .zip(&slots)
            .enumerate()
            .map(|(device, (uploader, id))| {
                let way = if device < 2 { Way::Put } else { Way::Tus };
                let file = &file;
                // Whoever is told that a newer request goes on comes again when it was told to.
                eventually("it is uploaded", async move || {
                    let answer = uploader.upload(way, *id, file).await?;
                    if answer.is_stored(file) {
                        return Ok(());
                    }
                    assert!(matches!(answer.status, 409 | 423), "{way:?}: {answer:?}");
                    let wait = answer.retry_after().unwrap_or_default();
                    tokio::time::sleep(Duration::from_secs(wait)).await;
                    Err(format!("{answer:?}"))
                })
            });
        join_all(uploads).await;
        for (uploader, id) in devices.iter().zip(&slots) {
            assert!(uploader.is_ready(*id, &file, &note).await, "{note}");
        }
        // The bytes of whoever was slower go at once, or with a moment. What was begun by tus, and nobody needed any
        // more, has a day.
        eventually("one blob is left", async || {
            let mut blobs = books.of_content(file.hash).await;
            blobs.retain(|row| row.state != "uploading");
            if blobs.len() == 1 && blobs[0].state == "stored" {
                Ok(())
            } else {
                Err(blobs)
            }
        })
        .await;
        books.assert_right(&note).await;

        let bob = Uploader::fresh(system, "bob");
        let answer = bob
            .upload(Way::Post, slots[0], &file)
            .await
            .expect("media answers");
        assert_eq!(answer.status, 201, "{note}: {answer:?}");
        let mut blobs = books.of_content(file.hash).await;
        blobs.retain(|row| row.state == "stored");
        assert_eq!(blobs.len(), 2, "{note}: {blobs:?}");
        books.assert_right(&note).await;
    }
}

/// Each takes longer than it is told to wait when the other one is preferred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_with_slow_links_come_to_an_end() {
    let system = System::shared().await;
    let media = system.up_file().media.expect("media runs");
    let server = media.trim_start_matches("http://").parse().expect("an address");
    let proxy = Proxy::start(server).await.expect("loopback has free ports");
    proxy.set(Mode::Slow(Duration::from_millis(20)));
    let here = Uploader::at(system, "slow", &format!("http://{}", proxy.address()));
    let (mut rng, _) = seeded("slow links");
    let file = File::random(&mut rng, 1_500_000);
    let id = here.slot(&file, "same").await;
    let upload = async || {
        let mut tries = 0;
        loop {
            tries += 1;
            let answer = here.upload(Way::Put, id, &file).await.expect("media answers");
            if answer.is_stored(&file) {
                return tries;
            }
            assert_eq!(answer.status, 409, "try {tries}: {answer:?}");
            let wait = answer.retry_after().unwrap_or_default();
            tokio::time::sleep(Duration::from_secs(wait)).await;
        }
    };
    let tries = tokio::join!(upload(), upload());
    eprintln!("slow links: {tries:?} tries");
    assert!(here.is_ready(id, &file, "slow links").await);
}
