//! The folder with a seed for each NATS user. `users.conf` is made from what is there.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nkeys::KeyPair;
use tidings_nats::{NatsUser, Topology, users_conf};
use tidings_service::Secret;
use tidings_stack::write_private;

/// What servers include.
const CONFIGURATION: &str = "users.conf";

/// The file of a user's seed.
pub(crate) fn seed_file(folder: &Path, user: NatsUser) -> PathBuf {
    folder.join(format!("{}.nk", user.name()))
}

/// The file of the seed that a user had before, while both are good.
fn old_seed_file(folder: &Path, user: NatsUser) -> PathBuf {
    folder.join(format!("{}.old.nk", user.name()))
}

/// See the module.
pub(crate) struct UsersFolder(PathBuf);

impl UsersFolder {
    /// Makes the folder if it is not there, for its owner alone.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }

    /// Puts the user's seed aside, so that the user gets another.
    pub(crate) fn rotate(&self, user: NatsUser) -> anyhow::Result<()> {
        let (seed, old) = (seed_file(&self.0, user), old_seed_file(&self.0, user));
        if old.exists() {
            bail!(
                "{} is there: bring the rotation before this one to its end, which is to delete it and run this again",
                old.display()
            );
        }
        fs::rename(&seed, &old).with_context(|| format!("cannot rename {}", seed.display()))
    }

    /// Makes the seeds that are not there, and `users.conf`. Says what it has made.
    pub(crate) fn complete(&self) -> anyhow::Result<Vec<String>> {
        let mut changes = Vec::new();
        for user in NatsUser::ALL {
            let path = seed_file(&self.0, user);
            if !path.exists() {
                let seed = KeyPair::new_user().seed().context("a new key has a seed")?;
                write_private(&path, format!("{seed}\n").as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                changes.push(format!("{}: made", path.display()));
            }
        }
        let path = self.0.join(CONFIGURATION);
        let text = self.configuration()?;
        let before = match fs::read_to_string(&path) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        if before.as_deref() != Some(&text) {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            let how = if before.is_some() { "changed" } else { "made" };
            changes.push(format!("{}: {how}", path.display()));
        }
        Ok(changes)
    }

    /// What servers must know.
    pub(crate) fn configuration(&self) -> anyhow::Result<String> {
        let mut result = Ok(());
        let users = users_conf(&Topology::default(), |user| match self.public_keys(user) {
            Ok(keys) => keys,
            Err(error) => {
                result = Err(error);
                Vec::new()
            }
        });
        result?;
        Ok(format!(
            "# Made by `tidings nats-users` from the seeds beside it; public keys are no secrets.\n\n{users}"
        ))
    }

    fn public_keys(&self, user: NatsUser) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        for path in [seed_file(&self.0, user), old_seed_file(&self.0, user)] {
            if path.exists() {
                let seed = Secret::read(&path)?;
                let key = KeyPair::from_seed(seed.expose())
                    .map_err(|_| anyhow::anyhow!("{} is not the seed of an NKey", path.display()))?;
                keys.push(key.public_key());
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn key(folder: &Path, user: NatsUser) -> String {
        let seed = Secret::read(&seed_file(folder, user)).expect("the seed is there");
        KeyPair::from_seed(seed.expose())
            .expect("it is a seed")
            .public_key()
    }

    #[test]
    fn keys_are_made_once_for_their_owner_alone() {
        let temp = tempfile::tempdir().expect("the temporary folder is writable");
        let path = temp.path().join("users");
        let folder = UsersFolder::open(&path).expect("the folder can be made");
        let made = folder.complete().expect("the folder is writable");
        assert_eq!(made.len(), NatsUser::ALL.len() + 1, "{made:?}");
        assert!(folder.complete().expect("the folder is writable").is_empty());
        let conf = fs::read_to_string(path.join(CONFIGURATION)).expect("it was made");
        for user in NatsUser::ALL {
            let file = fs::metadata(seed_file(&path, user)).expect("it was made");
            assert_eq!(file.mode() & 0o777, 0o600);
            let seed = fs::read_to_string(seed_file(&path, user)).expect("it was made");
            assert!(seed.starts_with("SU") && !conf.contains(seed.trim()));
            assert_eq!(conf.matches(&key(&path, user)).count(), 1, "{}", user.name());
        }
    }

    #[test]
    fn a_new_key_is_good_beside_the_old_one_until_that_is_deleted() {
        let temp = tempfile::tempdir().expect("the temporary folder is writable");
        let folder = UsersFolder::open(temp.path()).expect("the folder is there");
        folder.complete().expect("the folder is writable");
        let old = key(temp.path(), NatsUser::Gateway);
        folder.rotate(NatsUser::Gateway).expect("there is a key");
        assert_eq!(folder.complete().expect("the folder is writable").len(), 2);
        let new = key(temp.path(), NatsUser::Gateway);
        assert_ne!(old, new);
        let conf = folder.configuration().expect("the seeds are good");
        assert!(conf.contains(&old) && conf.contains(&new));
        let error = folder.rotate(NatsUser::Gateway).expect_err("one at a time");
        assert!(error.to_string().contains("gateway.old.nk"), "{error}");
        fs::remove_file(old_seed_file(temp.path(), NatsUser::Gateway)).expect("it is there");
        assert_eq!(folder.complete().expect("the folder is writable").len(), 1);
        let conf = folder.configuration().expect("the seeds are good");
        assert!(!conf.contains(&old) && conf.contains(&new));
    }
}
