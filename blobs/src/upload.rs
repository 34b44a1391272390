//! An upload in progress.

use bytes::Bytes;
use serde_json::Value;
use tidings_protocol::ContentHash;

use crate::error::{BlobError, FinishError};
use crate::folder::FolderUpload;
use crate::s3::S3Upload;

/// What has been made durable of an upload.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// How many bytes.
    pub received: u64,
    /// What the store needs to go on from there.
    pub state: Value,
}

/// Bytes on their way into the store. Dropping it leaves what can be resumed and nobody can read.
///
/// All its futures may be dropped. After an error the upload is of no use any more: drop it, and resume.
#[derive(Debug)]
pub struct Upload(Place);

#[derive(Debug)]
enum Place {
    Folder(Box<FolderUpload>),
    S3(Box<S3Upload>),
}

impl Upload {
    pub(crate) fn in_folder(upload: FolderUpload) -> Self {
        Self(Place::Folder(Box::new(upload)))
    }

    pub(crate) fn on_s3(upload: S3Upload) -> Self {
        Self(Place::S3(Box::new(upload)))
    }

    /// How many bytes there are, those of earlier requests included. They need not be durable.
    pub fn received(&self) -> u64 {
        match &self.0 {
            Place::Folder(upload) => upload.received(),
            Place::S3(upload) => upload.received(),
        }
    }

    /// Takes more bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        match &mut self.0 {
            Place::Folder(upload) => upload.write(bytes).await,
            Place::S3(upload) => upload.write(bytes).await,
        }
    }

    /// For while bytes come: a checkpoint that is worth noting, when a new one has become durable, about every
    /// 64 MiB in a folder and every part on S3. Waits for nothing, and answers `None` most of the time.
    pub fn due_checkpoint(&mut self) -> Option<Checkpoint> {
        match &mut self.0 {
            Place::Folder(upload) => upload.due_checkpoint(),
            Place::S3(upload) => upload.due_checkpoint(),
        }
    }

    /// For the end of a request that was not the last: makes everything that was received durable.
    ///
    /// The one before it must have been noted: what only an older one needs is removed.
    pub async fn checkpoint(&mut self) -> Result<Checkpoint, BlobError> {
        match &mut self.0 {
            Place::Folder(upload) => upload.checkpoint().await,
            Place::S3(upload) => upload.checkpoint().await,
        }
    }

    /// Checks size and hash of what was received, and makes it whole and durable. What does not match is removed.
    pub async fn finish(self, expected: ContentHash, size: u64) -> Result<(), FinishError> {
        match self.0 {
            Place::Folder(upload) => upload.finish(expected, size).await,
            Place::S3(upload) => upload.finish(expected, size).await,
        }
    }
}

/// Whether what was received is what was announced.
pub(crate) fn check(
    expected: ContentHash,
    expected_size: u64,
    hash: ContentHash,
    size: u64,
) -> Result<(), FinishError> {
    if (hash, size) == (expected, expected_size) {
        return Ok(());
    }
    Err(FinishError::Mismatch {
        expected,
        expected_size,
        hash,
        size,
    })
}
