//! A setting that must not be read by whoever reads a log: a password, a key, a URL that carries one.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};

/// A text that prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be handed to what needs it and to nothing that prints.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The first line of a file, without the end of the line: what an editor or a mounted Kubernetes secret
    /// leaves there. A second line is an error, since it would be a wrong file more often than a long secret.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() || text.contains('\n') {
            bail!("{} must hold exactly one line, the secret", path.display());
        }
        Ok(Self(text.to_owned()))
    }

    /// The setting `name`, given as itself or as a file, but not both. `None` where it is not given at all.
    pub fn given(name: &str, text: Option<&Self>, file: Option<&Path>) -> anyhow::Result<Option<Self>> {
        match (text, file) {
            (Some(_), Some(_)) => bail!("--{name} and --{name}-file are both set: give one of them"),
            (Some(text), None) => Ok(Some(text.clone())),
            (None, Some(file)) => Self::read(file)
                .map(Some)
                .with_context(|| format!("--{name}-file")),
            (None, None) => Ok(None),
        }
    }
}

impl FromStr for Secret {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some([redacted])");
    }

    #[test]
    fn a_file_is_one_line() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("secret");
        for (text, secret) in [
            ("hunter2\n", Some("hunter2")),
            ("a b\r\n", Some("a b")),
            ("", None),
            ("a\nb\n", None),
        ] {
            std::fs::write(&path, text).expect("the folder is writable");
            let read = Secret::read(&path);
            assert_eq!(read.as_ref().ok().map(Secret::expose), secret, "{text:?}");
            assert!(
                read.err()
                    .is_none_or(|error| error.to_string().contains("one line"))
            );
        }
    }

    #[test]
    fn text_and_file_at_once_are_refused() {
        let error = Secret::given("jwt-secret", Some(&Secret::new("x")), Some(Path::new("/nowhere")));
        assert_eq!(
            error.expect_err("both are given").to_string(),
            "--jwt-secret and --jwt-secret-file are both set: give one of them"
        );
        let error = Secret::given("jwt-secret", None, Some(Path::new("/nowhere")));
        assert_eq!(
            format!("{:#}", error.expect_err("the file is missing")),
            "--jwt-secret-file: cannot read /nowhere: No such file or directory (os error 2)"
        );
    }
}
