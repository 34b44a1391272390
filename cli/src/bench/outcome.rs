//! What became of everything that was sent in a run, and what is wrong with that.

use std::fmt::Write as _;

use serde::Serialize;

use super::crowd::Crowd;
use super::ledger::Tally;
use super::observed::{Load, read};

/// See the module.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// Of all messages, the warm-up's included.
    tally: Tally,
    lost_connections: u64,
    trimmed: u64,
    notices: u64,
    /// Messages that were sent again because the reply did not come through.
    sent_again: u64,
}

impl Outcome {
    /// Up to now.
    pub(crate) fn of(crowd: &Crowd, load: &Load) -> Self {
        let observed = &crowd.fleet.observed;
        Self {
            tally: load.ledger().tally(),
            lost_connections: observed.losses() as u64,
            trimmed: read(&observed.trimmed),
            notices: read(&observed.notices),
            sent_again: read(&observed.sent_again),
        }
    }

    /// So many deliveries are not missing: they wait for clients that were not to come back.
    pub(crate) fn left_waiting(&mut self, entries: u64) {
        self.tally.missing = self.tally.missing.saturating_sub(entries);
    }

    /// How many messages were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.tally.refused.values().sum()
    }

    /// Whether anything is wrong that no load excuses, or the limits of a user do not allow the load.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken().any(|(count, _)| count > 0) || self.tally.refused.contains_key("rate_limited")
    }

    fn broken(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let tally = &self.tally;
        [
            (tally.missing, "deliveries are missing"),
            (tally.duplicate, "deliveries came twice"),
            (tally.out_of_order, "deliveries came out of order"),
            (tally.wrong, "deliveries had a wrong text, chat or recipient"),
            (tally.unanswered, "messages were not answered"),
            (self.lost_connections, "connections were lost"),
            (self.trimmed, "inboxes lost entries"),
        ]
        .into_iter()
    }

    /// What is wrong, a sentence each.
    pub(crate) fn faults(&self) -> Vec<String> {
        let broken = self.broken().filter(|(count, _)| *count > 0);
        let mut faults: Vec<String> = broken.map(|(count, what)| format!("{count} {what}")).collect();
        for (code, count) in &self.tally.refused {
            let advice = match code.as_str() {
                "rate_limited" => ": start the system with `tidings up --rate-limits off`",
                _ => "",
            };
            faults.push(format!("{count} messages were refused with {code}{advice}"));
        }
        faults
    }

    /// For people.
    pub(crate) fn write_table(&self, out: &mut String) {
        let tally = &self.tally;
        let _ = writeln!(
            out,
            "messages       {} sent, {} accepted, {} refused, {} unanswered",
            tally.sent,
            tally.accepted,
            self.refused(),
            tally.unanswered
        );
        for (code, count) in &tally.refused {
            let _ = writeln!(out, "               {count} {code}");
        }
        let _ = writeln!(
            out,
            "deliveries     {} expected, {} received, {} missing, {} duplicate, {} out of order, {} wrong",
            tally.expected, tally.received, tally.missing, tally.duplicate, tally.out_of_order, tally.wrong
        );
        for (count, what) in [
            (
                tally.unaccepted,
                "deliveries of messages that were refused or not answered",
            ),
            (
                tally.redelivered,
                "deliveries again, as connections broke before they were confirmed or just after",
            ),
            (
                self.sent_again,
                "messages sent again, as connections broke before the reply",
            ),
            (self.lost_connections, "connections lost"),
            (self.trimmed, "times that an inbox lost entries"),
            (self.notices, "notices"),
        ] {
            if count > 0 {
                let _ = writeln!(out, "               {count} {what}");
            }
        }
    }
}
