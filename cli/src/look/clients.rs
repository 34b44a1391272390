//! `tidings clients`: the active clients of a user, and where they are.

use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use tidings_protocol::{ClientId, Timestamp, UserId};

use super::presence::{Gateways, Presence};
use super::{Look, LookArgs, run};
use crate::print;

/// Lists the active clients of a user: name, where connected, when last seen.
///
/// A user has at most three. "inherits" marks the one that also gets what was written before the user's first
/// client registered.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientsArgs {
    /// Whose.
    user: UserId,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Serialize)]
struct Clients {
    user_id: UserId,
    clients: Vec<Client>,
}

/// An active client.
#[derive(Debug, Serialize)]
pub(crate) struct Client {
    #[serde(rename = "client_id")]
    pub(crate) id: ClientId,
    pub(crate) name: Option<String>,
    /// Whether it reads the user's `first` inbox too.
    pub(crate) heir: bool,
    pub(crate) registered_at: Timestamp,
    pub(crate) last_seen: Timestamp,
    pub(crate) online: bool,
    pub(crate) session: Option<Presence>,
}

pub(crate) fn main(args: &ClientsArgs) -> ExitCode {
    run(
        &args.look,
        async |look| {
            let clients = find(look, &args.user).await?;
            if clients.is_empty() {
                bail!("{} has no active client", args.user);
            }
            Ok(Clients {
                user_id: args.user.clone(),
                clients,
            })
        },
        show,
    )
}

/// The active clients of a user, the oldest registration first.
pub(crate) async fn find(look: &Look, user: &UserId) -> anyhow::Result<Vec<Client>> {
    let active = look.metadata.clients_of(user).await?;
    let gateways = Gateways::read(look).await?;
    let mut clients = Vec::new();
    for info in active {
        // Gone only if its row was deleted by hand in between.
        let Some(record) = look.metadata.client(info.client_id).await? else {
            continue;
        };
        let session = gateways.presence(look, info.client_id).await?;
        clients.push(Client {
            id: info.client_id,
            name: record.name,
            heir: record.heir,
            registered_at: record.registered_at,
            last_seen: record.last_seen_at,
            online: session.as_ref().is_some_and(|session| session.alive),
            session,
        });
    }
    Ok(clients)
}

fn show(look: &Look, found: &Clients) -> String {
    let rows: Vec<Vec<String>> = found
        .clients
        .iter()
        .map(|client| {
            vec![
                client.id.to_string(),
                print::name(client.name.as_deref()),
                (if client.heir { "yes" } else { "no" }).to_owned(),
                print::age(look.age(client.registered_at)) + " ago",
                print::age(look.age(client.last_seen)) + " ago",
                Presence::show(client.session.as_ref(), look),
            ]
        })
        .collect();
    let titles = [
        "CLIENT",
        "NAME",
        "INHERITS",
        ">REGISTERED",
        ">LAST SEEN",
        "GATEWAY",
    ];
    print::table(&titles, &rows)
}
