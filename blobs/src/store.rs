//! The store: a folder or a bucket.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::config::BlobStoreConfig;
use crate::error::BlobError;
use crate::folder::{self, Folder, FolderUpload};
use crate::s3::{S3, S3Upload};
use crate::signed::SignedDownload;
use crate::upload::Upload;

/// The store of attachments' bytes. Clones are the same store.
#[derive(Clone, Debug)]
pub struct BlobStore(Place);

#[derive(Clone, Debug)]
enum Place {
    Folder(Arc<Folder>),
    S3(Arc<S3>),
}

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
    pub fn open(config: &BlobStoreConfig) -> anyhow::Result<Self> {
        let url = &config.blob_store;
        match url.scheme() {
            "file" => {
                let root = url.to_file_path();
                let root = root.map_err(|()| anyhow::anyhow!("--blob-store: {url} names no folder here"))?;
                Ok(Self(Place::Folder(Arc::new(Folder::new(root)))))
            }
            "s3" => {
                let s3 = S3::open(config).context("--blob-store")?;
                Ok(Self(Place::S3(Arc::new(s3))))
            }
            other => bail!("--blob-store: {other} is neither file nor s3"),
        }
    }

    /// The id that was given to the store; `None` for one that nobody has claimed, or a folder that is not there.
    pub async fn id(&self) -> Result<Option<Uuid>, BlobError> {
        match &self.0 {
            Place::Folder(folder) => folder.id().await,
            Place::S3(s3) => s3.id().await,
        }
    }

    /// Gives the store an id, and makes the folder. Answers the id the store has now: whoever came first.
    pub async fn claim(&self, id: Uuid) -> Result<Uuid, BlobError> {
        match &self.0 {
            Place::Folder(folder) => folder.claim(id).await,
            Place::S3(s3) => s3.claim(id).await,
        }
    }

    /// Begins an upload, under an id that no other has. Somebody may have resumed it before it was begun: that is
    /// [`BlobError::Busy`] in a folder.
    pub async fn begin(&self, blob_id: Uuid) -> Result<Upload, BlobError> {
        match &self.0 {
            Place::Folder(folder) => Ok(Upload::in_folder(FolderUpload::begin(folder, blob_id).await?)),
            Place::S3(s3) => Ok(Upload::on_s3(S3Upload::begin(s3, blob_id)?)),
        }
    }

    /// Goes on with an upload, from what was noted of it last if anything was; where nothing can be gone on with,
    /// from the beginning. [`Upload::received`] says where, which may be beyond the checkpoint or before it.
    ///
    /// An upload that was finished, by somebody who could not tell, has all its bytes and can be finished again.
    pub async fn resume(&self, blob_id: Uuid, state: Option<&Value>) -> Result<Upload, BlobError> {
        match &self.0 {
            Place::Folder(folder) => Ok(Upload::in_folder(
                FolderUpload::resume(folder, blob_id, state).await?,
            )),
            Place::S3(s3) => Ok(Upload::on_s3(S3Upload::resume(s3, blob_id, state).await?)),
        }
    }

    /// A range of a whole blob, in pieces of at most 256 KiB. The range must lie within the blob.
    pub async fn read(
        &self,
        blob_id: Uuid,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        match &self.0 {
            Place::Folder(folder) => folder.read(blob_id, range).await,
            Place::S3(s3) => s3.read(blob_id, range).await,
        }
    }

    /// A URL by which anybody can get the blob until `expires` has passed; `None` from a folder.
    pub async fn signed_url(
        &self,
        blob_id: Uuid,
        download: &SignedDownload,
        expires: Duration,
    ) -> Result<Option<Url>, BlobError> {
        match &self.0 {
            Place::Folder(_) => Ok(None),
            Place::S3(s3) => s3.signed_download(blob_id, download, expires).await.map(Some),
        }
    }

    /// Removes every trace of a blob: whole, partial, what lies beside it. That there is none is fine.
    pub async fn remove(&self, blob_id: Uuid, state: Option<&Value>) -> Result<(), BlobError> {
        match &self.0 {
            Place::Folder(folder) => folder.remove(blob_id).await,
            Place::S3(s3) => s3.remove(blob_id, state).await,
        }
    }

    /// Everything the store has, in no order.
    pub fn list(&self) -> BoxStream<'static, Result<StoredBlob, BlobError>> {
        match &self.0 {
            Place::Folder(folder) => folder::list(folder),
            Place::S3(s3) => s3.list(),
        }
    }
}
