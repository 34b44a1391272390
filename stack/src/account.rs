//! The account that Postgres runs under: it refuses to run as root.

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User};

/// Who Postgres is when we are root.
const NOBODY: &str = "nobody";

/// A user and their first group.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

impl Account {
    /// `nobody` where we are root, else `None`: Postgres runs as who we are.
    pub(crate) fn for_postgres() -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        let user = User::from_name(NOBODY)
            .context("cannot read the list of users")?
            .with_context(|| format!("Postgres does not run as root, and there is no user `{NOBODY}`"))?;
        Ok(Some(Self {
            uid: user.uid,
            gid: user.gid,
        }))
    }
}
