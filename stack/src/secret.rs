//! Passwords that we make, and files for their owner alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rand::RngExt as _;
use rand::distr::Alphanumeric;

/// 40 letters and digits are 238 bits.
const LENGTH: usize = 40;

/// A new password. It begins with a letter, because nats-server reads some others as numbers.
pub fn new_secret() -> String {
    let letters = rand::rng().sample_iter(Alphanumeric).map(char::from);
    std::iter::once('t').chain(letters).take(LENGTH).collect()
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_private_file_replaces_and_is_private() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let path = folder.path().join("up.json");
        fs::write(&path, "old, and open to all").expect("the folder is writable");
        write_private(&path, b"new").expect("the folder is writable");
        assert_eq!(fs::read(&path).expect("the file is there"), b"new");
        assert_eq!(
            fs::metadata(&path).expect("the file is there").mode() & 0o777,
            0o600
        );
        assert_eq!(
            fs::read_dir(folder.path()).expect("the folder is there").count(),
            1
        );
    }

    #[test]
    fn secrets_differ_and_begin_with_a_letter() {
        let secret = new_secret();
        assert_eq!(secret.len(), LENGTH);
        assert!(secret.starts_with('t') && secret.chars().all(|char| char.is_ascii_alphanumeric()));
        assert_ne!(secret, new_secret());
    }
}
