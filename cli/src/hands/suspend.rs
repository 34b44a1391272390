//! `tidings suspend` and `tidings resume`.

use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;
use tidings_metadata::SuspendError;
use tidings_nats::CloseReason;
use tidings_protocol::{ClientId, UserId};

use super::ended::{self, Ended};
use super::tell;
use crate::look::{Look, LookArgs, run};

/// Locks a user out, until `tidings resume`.
///
/// Every connection is closed with 4403 `suspended`, and gateways and media refuse the user from then on. The user stays in
/// their chats, and their inboxes keep what others write, as those of somebody who is away: for 30 days, 20,000 entries.
/// Uploads and downloads under way come to their end.
#[derive(Debug, clap::Args)]
pub(crate) struct SuspendArgs {
    /// Who.
    user: UserId,
    #[command(flatten)]
    look: LookArgs,
}

/// Lets a suspended user in again.
///
/// Their clients get what has waited for them when they connect. Most were told that coming back is of no use, and do so
/// when their user opens the app again.
#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    /// Who.
    user: UserId,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Debug, Serialize)]
struct Standing {
    user_id: UserId,
    suspended: bool,
    /// False: it was so before.
    changed: bool,
    /// Whether somebody of this name has connected or is in a chat.
    known: bool,
    clients: Vec<Ended>,
}

pub(crate) fn suspend(args: &SuspendArgs) -> ExitCode {
    run(
        &args.look,
        async |look| {
            let user = &args.user;
            let changed = look.metadata.suspend_user(user).await?;
            // Also when it was so already: whoever suspended the user may have been interrupted.
            tell(look, user).await?;
            let clients = look.metadata.clients_of(user).await?;
            let clients: Vec<ClientId> = clients.iter().map(|client| client.client_id).collect();
            Ok(Standing {
                user_id: user.clone(),
                suspended: true,
                changed,
                known: !clients.is_empty() || is_in_a_chat(look, user).await?,
                clients: ended::end(look, &clients, CloseReason::Suspended).await?,
            })
        },
        show,
    )
}

pub(crate) fn resume(args: &ResumeArgs) -> ExitCode {
    run(
        &args.look,
        async |look| {
            let user = &args.user;
            let changed = match look.metadata.resume_user(user).await {
                Ok(changed) => changed,
                Err(SuspendError::NotFound) => bail!("{user} has never connected and was never suspended"),
                Err(SuspendError::Database(error)) => return Err(error.into()),
            };
            tell(look, user).await?;
            Ok(Standing {
                user_id: user.clone(),
                suspended: false,
                changed,
                known: true,
                clients: Vec::new(),
            })
        },
        show,
    )
}

async fn is_in_a_chat(look: &Look, user: &UserId) -> anyhow::Result<bool> {
    let (chats, _) = look.metadata.list_chats(user, None, 1).await?;
    Ok(!chats.is_empty())
}

fn show(look: &Look, standing: &Standing) -> String {
    let user = &standing.user_id;
    let what = match (standing.suspended, standing.changed) {
        (true, true) => "suspended",
        (true, false) => "was suspended already",
        (false, true) => "not suspended any more",
        (false, false) => "was not suspended",
    };
    match (standing.suspended, standing.known) {
        (false, _) => format!("{user}: {what}\n"),
        (true, true) => format!("{user}: {what}, {}", ended::show(look, &standing.clients)),
        (true, false) => format!("{user}: {what}; nobody of this name has connected or is in a chat\n"),
    }
}
