//! Looks at what was still stored when everything was at rest.

use std::collections::{BTreeMap, HashMap};

use tidings_protocol::ClientId;

use super::index::Index;
use super::reader::Reader;
use super::report::{Focus, Report};
use super::standing::Standing;
use super::verdict::Kind;
use crate::history::Moment;

/// Looks at every stored entry.
pub(super) fn check_stored(
    index: &Index<'_>,
    standings: &BTreeMap<ClientId, Standing>,
    readers: &BTreeMap<ClientId, Reader<'_>>,
    report: &mut Report,
) {
    let Some(stored) = &index.run.stored else {
        return;
    };
    let end = index
        .run
        .records
        .last()
        .map_or(Moment::default(), |record| record.at);
    let heirs: HashMap<_, _> = standings
        .iter()
        .filter(|(_, standing)| standing.first)
        .map(|(client_id, _)| (&index.clients[client_id].user_id, *client_id))
        .collect();
    for entry in stored {
        let owner = entry
            .client_id
            .or_else(|| heirs.get(&entry.user_id).copied())
            .filter(|owner| {
                standings
                    .get(owner)
                    .is_some_and(|standing| standing.due.is_some())
            });
        // Nobody to confirm it: never connected, removed, or not at rest, which is told as that.
        let Some(owner) = owner else { continue };
        let (shown, confirmed) = readers[&owner].fate(entry.chat_id, entry.seq);
        let kind = if confirmed {
            Kind::ConfirmedButStored
        } else {
            Kind::StoredButUndelivered
        };
        let what = format!(
            "sequence {} in the inbox of {}{}: seq {} of chat {}{}",
            entry.sequence,
            index.device(owner),
            if entry.client_id.is_none() {
                " (under `first`)"
            } else {
                ""
            },
            entry.seq,
            entry.chat_id,
            if shown { "" } else { ", never delivered" },
        );
        report.found(kind, end, what, Focus::of(owner, entry.chat_id, [entry.seq]));
    }
}
