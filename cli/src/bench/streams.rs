//! What JetStream holds of the system's streams: messages, their size in the streams, and the size of NATS's files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tidings_nats::{CHATS, NatsUser, Topology, inbox_stream, setup};
use tidings_service::NatsConnection;

use super::say;
use super::target::TargetArgs;

/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Between two reports to whoever waits.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Nothing has changed for so long: what was under way is over.
const STILL: Duration = Duration::from_secs(1);
/// Size of a block as the system counts them, whatever the file system's is.
const BLOCK_BYTES: u64 = 512;

/// See the module.
pub(crate) struct Streams {
    nats: NatsConnection,
    topology: Topology,
    /// Where the nats-servers of `tidings up` keep everything.
    folder: PathBuf,
}

/// A look at them.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Held {
    /// Entries in all inboxes.
    pub(crate) entries: u64,
    /// Their size, as JetStream counts.
    pub(crate) stream_bytes: u64,
}

/// The same, with the files.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stored {
    #[serde(flatten)]
    pub(crate) held: Held,
    /// What all files of all nats-servers take on the disk, those of CHATS and of consumers included.
    pub(crate) disk_bytes: u64,
}

impl Streams {
    /// Of the system that `tidings up` runs.
    pub(crate) async fn open(args: &TargetArgs) -> anyhow::Result<Self> {
        let settings = args.up()?.nats_settings(NatsUser::Operator)?;
        let nats = NatsConnection::connect(&settings, "bench").await?;
        let topology = setup::check(&nats.bus()).await?;
        Ok(Self {
            nats,
            topology,
            folder: args.folder()?.join("nats"),
        })
    }

    /// Events that are not in all their inboxes yet.
    pub(crate) async fn under_way(&self) -> anyhow::Result<u64> {
        let bounds = self.nats.bus().stream_bounds(CHATS, TIMEOUT).await;
        Ok(bounds.context(CHATS)?.messages)
    }

    /// What is in all inboxes.
    pub(crate) async fn held(&self) -> anyhow::Result<Held> {
        let streams = self.nats.bus().stream_summaries(TIMEOUT).await;
        let streams = streams.context("JetStream's streams")?;
        let mut held = Held {
            entries: 0,
            stream_bytes: 0,
        };
        for shard in self.topology.shards() {
            let name = inbox_stream(shard);
            let stream = streams.iter().find(|stream| stream.name == name);
            let stream = stream.with_context(|| format!("the stream {name} does not answer"))?;
            held.entries += stream.messages;
            held.stream_bytes += stream.bytes;
        }
        Ok(held)
    }

    /// What is in all inboxes, and what that takes on the disk.
    pub(crate) async fn stored(&self) -> anyhow::Result<Stored> {
        let folder = self.folder.clone();
        let disk_bytes = tokio::task::spawn_blocking(move || size_of(&folder)).await?;
        Ok(Stored {
            held: self.held().await?,
            disk_bytes: disk_bytes.with_context(|| format!("cannot measure {}", self.folder.display()))?,
        })
    }

    /// Waits until nothing is under way and inboxes do not change any more, and says what they hold then.
    pub(crate) async fn come_to_rest(&self, patience: Duration) -> anyhow::Result<Held> {
        let began = Instant::now();
        let (mut last, mut since) = (self.held().await?, Instant::now());
        loop {
            tokio::time::sleep(LOOK_INTERVAL * 10).await;
            let (under_way, now) = (self.under_way().await?, self.held().await?);
            if under_way > 0 || now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > STILL {
                return Ok(now);
            }
            if began.elapsed() > patience {
                bail!("somebody else uses the system: inboxes change, or {under_way} events are under way");
            }
        }
    }

    /// Waits until nothing is under way.
    pub(crate) async fn wait_for_fan_out(&self, patience: Duration) -> anyhow::Result<()> {
        let (began, mut reported) = (Instant::now(), Instant::now());
        loop {
            let under_way = self.under_way().await?;
            if under_way == 0 {
                return Ok(());
            }
            if began.elapsed() > patience {
                bail!("{under_way} messages are still not in their inboxes");
            }
            tell(&mut reported, || {
                format!("{under_way} messages are not in their inboxes yet")
            });
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until inboxes hold so many entries; says whether they do.
    pub(crate) async fn wait_for_entries(&self, entries: u64, patience: Duration) -> anyhow::Result<bool> {
        let (began, mut reported) = (Instant::now(), Instant::now());
        loop {
            let now = self.held().await?.entries;
            if now == entries {
                return Ok(true);
            }
            if began.elapsed() > patience {
                return Ok(false);
            }
            tell(&mut reported, || {
                format!("inboxes hold {now} entries, to be {entries}")
            });
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

fn tell(reported: &mut Instant, what: impl Fn() -> String) {
    if reported.elapsed() > REPORT_INTERVAL {
        *reported = Instant::now();
        say(&what());
    }
}

/// What a folder takes on the disk. Files that go meanwhile take nothing.
fn size_of(path: &Path) -> io::Result<u64> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(0),
        _ => Err(error),
    };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return gone(error),
    };
    let mut bytes = metadata.blocks() * BLOCK_BYTES;
    if metadata.is_dir() {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return gone(error),
        };
        for entry in entries {
            bytes += entry.map_or_else(gone, |entry| size_of(&entry.path()))?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_takes_what_its_files_take() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let empty = size_of(folder.path()).expect("it is there");
        fs::create_dir(folder.path().join("inner")).expect("it is new");
        fs::write(folder.path().join("inner/file"), vec![1; 100_000]).expect("there is room");
        let full = size_of(folder.path()).expect("it is there");
        assert!((100_000..200_000).contains(&(full - empty)), "{empty} {full}");
        assert_eq!(
            size_of(&folder.path().join("absent")).expect("nothing is nothing"),
            0
        );
    }
}
