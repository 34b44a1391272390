//! Where a device keeps what it knows.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tidings_protocol::UserId;

/// The files of one device.
pub(crate) struct Files {
    /// What the client library remembers.
    pub(crate) store: PathBuf,
    /// What was said.
    pub(crate) history: PathBuf,
}

impl Files {
    /// Makes their folder, for its owner alone.
    pub(crate) fn prepare(dir: &Path, user: &UserId, device: &str) -> anyhow::Result<Self> {
        let folder = dir.join("chat");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let name = format!("{}-{}", escaped(user.as_str()), escaped(device));
        Ok(Self {
            store: folder.join(format!("{name}.redb")),
            history: folder.join(format!("{name}.history.redb")),
        })
    }
}

/// Ids of login services and names of devices have characters that file names must not have. Also `-` and
/// `.` are escaped, so that no two pairs share a name.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut name, byte| {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'@' {
            name.push(byte.into());
        } else {
            write!(name, "={byte:02X}").expect("a String takes everything");
        }
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_folder_or_meets_another() {
        assert_eq!(escaped("alice"), "alice");
        assert_eq!(escaped("../x"), "=2E=2E=2Fx");
        assert_eq!(escaped("auth0|5f"), "auth0=7C5f");
        assert_eq!(escaped("a-b"), "a=2Db");
        assert_eq!(escaped("ë"), "=C3=AB");
    }
}
