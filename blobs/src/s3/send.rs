//! Sends a file, or the beginning of one, to S3 as a stream.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::signer::Method;
use reqwest::header::{CONTENT_LENGTH, ETAG};
use reqwest::{Body, Response};
use tokio::time::sleep;

use super::{S3, URL_LIFE, error};
use crate::error::BlobError;
use crate::pieces::pieces;

/// How long a part of 8 MiB may take. Who gets less than 140 KB a second to S3 is as good as cut off.
pub(crate) const TIMEOUT: Duration = Duration::from_mins(1);
/// The bytes are there, so that a cut connection need not be the client's trouble.
const TRIES: u32 = 3;
/// Before the second try; the third waits twice as long.
const RETRY_AFTER: Duration = Duration::from_millis(200);

impl S3 {
    /// Answers the `ETag` that S3 gives.
    pub(crate) async fn send(
        &self,
        path: &Path,
        query: &[(&str, &str)],
        file: &Arc<File>,
        length: u64,
    ) -> Result<String, BlobError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.send_once(path, query, file, length).await {
                Err(BlobError::Away(_)) if tries < TRIES => sleep(RETRY_AFTER * tries).await,
                sent => return sent,
            }
        }
    }

    async fn send_once(
        &self,
        path: &Path,
        query: &[(&str, &str)],
        file: &Arc<File>,
        length: u64,
    ) -> Result<String, BlobError> {
        let url = self.sign(Method::PUT, path, URL_LIFE, query).await?;
        let body = Body::wrap_stream(pieces(Arc::clone(file), 0..length));
        let request = self.http.put(url).header(CONTENT_LENGTH, length).body(body);
        // The URL is as good as a password while it lives.
        let away = |error: reqwest::Error| BlobError::Away(error_chain(&error.without_url()));
        let answer = request.send().await.map_err(away)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(error::of_status(status, &answer.text().await.map_err(away)?));
        }
        etag(&answer).ok_or_else(|| BlobError::Defect("S3 gives no ETag".to_owned()))
    }
}

fn etag(answer: &Response) -> Option<String> {
    Some(answer.headers().get(ETAG)?.to_str().ok()?.to_owned())
}

/// The reason stands in the last of them.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
