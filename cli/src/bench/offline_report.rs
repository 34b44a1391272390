//! What `tidings bench offline` has measured.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::bail;
use serde::Serialize;

use super::crowd::CrowdArgs;
use super::latency::Percentiles;
use super::outcome::Outcome;
use super::plan::Plan;
use super::processes::Interval;
use super::report::{LATENCY_HEAD, latency_row, of_each, write_json};
use super::streams::Stored;

const MEGABYTE: f64 = 1e6;

/// The load that was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfflineOptions {
    codec: &'static str,
    processes: u32,
    /// Away.
    clients: u32,
    devices: u32,
    senders: u32,
    chats: u32,
    members: u32,
    in_flight: u32,
    body_bytes: usize,
    seed: u64,
}

/// How many entries clients that are away get.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    /// Of any of them.
    pub(crate) fewest: u64,
    pub(crate) most: u64,
}

/// The first half.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Storing {
    pub(crate) messages: u64,
    /// In inboxes of clients that are away.
    pub(crate) entries: u64,
    /// From the first message sent until inboxes held them all.
    pub(crate) seconds: f64,
    pub(crate) entries_per_second: f64,
    /// From when a message was sent until its sender got the reply.
    pub(crate) accept: Percentiles,
    pub(crate) interval: Interval,
}

/// The second half. Seconds count from when clients began to come back, and are absent where that did not happen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Drained {
    pub(crate) entries: u64,
    /// Until the last entry was at its client.
    pub(crate) received_seconds: Option<f64>,
    /// Until the last one was confirmed, too.
    pub(crate) seconds: Option<f64>,
    /// Until it was deleted, too.
    pub(crate) deleted_seconds: Option<f64>,
    /// Until the last one was confirmed.
    pub(crate) entries_per_second: Option<f64>,
    /// From a client's first try to connect until it was up to date.
    pub(crate) caught_up: Percentiles,
    /// Clients that should have come back.
    pub(crate) absent: u64,
    /// Tries to connect that were refused or failed, and were followed by another.
    pub(crate) sent_away: u64,
    /// Until the last one was confirmed.
    pub(crate) interval: Interval,
}

/// What it took NATS to keep the entries.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Storage {
    before: Stored,
    stored: Stored,
    /// Two seconds after the last entry was deleted.
    drained: Option<Stored>,
    stream_bytes_per_entry: f64,
    disk_bytes_per_entry: f64,
    /// Of the disk, what was not given back by then.
    left_disk_bytes_per_entry: Option<f64>,
}

/// The result.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OfflineReport {
    pub(crate) options: OfflineOptions,
    pub(crate) waiting: Waiting,
    pub(crate) store: Storing,
    /// Not with `--stay-away`.
    pub(crate) drain: Option<Drained>,
    pub(crate) storage: Storage,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

impl OfflineOptions {
    pub(crate) const fn new(args: &CrowdArgs, senders: u32, in_flight: u32) -> Self {
        Self {
            codec: args.target.codec_name(),
            processes: args.target.processes,
            clients: args.clients,
            devices: args.target.devices,
            senders,
            chats: args.chats,
            members: args.members,
            in_flight,
            body_bytes: args.body_bytes,
            seed: args.seed,
        }
    }
}

impl Waiting {
    /// After so many messages, to one chat after the other, by the first users of a plan.
    pub(crate) fn of(plan: &Plan, senders: u32, messages: u64) -> Self {
        let chats = plan.chats.len() as u64;
        let mut entries = vec![0; (plan.clients / plan.devices) as usize];
        for (chat, members) in plan.chats.iter().enumerate() {
            let of_chat = messages / chats + u64::from((chat as u64) < messages % chats);
            for user in members {
                entries[*user as usize] += of_chat;
            }
        }
        let absent = entries[senders as usize..].iter().copied();
        Self {
            fewest: absent.clone().min().unwrap_or(0),
            most: absent.max().unwrap_or(0),
        }
    }
}

impl Drained {
    fn write_summary(&self, out: &mut String) {
        let text =
            |seconds: Option<f64>| seconds.map_or("never".to_owned(), |seconds| format!("{seconds:.2} s"));
        let _ = writeln!(
            out,
            "drained        {:.0} entries/s: all received after {}, confirmed after {}, deleted after {}",
            self.entries_per_second.unwrap_or(0.0),
            text(self.received_seconds),
            text(self.seconds),
            text(self.deleted_seconds),
        );
        let _ = writeln!(
            out,
            "came back      {} clients, {} tries sent away",
            self.caught_up.count, self.sent_away
        );
    }
}

impl Storage {
    pub(crate) fn new(before: Stored, stored: Stored, drained: Option<Stored>, entries: u64) -> Self {
        let each = |now: u64, before: u64| (now as f64 - before as f64) / entries.max(1) as f64;
        Self {
            before,
            stored,
            drained,
            stream_bytes_per_entry: each(stored.held.stream_bytes, before.held.stream_bytes),
            disk_bytes_per_entry: each(stored.disk_bytes, before.disk_bytes),
            left_disk_bytes_per_entry: drained.map(|drained| each(drained.disk_bytes, before.disk_bytes)),
        }
    }

    fn write_table(&self, out: &mut String) {
        let _ = write!(
            out,
            "\nan entry       {:.0} bytes in its stream, {:.0} bytes on NATS's disk",
            self.stream_bytes_per_entry, self.disk_bytes_per_entry
        );
        if let Some(left) = self.left_disk_bytes_per_entry {
            let _ = write!(out, ", {left:.0} of them not given back");
        }
        let _ = write!(
            out,
            "\ndisk of NATS   {:.1} MB before, {:.1} MB stored",
            self.before.disk_bytes as f64 / MEGABYTE,
            self.stored.disk_bytes as f64 / MEGABYTE,
        );
        if let Some(drained) = &self.drained {
            let _ = write!(out, ", {:.1} MB drained", drained.disk_bytes as f64 / MEGABYTE);
        }
        out.push('\n');
    }
}

impl OfflineReport {
    /// Prints the table, writes the JSON where it is wanted, and fails if anything is wrong.
    pub(crate) fn print(&self, json: Option<&Path>) -> anyhow::Result<()> {
        print!("{}", self.table());
        if let Some(path) = json {
            write_json(path, self)?;
        }
        let mut faults = self.outcome.faults();
        if let Some(drain) = &self.drain {
            let back = drain.caught_up.count;
            if back < drain.absent {
                faults.push(format!("{} clients did not catch up", drain.absent - back));
            }
            if drain.deleted_seconds.is_none() {
                faults.push("inboxes do not hold again what they held before".to_owned());
            }
        }
        if !faults.is_empty() {
            bail!("{}", faults.join("; "));
        }
        Ok(())
    }

    /// For people.
    fn table(&self) -> String {
        let mut out = String::new();
        let (options, store) = (&self.options, &self.store);
        let _ = writeln!(
            out,
            "{} clients away{} ({}), {} chats of {}, {} senders, messages of {} bytes; {} to {} entries for each client\n",
            options.clients,
            of_each(options.devices),
            options.codec,
            options.chats,
            options.members,
            options.senders,
            options.body_bytes,
            self.waiting.fewest,
            self.waiting.most,
        );
        let _ = writeln!(
            out,
            "stored         {:.0} entries/s: {} in {:.2} s, from {} messages",
            store.entries_per_second, store.entries, store.seconds, store.messages
        );
        if let Some(drain) = &self.drain {
            drain.write_summary(&mut out);
        }
        let _ = writeln!(out, "\n{LATENCY_HEAD}\n{}", latency_row("accept", &store.accept));
        if let Some(drain) = &self.drain {
            let _ = writeln!(out, "{}", latency_row("caught up", &drain.caught_up));
        }
        out.push('\n');
        self.outcome.write_table(&mut out);
        self.storage.write_table(&mut out);
        let _ = writeln!(out, "\nwhile storing");
        store
            .interval
            .write_table(&mut out, Some((store.entries, "entry")));
        if let Some(drain) = &self.drain {
            let _ = writeln!(out, "\nwhile draining");
            drain
                .interval
                .write_table(&mut out, Some((drain.entries, "entry")));
        }
        out
    }
}
