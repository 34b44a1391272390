//! The keys of S3, which no log may have.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Who we are to S3. Hidden from `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
}

impl S3Keys {
    /// The keys of files that the environment names, as a mounted secret brings them. `None` where it names none.
    pub(crate) fn from_files() -> anyhow::Result<Option<Self>> {
        let file = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty());
        match (file("AWS_ACCESS_KEY_ID_FILE"), file("AWS_SECRET_ACCESS_KEY_FILE")) {
            (None, None) => Ok(None),
            (Some(id), Some(secret)) => Ok(Some(Self {
                access_key_id: line(Path::new(&id))?,
                secret_access_key: line(Path::new(&secret))?,
            })),
            _ => bail!("AWS_ACCESS_KEY_ID_FILE and AWS_SECRET_ACCESS_KEY_FILE must be given together"),
        }
    }
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The only line of a file.
fn line(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.contains('\n') {
        bail!("{} must hold exactly one line, the key", path.display());
    }
    Ok(text.to_owned())
}
