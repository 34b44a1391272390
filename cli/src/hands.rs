//! Commands that act on users and clients. Each can be given again: what is done already is said to be, and what was
//! interrupted is brought to its end.

mod ended;
mod kick;
mod remove;
mod suspend;

use anyhow::Context as _;
use tidings_metadata::OutboxKey;
use tidings_protocol::UserId;
use tidings_service::outbox;

use crate::look::Look;

pub(crate) use kick::{KickArgs, main as kick};
pub(crate) use remove::{RemoveArgs, main as remove};
pub(crate) use suspend::{ResumeArgs, SuspendArgs, resume, suspend};

/// Tells every gateway and worker that a user's clients have changed.
async fn tell(look: &Look, user: &UserId) -> anyhow::Result<()> {
    let key = OutboxKey::User(user.clone());
    outbox::flush(&look.metadata, &look.bus, &look.topology, key)
        .await
        .context(
            "Postgres has it, but gateways and workers are not told yet; an inbox worker does, or this command again",
        )?;
    Ok(())
}
