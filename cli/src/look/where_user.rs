//! `tidings where`: where a user's inboxes are on the bus, and what is in them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tidings_nats::{Inbox, escape_user, inbox_stream, inbox_subject, lost_subject};
use tidings_protocol::{ClientId, Timestamp, UserId};

use super::clients::{self, Client};
use super::presence::Presence;
use super::{Look, LookArgs, TIMEOUT, run};
use crate::print;

/// Says where a user is on the bus: shard, subjects, durables, what is unconfirmed and since when, gateways.
///
/// A client's durable is its inbox: unprocessed + outstanding = unconfirmed, as in
/// `nats consumer info INBOX_<shard> <client>`. The inbox `first` keeps what was written to the user before a first
/// client registered; the client that inherits it reads both.
#[derive(Debug, clap::Args)]
pub(crate) struct WhereArgs {
    /// Who.
    user: UserId,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Serialize)]
struct Where {
    user_id: UserId,
    shard: u16,
    stream: String,
    suspended: bool,
    clients: Vec<ClientInbox>,
    /// What waits for the first client, or for the heir to confirm it.
    first: Stored,
    /// Subjects of clients that are not active any more, and marks of what is missing.
    others: Vec<Stored>,
}

/// A client and its inbox.
#[derive(Debug, Serialize)]
struct ClientInbox {
    #[serde(flatten)]
    client: Client,
    /// Its own subject and, of an heir, that of `first`.
    subjects: Vec<String>,
    /// Absent until the client first connects, or where inboxes have none.
    durable: Option<Durable>,
    /// What is stored on its subjects.
    unconfirmed: u64,
    oldest: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, Serialize)]
struct Durable {
    unprocessed: u64,
    outstanding: u64,
    unconfirmed: u64,
}

/// A subject and what it holds.
#[derive(Debug, Serialize)]
struct Stored {
    subject: String,
    unconfirmed: u64,
    oldest: Option<Timestamp>,
}

pub(crate) fn main(args: &WhereArgs) -> ExitCode {
    run(&args.look, async |look| find(look, &args.user).await, show)
}

async fn find(look: &Look, user: &UserId) -> anyhow::Result<Where> {
    let shard = look.topology.shard(user);
    let stream = inbox_stream(shard);
    let active = clients::find(look, user).await?;
    let filter = format!("inbox.{shard}.{}.>", escape_user(user));
    let mut subjects = look
        .bus
        .messages_by_subject(&stream, &filter, TIMEOUT)
        .await
        .with_context(|| format!("cannot read the stream {stream}"))?;
    let suspended = look.metadata.is_suspended(user).await?;
    if active.is_empty() && subjects.is_empty() && !suspended {
        let (chats, _) = look.metadata.list_chats(user, None, 1).await?;
        if chats.is_empty() {
            bail!("{user} has no active client, is in no chat, and nothing is stored for them");
        }
    }
    let first = inbox_subject(&look.topology, user, Inbox::First);
    let first = stored(look, &stream, first.clone(), subjects.remove(&first).unwrap_or(0)).await?;
    let mut clients = Vec::new();
    for client in active {
        clients.push(client_inbox(look, user, client, &first, &mut subjects).await?);
    }
    let mut others = Vec::new();
    for (subject, unconfirmed) in subjects {
        others.push(stored(look, &stream, subject, unconfirmed).await?);
    }
    Ok(Where {
        user_id: user.clone(),
        shard: shard.0,
        stream,
        suspended,
        clients,
        first,
        others,
    })
}

/// The inbox of a client; takes its subject out of `subjects`.
async fn client_inbox(
    look: &Look,
    user: &UserId,
    client: Client,
    first: &Stored,
    subjects: &mut BTreeMap<String, u64>,
) -> anyhow::Result<ClientInbox> {
    let subject = inbox_subject(&look.topology, user, Inbox::Client(client.id));
    let stream = inbox_stream(look.topology.shard(user));
    let own = stored(
        look,
        &stream,
        subject.clone(),
        subjects.remove(&subject).unwrap_or(0),
    )
    .await?;
    let durable = durable(look, user, client.id).await?;
    let inbox = if client.heir {
        ClientInbox {
            subjects: vec![own.subject, first.subject.clone()],
            unconfirmed: own.unconfirmed + first.unconfirmed,
            oldest: [own.oldest, first.oldest].into_iter().flatten().min(),
            durable,
            client,
        }
    } else {
        ClientInbox {
            subjects: vec![own.subject],
            unconfirmed: own.unconfirmed,
            oldest: own.oldest,
            durable,
            client,
        }
    };
    Ok(inbox)
}

async fn durable(look: &Look, user: &UserId, client: ClientId) -> anyhow::Result<Option<Durable>> {
    let shard = look.topology.shard(user);
    match look.bus.durable_info(shard, client, TIMEOUT).await {
        Ok(info) => Ok(Some(Durable {
            unprocessed: info.unprocessed,
            outstanding: info.outstanding,
            unconfirmed: info.unconfirmed(),
        })),
        Err(error) if error.not_found() => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the durable of {client}")),
    }
}

/// A subject that holds so many messages, with the age of the first of them.
async fn stored(look: &Look, stream: &str, subject: String, unconfirmed: u64) -> anyhow::Result<Stored> {
    let oldest = if unconfirmed == 0 {
        None
    } else {
        let first = look.bus.leader_next(stream, &subject, 1, TIMEOUT).await;
        let first = first.with_context(|| format!("cannot read the stream {stream}"))?;
        first.map(|first| first.stored_at)
    };
    Ok(Stored {
        subject,
        unconfirmed,
        oldest,
    })
}

fn show(look: &Look, found: &Where) -> String {
    let Where {
        user_id,
        stream,
        shard,
        ..
    } = found;
    let clients = print::count(found.clients.len() as u64, "active client", "active clients");
    let suspended = if found.suspended { ", suspended" } else { "" };
    let mut text = format!("{user_id}: shard {shard:02}, stream {stream}, {clients}{suspended}\n");
    for inbox in &found.clients {
        show_client(&mut text, look, inbox);
    }
    let heir = found.clients.iter().find(|inbox| inbox.client.heir);
    let whose = heir.map_or_else(
        || "for the first client that registers".to_owned(),
        |inbox| format!("read by {}", inbox.client.id),
    );
    let first = amount(look, found.first.unconfirmed, found.first.oldest);
    write!(
        text,
        "\ninbox first, {whose}\n  subject      {}\n  unconfirmed  {first}\n",
        found.first.subject
    )
    .expect("a String takes everything");
    for other in &found.others {
        let mark = found
            .clients
            .iter()
            .flat_map(|inbox| &inbox.subjects)
            .chain([&found.first.subject])
            .any(|subject| lost_subject(subject) == other.subject);
        let what = if mark {
            "a mark of what is missing from the inbox"
        } else {
            "of a client that is not active; it expires"
        };
        let amount = amount(look, other.unconfirmed, other.oldest);
        write!(text, "\n{}\n  {amount}: {what}\n", other.subject).expect("a String takes everything");
    }
    text
}

fn show_client(text: &mut String, look: &Look, inbox: &ClientInbox) {
    let client = &inbox.client;
    let durable = inbox.durable.map_or_else(
        || "none yet: it is made when the client connects".to_owned(),
        |durable| {
            format!(
                "{} unprocessed + {} outstanding",
                durable.unprocessed, durable.outstanding
            )
        },
    );
    write!(
        text,
        "\nclient {} \"{}\"\n  subject      {}\n  durable      {durable}\n  unconfirmed  {}\n  gateway      {}\n",
        client.id,
        print::name(client.name.as_deref()),
        inbox.subjects.join("\n               "),
        amount(look, inbox.unconfirmed, inbox.oldest),
        Presence::show(client.session.as_ref(), look),
    )
    .expect("a String takes everything");
}

/// `3, the oldest for 2m9s`.
fn amount(look: &Look, unconfirmed: u64, oldest: Option<Timestamp>) -> String {
    oldest.map_or_else(
        || unconfirmed.to_string(),
        |oldest| format!("{unconfirmed}, the oldest for {}", print::age(look.age(oldest))),
    )
}
