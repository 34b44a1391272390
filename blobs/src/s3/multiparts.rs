//! The uploads that S3 holds parts of. `object_store` cannot ask for them, and each costs room for ever.

use std::time::SystemTime;

use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::signer::Method;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{S3, URL_LIFE, error};
use crate::error::BlobError;

/// An upload that is neither completed nor aborted.
pub(crate) struct Multipart {
    pub(crate) key: String,
    pub(crate) upload_id: String,
    pub(crate) initiated: SystemTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    upload: Vec<Entry>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    upload_id: String,
    initiated: String,
}

/// Where the next page begins.
type Marker = (String, String);

impl S3 {
    /// Those of objects whose names are or begin with `path`.
    pub(crate) fn multiparts(&self, path: &Path) -> BoxStream<'static, Result<Multipart, BlobError>> {
        let (store, http) = (self.store.clone(), self.http.clone());
        let prefix = path.to_string();
        let pages = stream::try_unfold(Some(Marker::default()), move |marker| {
            let (store, http, prefix) = (store.clone(), http.clone(), prefix.clone());
            async move {
                let Some(marker) = marker else {
                    return Ok(None);
                };
                page(&store, &http, &prefix, marker).await.map(Some)
            }
        });
        pages
            .map_ok(|entries| stream::iter(entries).map(multipart))
            .try_flatten()
            .boxed()
    }
}

async fn page(
    store: &object_store::aws::AmazonS3,
    http: &reqwest::Client,
    prefix: &str,
    (key_marker, upload_id_marker): Marker,
) -> Result<(Vec<Entry>, Option<Marker>), BlobError> {
    use object_store::signer::{SignedUrlOptions, Signer as _};
    let mut query = vec![("uploads", ""), ("prefix", prefix)];
    if !key_marker.is_empty() {
        query.push(("key-marker", &key_marker));
        query.push(("upload-id-marker", &upload_id_marker));
    }
    let options = SignedUrlOptions::new().with_query(query);
    let url = store
        .signed_url_opts(Method::GET, &Path::default(), URL_LIFE, &options)
        .await?;
    let away = |error: reqwest::Error| BlobError::Away(error.without_url().to_string());
    let answer = http.get(url).send().await.map_err(away)?;
    let status = answer.status();
    let text = answer.text().await.map_err(away)?;
    if !status.is_success() {
        return Err(error::of_status(status, &text));
    }
    let page: Page = quick_xml::de::from_str(&text)
        .map_err(|error| BlobError::Defect(format!("a list of uploads cannot be read: {error}")))?;
    let next = (page.is_truncated && !page.next_key_marker.is_empty())
        .then_some((page.next_key_marker, page.next_upload_id_marker));
    Ok((page.upload, next))
}

fn multipart(entry: Entry) -> Result<Multipart, BlobError> {
    let initiated = OffsetDateTime::parse(&entry.initiated, &Rfc3339)
        .map_err(|_| BlobError::Defect("a list of uploads has no times".to_owned()))?;
    Ok(Multipart {
        key: entry.key,
        upload_id: entry.upload_id,
        initiated: initiated.into(),
    })
}
