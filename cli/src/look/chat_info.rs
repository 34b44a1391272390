//! `tidings chat-info`: a chat, who is in it, and what of it is still on its way.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tidings_metadata::OutboxKey;
use tidings_nats::{CHATS, chat_subject, fanout_consumer};
use tidings_protocol::{ChatId, ChatKind, Role, Timestamp, UserId};

use super::{Look, LookArgs, TIMEOUT, run};
use crate::print;

/// Says what a chat is, who is in it, and what of it is still on its way.
///
/// Waiting are events that were accepted and are not in every inbox yet, and changes of its participants that
/// Postgres has and the bus has not. Both are gone within moments unless something is down.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatInfoArgs {
    /// Which.
    chat: ChatId,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Serialize)]
struct ChatInfo {
    chat_id: ChatId,
    kind: ChatKind,
    name: Option<String>,
    /// Counts the changes of its participants.
    version: u64,
    /// Whether everybody has left.
    closed: bool,
    participants: Vec<Participant>,
    subject: String,
    partition: u16,
    /// The consumer that reads the partition, and what it has yet to do for all of the partition's chats.
    consumer: String,
    partition_unprocessed: u64,
    partition_outstanding: u64,
    /// This chat's events in CHATS.
    events_waiting: u64,
    oldest_waiting: Option<Timestamp>,
    /// Changes of this chat that are not published yet.
    outbox_unsent: u64,
}

#[derive(Debug, Serialize)]
struct Participant {
    user_id: UserId,
    role: Role,
    /// How many active clients they have. With none, what is sent waits for their first one.
    clients: usize,
}

pub(crate) fn main(args: &ChatInfoArgs) -> ExitCode {
    run(&args.look, async |look| find(look, args.chat).await, show)
}

async fn find(look: &Look, chat_id: ChatId) -> anyhow::Result<ChatInfo> {
    let Some(record) = look.metadata.chat(chat_id).await? else {
        bail!("there is no chat {chat_id}");
    };
    let chat = record.chat;
    let users: Vec<UserId> = chat
        .participants
        .iter()
        .map(|participant| participant.user_id.clone())
        .collect();
    let clients = look.metadata.active_clients(&users).await?;
    let participants = chat.participants.into_iter().map(|participant| Participant {
        clients: clients.get(&participant.user_id).map_or(0, Vec::len),
        user_id: participant.user_id,
        role: participant.role,
    });

    let partition = look.topology.partition(chat_id);
    let subject = chat_subject(partition, chat_id);
    let consumer = fanout_consumer(partition);
    let read = || format!("cannot read the stream {CHATS}");
    let waiting = look.bus.messages_by_subject(CHATS, &subject, TIMEOUT).await;
    let events_waiting = waiting.with_context(read)?.get(&subject).copied().unwrap_or(0);
    let oldest = look.bus.leader_next(CHATS, &subject, 1, TIMEOUT).await;
    let oldest_waiting = oldest.with_context(read)?.map(|event| event.stored_at);
    let lag = look.bus.partition_consumer(partition, TIMEOUT).await;
    let lag = lag.with_context(|| format!("cannot read the consumer {consumer}"))?;
    Ok(ChatInfo {
        chat_id,
        kind: chat.kind,
        name: chat.name,
        version: chat.version,
        closed: record.closed,
        participants: participants.collect(),
        outbox_unsent: look.metadata.unsent_rows(&OutboxKey::Chat(chat_id)).await?,
        subject,
        partition: partition.0,
        consumer,
        partition_unprocessed: lag.unprocessed,
        partition_outstanding: lag.outstanding,
        events_waiting,
        oldest_waiting,
    })
}

fn show(look: &Look, chat: &ChatInfo) -> String {
    let kind = match chat.kind {
        ChatKind::Direct => "direct".to_owned(),
        ChatKind::Group => format!("group \"{}\"", print::name(chat.name.as_deref())),
    };
    let closed = if chat.closed {
        ", closed: everybody has left"
    } else {
        ""
    };
    let people = print::count(chat.participants.len() as u64, "participant", "participants");
    let oldest = chat.oldest_waiting.map_or_else(String::new, |oldest| {
        format!(", the oldest for {}", print::age(look.age(oldest)))
    });
    let mut text = format!(
        "chat {}, {kind}, version {}, {people}{closed}\n  subject    {}\n  partition  {:02}, read by CHATS/{}: \
         {} unprocessed + {} outstanding, of all its chats\n  waiting    {} in CHATS{oldest}\n  \
         outbox     {} unsent\n",
        chat.chat_id,
        chat.version,
        chat.subject,
        chat.partition,
        chat.consumer,
        chat.partition_unprocessed,
        chat.partition_outstanding,
        print::count(chat.events_waiting, "event", "events"),
        print::count(chat.outbox_unsent, "change", "changes"),
    );
    if !chat.participants.is_empty() {
        let rows: Vec<Vec<String>> = chat.participants.iter().map(row).collect();
        text += &print::table(&["PARTICIPANT", "ROLE", ">CLIENTS", ""], &rows);
    }
    text
}

fn row(participant: &Participant) -> Vec<String> {
    let role = match participant.role {
        Role::Admin => "admin",
        Role::Member => "member",
    };
    let note = if participant.clients == 0 {
        "not yet connected: what is sent waits in `first`"
    } else {
        ""
    };
    vec![
        participant.user_id.to_string(),
        role.to_owned(),
        participant.clients.to_string(),
        note.to_owned(),
    ]
}
