//! What the judge says.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::Moment;

/// A promise that can be broken.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something that exists (it was accepted, or somebody saw it) never came to a client that it was for.
    Missing,
    /// A client had it, did not confirm it, came back, and it was not there.
    UnconfirmedGone,
    /// A connection showed a later event of a chat and only then, or not at all, an earlier one; or what one connection
    /// sent to one chat came to stand in another order.
    OrderBroken,
    /// One connection showed the same event twice.
    TwiceOnConnection,
    /// It came again although it had been confirmed long before, on a connection that lived on.
    ShownAfterConfirm,
    /// One message or request was done twice inside the window in which a retry is recognised.
    DoneTwice,
    /// It came to somebody who was not in the chat at its `seq`.
    NotAParticipant,
    /// It came to a client that had been told `you: removed`, and not `added` since.
    AfterRemoved,
    /// The sending client got a copy of its own message.
    OwnCopy,
    /// It came although it was never sent, or every attempt to send it was refused for good.
    Phantom,
    /// Two readers saw different things at one place, or a reader was told something untrue about itself.
    Disagreement,
    /// A client confirmed it, and it is still stored at the end.
    ConfirmedButStored,
    /// It is stored at the end for a client that is at rest and never saw it.
    StoredButUndelivered,
    /// A client was welcomed, or went on getting deliveries, after its removal was answered with SUCCESS.
    RemovedReturned,
    /// Deliveries of a connection are not numbered 1, 2, 3, …; `caughtUp` came twice; a request got two replies.
    ProtocolBroken,
    /// Somebody was told of an attachment and did not get it.
    FileMissing,
    /// An attachment came with other bytes than were announced.
    FileWrong,
    /// Somebody got an attachment who was in no chat when it was named there.
    FileShown,
    /// A client did not come to rest in time after all faults were over.
    NotAtRest,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "accepted but missing",
            Self::UnconfirmedGone => "unconfirmed but gone",
            Self::OrderBroken => "order broken",
            Self::TwiceOnConnection => "twice on one connection",
            Self::ShownAfterConfirm => "shown again after it was confirmed",
            Self::DoneTwice => "done twice inside the retry window",
            Self::NotAParticipant => "delivered to somebody who was not a participant",
            Self::AfterRemoved => "delivered after you:removed",
            Self::OwnCopy => "the sending client got a copy",
            Self::Phantom => "delivered but never accepted",
            Self::Disagreement => "readers do not agree",
            Self::ConfirmedButStored => "confirmed but still stored",
            Self::StoredButUndelivered => "stored but never delivered",
            Self::RemovedReturned => "a removed client lived on",
            Self::ProtocolBroken => "the protocol was broken",
            Self::FileMissing => "an attachment did not come",
            Self::FileWrong => "an attachment came with other bytes",
            Self::FileShown => "an attachment was shown to a stranger",
            Self::NotAtRest => "did not come to rest",
        })
    }
}

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub kind: Kind,
    /// When it shows.
    pub at: Moment,
    /// Who and what, in one line.
    pub what: String,
    /// What everybody did around it, a line each, in the order of time. A dozen at most.
    pub story: Vec<String>,
}

/// How much was judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Frames and other records.
    pub records: u64,
    /// Clients that were ever welcomed.
    pub clients: u64,
    /// Connections that were welcomed.
    pub connections: u64,
    /// Messages that were answered SUCCESS.
    pub accepted: u64,
    /// Messages that exist though no reply said so.
    pub revealed: u64,
    /// Changes of participants that are known.
    pub changes: u64,
    /// Deliveries that were seen, repeated ones included.
    pub deliveries: u64,
    /// Of these, such that the client had seen before on an earlier connection.
    pub redelivered: u64,
    /// Events that were owed to a client and came (an event counts for each of its clients).
    pub kept: u64,
    /// Second and later attempts to send.
    pub retries: u64,
    /// Messages whose outcome is unknown to the end, and which nobody saw.
    pub unknown: u64,
    /// Attachments that were asked for and came.
    pub fetched: u64,
    /// Faults that began.
    pub faults: u64,
}

/// What the judge says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In the order of time, up to [`Self::TOLD_MAX`] of each kind.
    pub violations: Vec<Violation>,
    /// How often each promise was broken.
    pub counts: BTreeMap<Kind, u64>,
    /// How much was judged.
    pub figures: Figures,
}

impl Verdict {
    /// How many violations of one kind are told: one cause breaks a promise for hundreds of clients, and the first
    /// few stories tell it.
    pub const TOLD_MAX: usize = 10;

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = &self.figures;
        writeln!(
            f,
            "judged: {} records of {} clients on {} connections; {} messages accepted, {} revealed, {} unknown, {} retries; \
             {} changes of participants; {} deliveries, {} of them repeated; {} promises kept; {} attachments fetched; {} faults",
            figures.records,
            figures.clients,
            figures.connections,
            figures.accepted,
            figures.revealed,
            figures.unknown,
            figures.retries,
            figures.changes,
            figures.deliveries,
            figures.redelivered,
            figures.kept,
            figures.fetched,
            figures.faults,
        )?;
        if self.is_clean() {
            return writeln!(f, "violations: 0");
        }
        writeln!(f, "violations: {}", self.counts.values().sum::<u64>())?;
        for (kind, count) in &self.counts {
            writeln!(f, "  {count} x {kind}")?;
        }
        for violation in &self.violations {
            writeln!(f, "\n[{}] {}: {}", violation.at, violation.kind, violation.what)?;
            for line in &violation.story {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}
