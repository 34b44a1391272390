//! The store as a bucket of an S3-compatible server: `blobs/<2 hex>/<id>` is whole, `uploads/<id>/<random>` is the end
//! of an upload that is short of a part.
//!
//! S3 shows an object only when it is whole, and the parts of a multipart upload to nobody. Parts are gathered in
//! files without a name and sent from there, by URLs that we sign ourselves: `object_store` would hold them in memory.

mod error;
mod multiparts;
mod send;
mod upload;

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer as _};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, PutMode,
    PutOptions, RetryConfig,
};
use parking_lot::Mutex;
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use crate::config::BlobStoreConfig;
use crate::error::BlobError;
use crate::folder::{MARKER, parse_marker};
use crate::keys::S3Keys;
use crate::signed::SignedDownload;
use crate::store::StoredBlob;
pub(crate) use upload::S3Upload;

/// A server that is there takes a connection at once, also on another continent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer, or the next bytes of one, may take. Completing an upload of many parts takes seconds.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// What a server that is being restarted needs is the client's to wait for.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(1),
        base: 2.0,
    },
    max_retries: 3,
    retry_timeout: Duration::from_secs(10),
};
/// A URL is used at once, and a part takes a minute at most.
const URL_LIFE: Duration = Duration::from_mins(5);
/// What browsers may keep of a download: bytes of a hash never change.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// See the module.
#[derive(Debug)]
pub(crate) struct S3 {
    store: AmazonS3,
    /// Streams parts, which `object_store` cannot.
    http: reqwest::Client,
    prefix: Path,
    spool_dir: PathBuf,
    /// Uploads that somebody in this process writes. Those of other processes are kept apart by who calls us.
    writing: Arc<Mutex<HashSet<Uuid>>>,
}

impl S3 {
    pub(crate) fn open(config: &BlobStoreConfig) -> anyhow::Result<Self> {
        // Of several providers none is chosen by itself. Somebody may have done it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = &config.blob_store;
        let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
        let options = ClientOptions::new()
            .with_http1_only()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(READ_TIMEOUT)
            // Of a whole answer: who downloads may be slow.
            .with_timeout_disabled()
            .with_allow_http(
                config
                    .blob_store_endpoint
                    .as_ref()
                    .is_some_and(|url| url.scheme() == "http"),
            );
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket.context("s3:// names no bucket")?)
            .with_region(&config.blob_store_region)
            .with_retry(RETRY)
            .with_client_options(options);
        if let Some(endpoint) = &config.blob_store_endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        if let Some(keys) = config
            .blob_store_keys
            .clone()
            .map_or_else(S3Keys::from_files, |keys| Ok(Some(keys)))?
        {
            builder = builder
                .with_access_key_id(keys.access_key_id)
                .with_secret_access_key(keys.secret_access_key);
        }
        let http = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(send::TIMEOUT)
            .build()?;
        Ok(Self {
            store: builder.build()?,
            http,
            prefix: Path::from_url_path(url.path())?,
            spool_dir: config.blob_spool_dir.clone(),
            writing: Arc::default(),
        })
    }

    fn whole(&self, blob_id: Uuid) -> Path {
        let name = blob_id.to_string();
        self.prefix
            .clone()
            .join("blobs")
            .join(&name[..2])
            .join(name.as_str())
    }

    /// What lies here has the names of tails.
    fn tails(&self, blob_id: Uuid) -> Path {
        self.prefix.clone().join("uploads").join(blob_id.to_string())
    }

    async fn sign(
        &self,
        method: Method,
        path: &Path,
        expires: Duration,
        query: &[(&str, &str)],
    ) -> Result<Url, BlobError> {
        let options = SignedUrlOptions::new().with_query(query.iter().copied());
        Ok(self
            .store
            .signed_url_opts(method, path, expires, &options)
            .await?)
    }

    pub(crate) async fn id(&self) -> Result<Option<Uuid>, BlobError> {
        match self.get_whole(&self.prefix.clone().join(MARKER)).await {
            Ok(text) => parse_marker(&String::from_utf8_lossy(&text)).map(Some),
            Err(BlobError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// For small objects.
    async fn get_whole(&self, path: &Path) -> Result<Bytes, BlobError> {
        Ok(self.store.get(path).await?.bytes().await?)
    }

    pub(crate) async fn claim(&self, id: Uuid) -> Result<Uuid, BlobError> {
        let path = self.prefix.clone().join(MARKER);
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&path, id.to_string().into(), options).await {
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            put => drop(put?),
        }
        let id = self.id().await?;
        id.ok_or_else(|| BlobError::Defect(format!("somebody removes {MARKER}")))
    }

    pub(crate) async fn read(
        &self,
        blob_id: Uuid,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let path = self.whole(blob_id);
        if range.is_empty() {
            self.store.head(&path).await?;
            return Ok(stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let answer = self.store.get_opts(&path, options).await?;
        Ok(answer.into_stream().map_err(BlobError::from).boxed())
    }

    pub(crate) async fn signed_download(
        &self,
        blob_id: Uuid,
        download: &SignedDownload,
        expires: Duration,
    ) -> Result<Url, BlobError> {
        let query = [
            ("response-content-type", download.content_type.as_str()),
            ("response-content-disposition", download.disposition.as_str()),
            ("response-cache-control", CACHE_CONTROL),
        ];
        self.sign(Method::GET, &self.whole(blob_id), expires, &query)
            .await
    }

    pub(crate) async fn remove(&self, blob_id: Uuid, state: Option<&Value>) -> Result<(), BlobError> {
        // In this order: what a writer completes in between is found as an object.
        if let Some(id) = state.and_then(upload::multipart_of) {
            self.abort(&self.whole(blob_id), &id).await?;
        }
        self.remove_traces(blob_id).await?;
        match self.store.delete(&self.whole(blob_id)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => Ok(deleted?),
        }
    }

    /// Removes everything but the whole object.
    async fn remove_traces(&self, blob_id: Uuid) -> Result<(), BlobError> {
        let whole = self.whole(blob_id);
        for multipart in self.multiparts(&whole).try_collect::<Vec<_>>().await? {
            self.abort(&whole, &multipart.upload_id).await?;
        }
        let mut tails = self.store.list(Some(&self.tails(blob_id)));
        while let Some(tail) = tails.try_next().await? {
            self.delete(&tail.location).await?;
        }
        Ok(())
    }

    async fn abort(&self, path: &Path, id: &String) -> Result<(), BlobError> {
        match self.store.abort_multipart(path, id).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            aborted => Ok(aborted?),
        }
    }

    async fn delete(&self, path: &Path) -> Result<(), BlobError> {
        match self.store.delete(path).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            deleted => Ok(deleted?),
        }
    }

    pub(crate) fn list(self: &Arc<Self>) -> BoxStream<'static, Result<StoredBlob, BlobError>> {
        let blobs = self.prefix.clone().join("blobs");
        let uploads = self.prefix.clone().join("uploads");
        let whole = self.store.list(Some(&blobs)).try_filter_map(|object| async move {
            Ok(stored(
                object.location.filename(),
                object.last_modified.into(),
                true,
            ))
        });
        let depth = uploads.parts().count();
        let tails = self
            .store
            .list(Some(&uploads))
            .try_filter_map(move |object| async move {
                let id = object.location.parts().nth(depth);
                Ok(stored(
                    id.as_ref().map(AsRef::as_ref),
                    object.last_modified.into(),
                    false,
                ))
            });
        let multiparts = self.multiparts(&blobs).try_filter_map(|multipart| async move {
            let id = multipart.key.rsplit('/').next();
            Ok(stored(id, multipart.initiated, false))
        });
        whole
            .chain(tails)
            .map_err(BlobError::from)
            .chain(multiparts)
            .boxed()
    }
}

/// `None` for what is not ours.
fn stored(id: Option<&str>, modified: std::time::SystemTime, whole: bool) -> Option<StoredBlob> {
    Some(StoredBlob {
        blob_id: id?.parse().ok()?,
        modified,
        whole,
    })
}
