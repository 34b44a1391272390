//! Decides from the histories of a run whether the promise was kept: nothing lost, nothing twice, in order.
//!
//! It knows no code of the product and no state of it, only what clients sent and saw, what was done to the system, and
//! what JetStream still stored at the end. An outcome that nobody was told is just that: it may have happened, and when
//! somebody sees it, it has happened for everybody.
//!
//! What it does not judge: time (how fast something came), order across chats, contents of replies to questions
//! (`listChats`, `getChat`, `listClients`), and who is admin.

mod chat_log;
mod files;
mod index;
mod reader;
mod report;
mod sends;
mod standing;
mod stored;
mod story;
#[cfg(test)]
mod tests;
mod timings;
mod verdict;
mod weather;

use std::collections::BTreeMap;

use tidings_protocol::ClientId;

pub use timings::{Timings, timings};
pub use verdict::{Figures, Kind, Verdict, Violation};

use crate::history::{Moment, Run};
use index::Index;
use reader::Reader;
use report::{Focus, Report};
use standing::Standing;
use weather::Weather;

/// The close code of clients that were removed.
const FORBIDDEN: u16 = 4403;

/// Judges a run.
pub fn judge(run: &Run) -> Verdict {
    let weather = Weather::of(&run.events);
    let mut report = Report::default();
    let mut index = Index::of(run);
    index.collect_events(&mut report);
    let index = index;
    let standings = index.standings();
    let mut figures = Figures {
        records: run.records.len() as u64,
        clients: standings.len() as u64,
        faults: weather.faults,
        ..Figures::default()
    };

    let mut readers = BTreeMap::new();
    for (client_id, standing) in &standings {
        let mut reader = Reader::new(&index, &weather, *client_id, standing);
        reader.read(&mut report, &mut figures);
        readers.insert(*client_id, reader);
    }
    index.check_sends(&weather, &mut report, &mut figures);
    index.check_files(&standings, &mut report, &mut figures);
    stored::check_stored(&index, &standings, &readers, &mut report);
    check_life(&index, &standings, &mut report);
    check_unseen(&index, &standings, &mut report);

    let updates = |chat: &chat_log::ChatLog| {
        let is_update = |event: &&chat_log::Happened| matches!(event.content, chat_log::Content::Update(_));
        chat.events.values().filter(is_update).count() as u64
    };
    figures.changes = index.chats.values().map(updates).sum();
    let welcomed = index
        .connections
        .iter()
        .filter(|connection| connection.welcome.is_some());
    figures.connections = welcomed.count() as u64;
    Verdict {
        figures,
        ..report.tell(&index, &weather)
    }
}

/// Whoever should be at rest is, and whoever is removed does not come back.
fn check_life(index: &Index<'_>, standings: &BTreeMap<ClientId, Standing>, report: &mut Report) {
    for connection in &index.connections {
        let standing = &standings[&connection.id.client_id];
        let focus = || Focus::client(connection.id.client_id);
        if let Some((at, reason)) = &connection.not_at_rest
            && *at < standing.removed
        {
            let what = format!("{}: {reason}", connection.id);
            report.found(Kind::NotAtRest, *at, what, focus());
        }
        if let (Some(removed), Some(hello), Some((welcome, _))) =
            (standing.removal_known, connection.last_hello, connection.welcome)
            && hello > removed
        {
            let what = format!(
                "{} was welcomed; its client was removed at {removed}",
                connection.id
            );
            report.found(Kind::RemovedReturned, welcome, what, focus());
        }
        if let Some((at, FORBIDDEN)) = connection.closed_with
            && standing.removed == Moment::NEVER
        {
            let what = format!(
                "{} was told that it is removed, and nobody asked for that",
                connection.id
            );
            report.found(Kind::ProtocolBroken, at, what, focus());
        }
    }
}

/// A change that must exist, since a later one counts it, and that nobody saw although somebody had to.
fn check_unseen(index: &Index<'_>, standings: &BTreeMap<ClientId, Standing>, report: &mut Report) {
    for (chat_id, chat) in &index.chats {
        for unseen in &chat.unseen {
            let owed = standings.iter().find(|(client_id, standing)| {
                unseen.certain.contains(&index.clients[*client_id].user_id)
                    && standing.due.is_some()
                    && standing.owed_from(chat).is_some_and(|from| from <= unseen.after)
            });
            if let Some((client_id, _)) = owed {
                let what = format!(
                    "version {} of chat {chat_id}, between seq {} and {}, came to nobody, nor to {}",
                    unseen.version,
                    unseen.after,
                    unseen.before,
                    index.device(*client_id)
                );
                let focus = Focus::of(*client_id, *chat_id, [unseen.after, unseen.before]);
                report.found(Kind::Missing, unseen.known, what, focus);
            }
        }
    }
}
