//! Postgres is away, frozen or killed: whoever asks hears it soon, nothing is there by halves, and an upload that was
//! under way ends well or clearly.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tidings_tests::{PATIENCE, System, SystemOptions, eventually};
use tokio::time::timeout;

use crate::removal::workers_are_killed_while_they_remove;
use crate::support::{Books, seeded};
use crate::uploader::{File, Uploader, Way, feed};

/// For an answer while Postgres is silent: what was being asked is given up after 15 s.
const SOON: Duration = Duration::from_secs(20);

/// A system of one's own, since others would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_die_and_postgres_is_away() {
    let options = SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        ..SystemOptions::default()
    };
    let system = System::start(&options).await;
    workers_are_killed_while_they_remove(&system).await;
    postgres_is_frozen(&system).await;
    postgres_is_killed(&system).await;
}

async fn postgres_is_frozen(system: &System) {
    let books = Books::of(system);
    let uploader = Uploader::fresh(system, "frozen");
    let (mut rng, _) = seeded("frozen");
    let before = File::random(&mut rng, 300_000);
    let before_id = uploader.slot(&before, "before").await;
    let stored = uploader
        .upload(Way::Put, before_id, &before)
        .await
        .expect("media answers");
    assert_eq!(stored.status, 201, "{stored:?}");
    let [put, resumed, late] = [1_500_000, 1_500_000, 100_000].map(|size| File::random(&mut rng, size));
    let [put_id, resumed_id] = [
        uploader.slot(&put, "put").await,
        uploader.slot(&resumed, "resumed").await,
    ];
    // One is under way by PUT, and another by tus, of which the client goes away while nothing can be noted.
    let uploads = [(Way::Put, put_id, &put), (Way::Tus, resumed_id, &resumed)];
    let mut requests = Vec::new();
    for (way, id, file) in uploads {
        let (feeder, request) = uploader.begin(way, id, file, 1_000_000).await;
        books.until_written(id, 1).await;
        requests.push((feeder, request));
    }
    let frozen = Frozen::freeze(system.process("postgres").pid);
    let (mut feeder, put_request) = requests.remove(0);
    feed(&mut feeder, put.bytes.slice(1_000_000..)).await;
    drop(feeder);
    let (feeder, request) = requests.remove(0);
    crate::uploader::break_off(feeder).await;
    let _ = request.await.expect("no panic");

    let (get, announced) = tokio::join!(uploader.get(before_id), uploader.announce(&late, "late"));
    for (what, answer) in [("GET", get), ("POST", announced)] {
        let answer = answer.expect("media answers");
        answer.assert_unavailable(503, what);
        assert!(answer.took < SOON, "{what}: {answer:?}");
        eprintln!("frozen: {what} is answered after {:?}", answer.took);
    }
    drop(frozen);

    // Its bytes had come: what remains to be said is said when somebody listens.
    let answer = timeout(PATIENCE, put_request)
        .await
        .expect("it ends")
        .expect("no panic");
    let answer = answer.expect("media answers");
    eprintln!(
        "frozen: PUT is answered {} after {:?}",
        answer.status, answer.took
    );
    if !answer.is_stored(&put) {
        answer.assert_unavailable(503, "PUT");
    }
    for (way, id, file) in uploads {
        works_again(&uploader, way, id, file).await;
    }
    assert!(uploader.is_ready(before_id, &before, "after the frost").await);
    books.until_at_rest().await;
    books.assert_right("after the frost").await;
}

async fn postgres_is_killed(system: &System) {
    let books = Books::of(system);
    let uploader = Uploader::fresh(system, "killed");
    let (mut rng, _) = seeded("killed Postgres");
    let [put, resumed] = [1_500_000, 1_500_000].map(|size| File::random(&mut rng, size));
    let uploads = [
        (Way::Put, uploader.slot(&put, "put").await, &put),
        (Way::Tus, uploader.slot(&resumed, "resumed").await, &resumed),
    ];
    let mut requests = Vec::new();
    for (way, id, file) in uploads {
        let (feeder, request) = uploader.begin(way, id, file, 1_000_000).await;
        books.until_written(id, 1).await;
        requests.push((file, feeder, request));
    }
    let old = system.process("postgres").pid;
    system.signal("postgres", Signal::SIGKILL);
    for (file, mut feeder, request) in requests {
        feed(&mut feeder, file.bytes.slice(1_000_000..)).await;
        drop(feeder);
        let answer = request.await.expect("no panic").expect("media answers");
        assert!(answer.took < SOON, "{answer:?}");
        if !answer.is_stored(file) {
            answer.assert_unavailable(503, "an upload that was under way");
        }
    }
    eventually("another Postgres answers", async || {
        let pid = system.process("postgres").pid;
        match system.metadata().clock().await {
            Ok(_) if pid != old => Ok(()),
            other => Err(format!("{pid}, {other:?}")),
        }
    })
    .await;
    for (way, id, file) in uploads {
        works_again(&uploader, way, id, file).await;
    }
    books.until_at_rest().await;
    books.assert_right("after Postgres was killed").await;
}

/// An upload that may have ended well is there or can be done; at the latest when connections are there again.
async fn works_again(uploader: &Uploader, way: Way, id: tidings_protocol::AttachmentId, file: &File) {
    eventually("an upload works again", async || {
        let answer = uploader.upload(way, id, file).await?;
        if answer.status == 503 {
            return Err(format!("{answer:?}"));
        }
        assert!(answer.is_stored(file), "{way:?}: {answer:?}");
        Ok(())
    })
    .await;
    assert!(uploader.is_ready(id, file, "again").await, "{way:?}");
}

/// A Postgres that answers nothing until this is dropped. Each of its connections has a process.
struct Frozen(Vec<Pid>);

impl Frozen {
    fn freeze(pid: u32) -> Self {
        let postmaster = Pid::from_raw(pid.cast_signed());
        // First, so that it makes no more.
        kill(postmaster, Signal::SIGSTOP).expect("Postgres runs");
        let mut frozen = Self(vec![postmaster]);
        for child in children(pid) {
            let child = Pid::from_raw(child);
            // It may have ended.
            if kill(child, Signal::SIGSTOP).is_ok() {
                frozen.0.push(child);
            }
        }
        assert!(frozen.0.len() > 2, "Postgres has processes: {:?}", frozen.0);
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in self.0.iter().rev() {
            // Whoever was killed meanwhile does not hear it.
            let _ = kill(*pid, Signal::SIGCONT);
        }
    }
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("this is Linux");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name, in parentheses, may have spaces.
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        parent == Some(pid.to_string().as_str())
    })
    .collect()
}
