//! Which folder holds a system that `tidings up` runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The `--dir` of every command that starts, or looks into, a system of `tidings up`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DataDir {
    /// The folder of the system that `tidings up` runs. [default: tidings in the user's data folder]
    ///
    /// Its data, logs and `up.json` are there. Root, whose data folder others cannot enter, gets /var/lib/tidings,
    /// because Postgres does not run as root.
    #[arg(long = "dir", env = "TIDINGS_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DataDir {
    /// The folder as it was given, if it was.
    pub(crate) fn given(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The given folder, or the default one, as an absolute path. It need not exist.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => tidings_stack::default_data_dir()?,
        };
        std::path::absolute(&dir).with_context(|| format!("--dir {} is no path", dir.display()))
    }
}
