//! `tidings explain`: where a message is, and what became of it for each client. Never what was said.
//!
//! Nothing keeps a history of messages, so this puts together what is there: the event while it is in CHATS, the id that
//! CHATS remembers for ten minutes, the entries in inboxes, the marks of what is missing, and who was in the chat. What
//! follows from that and what does not is decided in [`fate`].

mod fate;
mod inboxes;
mod recipients;
mod show;
mod traces;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tidings_metadata::ParticipantsAt;
use tidings_nats::{CHATS, Event, InboxEntry, Message, chat_subject};
use tidings_protocol::{ChatId, ClientId, MessageId, Timestamp, UserId};

use self::inboxes::{Search, UserInboxes};
use self::recipients::Recipient;
use self::traces::{DeadLetter, Progress};
use super::{Look, LookArgs, TIMEOUT, run};

/// The system does not delete by clocks that differ by more from Postgres' (adr/0008), so this is what they are taken for.
const CLOCKS_DIFFER: i64 = 60_000;
/// A client's clock may be wrong by more than that; then inboxes are searched from their beginning.
const HINT_BEFORE: i64 = 10 * 60_000;
/// For how long CHATS remembers the ids of what has left it.
const REMEMBERED: i64 = 10 * 60_000;

/// Tells where a message is: accepted when, fanned out or not, and for each client stored, confirmed, refused or
/// never for it.
///
/// Never what was said. A message that every client has confirmed leaves nothing behind, so of an old one there may be
/// no trace: what can be known is told, and what cannot is called that.
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// In which chat.
    chat: ChatId,
    /// The id that the sending client gave it.
    #[arg(value_name = "MESSAGE_ID")]
    message: MessageId,
    /// The sending client, where several use the same id, or where it is not active any more.
    #[arg(long)]
    client: Option<ClientId>,
    #[command(flatten)]
    look: LookArgs,
}

/// What is asked for.
#[derive(Copy, Clone, Debug)]
struct Wanted {
    chat: ChatId,
    message: MessageId,
    sender: Option<ClientId>,
}

/// What is known of the message, from whatever knows it.
#[derive(Clone, Debug, Default, Serialize)]
struct Known {
    /// Its place in CHATS, also when it has left that.
    seq: Option<u64>,
    from: Option<UserId>,
    client_id: Option<ClientId>,
    /// When the gateway accepted it, by its clock.
    sent_at: Option<Timestamp>,
    /// When CHATS stored it, as long as it is there.
    accepted_at: Option<Timestamp>,
}

/// How far it is on its way into the inboxes.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum FanOut {
    /// In CHATS; no worker was given it.
    Waiting(Progress),
    /// In CHATS; a worker was given it, and some inboxes may have it.
    Working(Progress),
    /// It has left CHATS: each inbox has it, had it, or is marked. When it was stored last where it is still stored.
    Done {
        stored_last: Option<Timestamp>,
    },
    /// It was given up.
    DeadLetter(DeadLetter),
    NoTrace,
}

#[derive(Debug, Serialize)]
struct Explained {
    chat_id: ChatId,
    message_id: MessageId,
    #[serde(flatten)]
    known: Known,
    partition: u16,
    /// The consumer that reads the partition.
    consumer: String,
    fan_out: FanOut,
    /// Whether the recipients are those of the message's place in the chat. Else that is not kept any more, and they are
    /// the chat's participants of now.
    as_of_then: bool,
    recipients: Vec<Recipient>,
}

pub(crate) fn main(args: &ExplainArgs) -> ExitCode {
    let wanted = Wanted {
        chat: args.chat,
        message: args.message,
        sender: args.client,
    };
    run(&args.look, async |look| find(look, &wanted).await, show::show)
}

async fn find(look: &Look, wanted: &Wanted) -> anyhow::Result<Explained> {
    let chat_id = wanted.chat;
    let Some(record) = look.metadata.chat(chat_id).await? else {
        bail!("there is no chat {chat_id}");
    };
    let now_in_it: Vec<UserId> = record
        .chat
        .participants
        .into_iter()
        .map(|participant| participant.user_id)
        .collect();
    let partition = look.topology.partition(chat_id);
    let subject = chat_subject(partition, chat_id);

    // First CHATS and then the inboxes: what leaves CHATS meanwhile is in them.
    let mut known = Known::default();
    let mut progress = traces::in_chats(look, partition, &subject, wanted, &mut known).await?;
    let mut letter = match progress {
        Some(_) => None,
        None => traces::letter(look, &subject, wanted, &mut known).await?,
    };
    if progress.is_none() && letter.is_none() {
        traces::remembered(look, &subject, wanted, &now_in_it, &mut known).await?;
    }
    let (then, inboxes) = search(look, wanted, &now_in_it, &mut known).await?;
    if let (Some(_), Some(seq)) = (&progress, known.seq) {
        let still = look.bus.message_now(CHATS, seq, TIMEOUT).await;
        let still = still.with_context(|| format!("cannot read the stream {CHATS}"))?;
        if still.is_none() {
            progress = None;
            letter = traces::letter(look, &subject, wanted, &mut known).await?;
        }
    }
    let fan_out = match (progress, letter) {
        (Some(progress), _) if progress.given => FanOut::Working(progress),
        (Some(progress), _) => FanOut::Waiting(progress),
        (None, Some(letter)) => FanOut::DeadLetter(letter),
        (None, None) if known.seq.is_some() => FanOut::Done {
            stored_last: inboxes.values().filter_map(UserInboxes::stored_last).max(),
        },
        (None, None) => FanOut::NoTrace,
    };
    let as_of_then = then.is_some();
    let users = then.unwrap_or_else(|| now_in_it.clone());
    let recipients = recipients::find(look, wanted, &known, &fan_out, &users, &now_in_it, &inboxes).await?;
    Ok(Explained {
        chat_id,
        message_id: wanted.message,
        known,
        partition: partition.0,
        consumer: tidings_nats::fanout_consumer(partition),
        fan_out,
        as_of_then,
        recipients,
    })
}

/// Who was in the chat when the message got its place, where that is known; and what the inboxes have of it.
async fn search(
    look: &Look,
    wanted: &Wanted,
    now_in_it: &[UserId],
    known: &mut Known,
) -> anyhow::Result<(Option<Vec<UserId>>, BTreeMap<UserId, UserInboxes>)> {
    let mut budget = inboxes::ENTRIES_MAX;
    let hint = hint(look, wanted.message);
    let mut from = known.stored_after(look).or(hint);
    loop {
        let before = known.seq;
        let then = match before {
            Some(seq) => participants(look, wanted.chat, seq).await?,
            None => None,
        };
        let users = then.clone().unwrap_or_else(|| now_in_it.to_vec());
        let mut found = BTreeMap::new();
        for user in users {
            let inboxes = inboxes::search(look, &user, wanted, from, known, &mut budget).await?;
            found.insert(user, inboxes);
            if known.seq != before {
                break;
            }
        }
        match (known.seq, from) {
            // Found in an inbox: from here on it is known where to look, and who was in the chat.
            (seq, _) if seq != before => from = known.stored_after(look),
            // The hint was wrong, perhaps.
            (None, Some(_)) => from = None,
            _ => return Ok((then, found)),
        }
    }
}

/// Who was in the chat at a sequence; None where that is not kept any more.
async fn participants(look: &Look, chat_id: ChatId, seq: u64) -> anyhow::Result<Option<Vec<UserId>>> {
    let at = look.metadata.published_participants_at(chat_id, seq).await?;
    Ok(match at {
        ParticipantsAt::Known(change) => {
            let users = change.participants.into_iter();
            Some(users.map(|participant| participant.user_id).collect())
        }
        ParticipantsAt::Unsent | ParticipantsAt::Unknown => None,
    })
}

/// Before what the message's id says, if it is of the kind that says when it was made, and says what can be.
fn hint(look: &Look, message_id: MessageId) -> Option<Timestamp> {
    let (seconds, nanos) = message_id.0.get_timestamp()?.to_unix();
    let made = i64::try_from(seconds).ok()?.checked_mul(1000)? + i64::from(nanos / 1_000_000);
    (made > 0 && made <= look.now.0 + HINT_BEFORE).then_some(Timestamp(made - HINT_BEFORE))
}

impl Wanted {
    fn is(&self, event: &Event) -> bool {
        matches!(event, Event::Message(message)
            if message.chat_id == self.chat
                && message.message_id == self.message
                && self.sender.is_none_or(|sender| sender == message.client_id))
    }

    fn is_entry(&self, entry: &InboxEntry) -> bool {
        entry.chat_id() == self.chat
            && entry.message().is_some_and(|message| {
                message.message_id == self.message
                    && self.sender.is_none_or(|sender| sender == message.client_id)
            })
    }
}

impl Known {
    fn learn(&mut self, seq: u64, message: &Message) {
        self.seq = Some(seq);
        self.from = Some(message.user_id.clone());
        self.client_id = Some(message.client_id);
        self.sent_at = Some(message.sent_at);
    }

    fn learn_entry(&mut self, entry: &InboxEntry) {
        self.seq = Some(entry.seq());
        self.from = Some(entry.from().clone());
        self.client_id = entry.message().map(|message| message.client_id);
        self.sent_at = Some(entry.at());
    }

    /// From when to when it may have been accepted.
    fn accepted(&self, look: &Look) -> (Timestamp, Timestamp) {
        match self.sent_at.or(self.accepted_at) {
            Some(at) => (at, at),
            // Only its id is remembered.
            None => (Timestamp(look.now.0 - REMEMBERED), look.now),
        }
    }

    /// A moment before any inbox stored it, if it is known at all.
    fn stored_after(&self, look: &Look) -> Option<Timestamp> {
        self.seq?;
        Some(Timestamp(self.accepted(look).0.0 - CLOCKS_DIFFER))
    }
}

impl UserInboxes {
    /// When it was stored last, where it is still stored.
    fn stored_last(&self) -> Option<Timestamp> {
        let stored = self.found.values().filter_map(|search| match search {
            Search::Found { stored_at, .. } => Some(*stored_at),
            Search::NotThere | Search::NotKnown(_) => None,
        });
        stored.max()
    }
}
