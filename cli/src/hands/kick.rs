//! `tidings kick`.

use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use tidings_nats::CloseReason;
use tidings_protocol::{ClientId, UserId};

use super::ended::{self, Ended};
use crate::look::{Look, LookArgs, run};

/// Closes the connection of a client, or those of a user. They come back.
///
/// What the client has asked for before is answered; then its gateway closes the socket with 1012, as one that stops does,
/// and the client connects again within seconds, where the load balancer sends it. Nothing is lost. Returns when the
/// connections are closed.
#[derive(Debug, clap::Args)]
pub(crate) struct KickArgs {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Which client.
    #[arg(value_name = "CLIENT")]
    client: Option<ClientId>,
    /// All clients of this user.
    #[arg(long)]
    user: Option<UserId>,
}

#[derive(Debug, Serialize)]
struct Kicked {
    user_id: UserId,
    clients: Vec<Ended>,
}

pub(crate) fn main(args: &KickArgs) -> ExitCode {
    run(&args.look, async |look| kick(look, args).await, show)
}

async fn kick(look: &Look, args: &KickArgs) -> anyhow::Result<Kicked> {
    let (user_id, clients) = match (&args.whom.client, &args.whom.user) {
        (Some(client), _) => match look.metadata.client(*client).await? {
            Some(record) => (record.user, vec![*client]),
            None => bail!("no client {client} has ever registered"),
        },
        (None, Some(user)) => {
            let clients = look.metadata.clients_of(user).await?;
            let clients: Vec<ClientId> = clients.iter().map(|client| client.client_id).collect();
            if clients.is_empty() {
                bail!("{user} has no active client");
            }
            (user.clone(), clients)
        }
        (None, None) => bail!("CLIENT or --user says whom"),
    };
    let clients = ended::end(look, &clients, CloseReason::Kicked).await?;
    Ok(Kicked { user_id, clients })
}

fn show(look: &Look, kicked: &Kicked) -> String {
    format!("{}: {}", kicked.user_id, ended::show(look, &kicked.clients))
}
