//! A file that is not whole yet: it lies beside its target under another name, and takes the target's name when
//! its bytes are the right ones.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tidings_protocol::AttachmentId;

use crate::attachments::download::DownloadError;
use crate::attachments::{PIECE_BYTES, hex};

/// The file, locked, and the hash of what is in it. Its methods block.
pub(super) struct PartFile {
    path: PathBuf,
    target: PathBuf,
    file: File,
    hash: Sha256,
    len: u64,
}

impl PartFile {
    /// Opens the one that an earlier run left, or makes it. Its name tells the attachment, so that another
    /// target in the same folder goes on with it too.
    pub(super) fn open(target: &Path, id: AttachmentId) -> Result<Self, DownloadError> {
        // Also a link that leads nowhere is there.
        if std::fs::symlink_metadata(target).is_ok() {
            return Err(DownloadError::Exists(target.to_owned()));
        }
        let path = target.with_file_name(format!(".{id}.part"));
        if std::fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(DownloadError::Exists(path));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        // A file system without locks fails otherwise; two at once are then the user's business.
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(DownloadError::Busy(path));
        }
        Ok(Self {
            path,
            target: target.to_owned(),
            file,
            hash: Sha256::new(),
            len: 0,
        })
    }

    /// Hashes the next piece of what was there at the beginning; false at its end.
    pub(super) fn take_up(&mut self, size: u64) -> io::Result<bool> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = self.file.read(&mut piece)?;
        if self.len + read as u64 > size {
            self.restart()?;
            return Ok(false);
        }
        self.hash.update(&piece[..read]);
        self.len += read as u64;
        Ok(read > 0)
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets what is there.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.hash = Sha256::new();
        self.len = 0;
        Ok(())
    }

    pub(super) fn hash(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    /// Gives it its name, which nobody may have taken meanwhile.
    pub(super) fn finish(self) -> Result<(), DownloadError> {
        self.file.sync_all()?;
        let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        match std::fs::hard_link(&self.path, &self.target) {
            Ok(()) => std::fs::remove_file(&self.path)?,
            Err(error) if taken(&error) => return Err(DownloadError::Exists(self.target)),
            // A file system without links: the name is taken first, and then replaced.
            Err(_) => {
                let claimed = OpenOptions::new().write(true).create_new(true).open(&self.target);
                match claimed {
                    Ok(_) => std::fs::rename(&self.path, &self.target)?,
                    Err(error) if taken(&error) => return Err(DownloadError::Exists(self.target)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Removes it.
    pub(super) fn discard(self) {
        // It is worthless; what cannot be removed now is overwritten next time.
        std::fs::remove_file(&self.path).ok();
    }
}
