//! `tidings remove`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;
use tidings_metadata::{ClientRecord, ClientState};
use tidings_nats::{CloseReason, inbox_stream};
use tidings_protocol::{ClientId, UserId};

use super::ended::{self, Ended};
use super::tell;
use crate::confirm::confirm;
use crate::look::{Look, LookArgs, TIMEOUT, inbox, run};
use crate::print;

/// Removes a client for good: its connection, its inbox, its place among its user's.
///
/// As its user does with `removeClient`. The id is refused for ever, and what the client has not confirmed is deleted by an
/// inbox worker; the user's other clients are not concerned. Asks before it does it.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Which client.
    client: ClientId,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Serialize)]
struct Removed {
    user_id: UserId,
    name: Option<String>,
    /// False: it was removed before.
    changed: bool,
    /// Entries that it had not confirmed, as many as there were when it was removed now.
    unconfirmed: Option<u64>,
    #[serde(flatten)]
    ended: Ended,
}

pub(crate) fn main(args: &RemoveArgs) -> ExitCode {
    run(&args.look, async |look| remove(look, args).await, show)
}

async fn remove(look: &Look, args: &RemoveArgs) -> anyhow::Result<Removed> {
    let client_id = args.client;
    let Some(record) = look.metadata.client(client_id).await? else {
        bail!("no client {client_id} has ever registered");
    };
    let user = &record.user;
    let unconfirmed = match record.state {
        ClientState::Removed => None,
        ClientState::Active | ClientState::Idle => Some(unconfirmed(look, client_id, &record).await?),
    };
    if let (false, Some(unconfirmed)) = (args.yes, unconfirmed) {
        confirm(&question(client_id, &record, unconfirmed))?;
    }
    let stream = inbox_stream(look.topology.shard(user));
    let sequence = look
        .bus
        .last_sequence(&stream, TIMEOUT)
        .await
        .with_context(|| format!("cannot read the stream {stream}"))?;
    let changed = look
        .metadata
        .remove_client(user, client_id, Some(sequence))
        .await?;
    // Also when it was removed already: whoever removed it may have been interrupted.
    tell(look, user).await?;
    let ended = ended::end(look, &[client_id], CloseReason::Removed).await?;
    Ok(Removed {
        user_id: record.user,
        name: record.name,
        changed,
        unconfirmed,
        ended: ended
            .into_iter()
            .next()
            .context("the client that was asked for")?,
    })
}

/// How many entries wait for the client.
async fn unconfirmed(look: &Look, client_id: ClientId, record: &ClientRecord) -> anyhow::Result<u64> {
    let stream = inbox_stream(look.topology.shard(&record.user));
    let mut unconfirmed = 0;
    for subject in inbox::subjects(look, client_id, record) {
        let counts = look.bus.messages_by_subject(&stream, &subject, TIMEOUT).await;
        let counts = counts.with_context(|| format!("cannot read the stream {stream}"))?;
        unconfirmed += counts.get(&subject).copied().unwrap_or(0);
    }
    Ok(unconfirmed)
}

fn question(client_id: ClientId, record: &ClientRecord, unconfirmed: u64) -> String {
    format!(
        "remove client {client_id} ({}) of {} for good, with {} that it has not confirmed",
        print::name(record.name.as_deref()),
        record.user,
        print::count(unconfirmed, "entry", "entries"),
    )
}

fn show(look: &Look, removed: &Removed) -> String {
    let user = &removed.user_id;
    let what = match (removed.changed, removed.unconfirmed) {
        (true, Some(unconfirmed)) => {
            let entries = print::count(unconfirmed, "entry", "entries");
            format!("{user}: client removed, {entries} with it")
        }
        _ => format!("{user}: the client was removed already"),
    };
    format!("{what}\n{}", removed.ended.show(look))
}
