//! An upload in progress.

use bytes::Bytes;
use serde_json::Value;
use tidings_protocol::ContentHash;

use crate::error::{BlobError, FinishError};

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
pub struct Upload {}

impl Upload {
    /// How many bytes there are, those of earlier requests included. They need not be durable.
    pub fn received(&self) -> u64 {
        unimplemented!()
    }

    /// Takes more bytes.
    pub async fn write(&mut self, _bytes: Bytes) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// For while bytes come: a checkpoint that is worth noting, when a new one has become durable, about every
    /// 64 MiB in a folder and every part on S3. Waits for nothing, and answers `None` most of the time.
    pub fn due_checkpoint(&mut self) -> Option<Checkpoint> {
        unimplemented!()
    }

    /// For the end of a request that was not the last: makes everything that was received durable.
    pub async fn checkpoint(&mut self) -> Result<Checkpoint, BlobError> {
        unimplemented!()
    }

    /// Checks size and hash of what was received, and makes it whole and durable. What does not match is removed.
    pub async fn finish(self, _expected: ContentHash, _size: u64) -> Result<(), FinishError> {
        unimplemented!()
    }
}
