//! The store: a folder or a bucket.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::config::BlobStoreConfig;
use crate::error::BlobError;
use crate::signed::SignedDownload;
use crate::upload::Upload;

/// The store of attachments' bytes. Clones are the same store.
#[derive(Clone, Debug)]
pub struct BlobStore {}

/// What the store has of one blob.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Which. A blob that is being uploaded may come several times, once for each trace of it.
    pub blob_id: Uuid,
    /// When it was written to last, by the store's clock.
    pub modified: SystemTime,
    /// Whether it can be read. `false`: a part of an upload, going on or not.
    pub whole: bool,
}

impl BlobStore {
    /// Reads the settings. Touches nothing.
    pub fn open(_config: &BlobStoreConfig) -> anyhow::Result<Self> {
        unimplemented!()
    }

    /// The id that was given to the store; `None` for one that nobody has claimed, or a folder that is not there.
    pub async fn id(&self) -> Result<Option<Uuid>, BlobError> {
        unimplemented!()
    }

    /// Gives the store an id, and makes the folder. Answers the id the store has now: whoever came first.
    pub async fn claim(&self, _id: Uuid) -> Result<Uuid, BlobError> {
        unimplemented!()
    }

    /// Begins an upload.
    pub async fn begin(&self, _blob_id: Uuid) -> Result<Upload, BlobError> {
        unimplemented!()
    }

    /// Goes on with an upload, from what was noted of it last if anything was; where nothing can be gone on with,
    /// from the beginning. [`Upload::received`] says where, which may be beyond the checkpoint or before it.
    pub async fn resume(&self, _blob_id: Uuid, _state: Option<&Value>) -> Result<Upload, BlobError> {
        unimplemented!()
    }

    /// A range of a whole blob, in pieces of 256 KiB. The range must lie within the blob.
    pub async fn read(
        &self,
        _blob_id: Uuid,
        _range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        unimplemented!()
    }

    /// A URL by which anybody can get the blob until `expires` has passed; `None` from a folder.
    pub async fn signed_url(
        &self,
        _blob_id: Uuid,
        _download: &SignedDownload,
        _expires: Duration,
    ) -> Result<Option<Url>, BlobError> {
        unimplemented!()
    }

    /// Removes every trace of a blob: whole, partial, what lies beside it. That there is none is fine.
    pub async fn remove(&self, _blob_id: Uuid, _state: Option<&Value>) -> Result<(), BlobError> {
        unimplemented!()
    }

    /// Everything the store has, in no order.
    pub fn list(&self) -> BoxStream<'static, Result<StoredBlob, BlobError>> {
        unimplemented!()
    }
}
