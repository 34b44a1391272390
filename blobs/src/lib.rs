//! The store of attachments' bytes: a folder, or a bucket of an S3-compatible server.
//!
//! A *blob* is bytes under a random id that is never used for other bytes, so a name that is being removed and a name
//! that is being written are never the same. A blob is *whole* once [`Upload::finish`] has checked its size and its
//! SHA-256 and made it durable; until then nobody can read it, and a process that is killed leaves nothing that looks
//! whole. What was received before that can be gone on with, by another process too.
//!
//! Knows neither Postgres nor HTTP routes: who may read or write what, and which blobs are still needed, is decided
//! by others. At most 4 MB are held in memory a request, whatever the size of the blob.

mod blocks;
mod config;
mod error;
mod folder;
mod hasher;
mod keys;
mod pieces;
mod s3;
mod signed;
mod store;
mod upload;

pub use config::BlobStoreConfig;
pub use error::{BlobError, FinishError};
pub use keys::S3Keys;
pub use signed::SignedDownload;
pub use store::{BlobStore, StoredBlob};
pub use upload::{Checkpoint, Upload};
