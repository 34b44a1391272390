//! Where data and installed servers go when nobody says otherwise, and whether another user can get there.

use std::fs::{Metadata, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use etcetera::base_strategy::{BaseStrategy as _, Xdg};

use crate::account::Account;

/// The name of our folders.
const NAME: &str = "tidings";

/// `tidings` in the user's data folder. Root gets `/var/lib/tidings` where the account of Postgres cannot enter
/// that folder: `/root` is closed to others on most systems.
pub fn default_data_dir() -> anyhow::Result<PathBuf> {
    choose(|dirs| dirs.data_dir().join(NAME), "/var/lib/tidings")
}

/// `tidings` in the user's cache folder, or `/var/cache/tidings`, by the rule of [`default_data_dir`].
pub fn default_cache_dir() -> anyhow::Result<PathBuf> {
    choose(|dirs| dirs.cache_dir().join(NAME), "/var/cache/tidings")
}

fn choose(of_user: impl Fn(&Xdg) -> PathBuf, of_system: &str) -> anyhow::Result<PathBuf> {
    let dir = Xdg::new().ok().map(|dirs| of_user(&dirs));
    match (Account::for_postgres()?, dir) {
        (None, dir) => dir.context("the user has no home folder: say where with --dir"),
        (Some(account), Some(dir)) if barrier(&dir, account).is_none() => Ok(dir),
        (Some(_), _) => Ok(PathBuf::from(of_system)),
    }
}

/// Refuses a place that the account of Postgres, if it is another than ours, may not reach. The last part of the
/// path is not looked at.
pub fn check_way_of_postgres(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    match Account::for_postgres()?.and_then(|account| barrier(parent, account)) {
        None => Ok(()),
        Some(folder) => bail!(
            "Postgres cannot run as root, and `nobody`, as whom it runs instead, may not enter {}: choose another \
             folder with --dir, or start as another user",
            folder.display()
        ),
    }
}

/// Lets the account of Postgres pass through `dir`, if it is another than ours: it may then open what it has the
/// name of, and see no names. What is secret in there must lie in files and folders that are closed themselves.
pub fn let_postgres_through(dir: &Path) -> anyhow::Result<()> {
    let Some(account) = Account::for_postgres()? else {
        return Ok(());
    };
    let metadata = std::fs::metadata(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    if may_enter(&metadata, account) {
        return Ok(());
    }
    std::fs::set_permissions(dir, Permissions::from_mode(metadata.mode() & 0o7777 | 0o011))
        .with_context(|| format!("cannot let the account of Postgres enter {}", dir.display()))
}

/// The outermost folder on the way to `path` that `account` may not enter. Folders that do not exist yet are made
/// by us, so that it may. Access control lists are not looked at.
pub(crate) fn barrier(path: &Path, account: Account) -> Option<PathBuf> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    ancestors
        .into_iter()
        .find(|folder| {
            std::fs::metadata(folder)
                .is_ok_and(|metadata| metadata.is_dir() && !may_enter(&metadata, account))
        })
        .map(Path::to_owned)
}

/// Whether the mode of a folder lets `account` pass through.
fn may_enter(metadata: &Metadata, account: Account) -> bool {
    let bit = if metadata.uid() == account.uid.as_raw() {
        0o100
    } else if metadata.gid() == account.gid.as_raw() {
        0o010
    } else {
        0o001
    };
    metadata.mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use nix::unistd::{Gid, Uid};

    use super::*;

    #[test]
    fn a_closed_folder_is_found() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).expect("the folder is writable");
        let open = |mode| std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode));
        open(0o755).expect("the folder is ours");
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700))
            .expect("the folder is ours");
        let stranger = Account {
            uid: Uid::from_raw(54_321),
            gid: Gid::from_raw(54_321),
        };
        assert_eq!(barrier(&closed.join("new/data"), stranger), Some(closed));
        assert_eq!(barrier(&folder.path().join("new/data"), stranger), None);
        open(0o700).expect("the folder is ours");
        assert_eq!(
            barrier(&folder.path().join("new/data"), stranger).as_deref(),
            Some(folder.path())
        );
    }
}
