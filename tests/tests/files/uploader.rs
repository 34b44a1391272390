//! Somebody with files, over plain HTTP: no code of ours decides what is tried again.

use std::io;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::SinkExt as _;
use futures::channel::mpsc;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Body, RequestBuilder};
use tidings_protocol::{AttachmentId, ContentHash};
use tidings_tests::{Identity, System, sha256};
use tokio::task::JoinHandle;

/// Longer than anything may take: what has no answer by then hangs.
const TIMEOUT: Duration = Duration::from_mins(1);
/// A piece of a body, as large as what a socket takes at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What is uploaded.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) bytes: Bytes,
    pub(crate) hash: ContentHash,
}

impl File {
    /// Bytes that nobody else has.
    pub(crate) fn random(rng: &mut StdRng, size: usize) -> Self {
        let mut bytes = vec![0; size];
        rng.fill_bytes(&mut bytes);
        Self {
            hash: sha256(&bytes),
            bytes: bytes.into(),
        }
    }

    /// The same, with a size between these.
    pub(crate) fn between(rng: &mut StdRng, size_min: usize, size_max: usize) -> Self {
        let size = rng.random_range(size_min..size_max);
        Self::random(rng, size)
    }

    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// Ways of an upload.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Slot and bytes in one request.
    Post,
    /// Into a slot.
    Put,
    /// Into a slot, on from where it stands.
    Tus,
}

/// What the service said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) took: Duration,
}

/// A part of a body that is still to come.
pub(crate) type Feeder = mpsc::Sender<io::Result<Bytes>>;

/// Somebody.
#[derive(Clone, Debug)]
pub(crate) struct Uploader {
    http: reqwest::Client,
    token: String,
    media: String,
}

impl Uploader {
    /// At the media service of `tidings up`.
    pub(crate) fn fresh(system: &System, name: &str) -> Self {
        let media = system.up_file().media.expect("media runs");
        Self::at(system, name, &media)
    }

    /// At another one.
    pub(crate) fn at(system: &System, name: &str, media: &str) -> Self {
        tidings_service::start::install_crypto_provider();
        let identity = Identity::fresh(name);
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // What a killed process held is not tried again behind our back.
            .pool_max_idle_per_host(0)
            .build();
        Self {
            http: http.expect("nothing of it can fail"),
            token: identity.token(&system.secret()),
            media: media.to_owned(),
        }
    }

    /// The same person, somewhere else.
    pub(crate) fn moved(&self, media: &str) -> Self {
        Self {
            media: media.to_owned(),
            ..self.clone()
        }
    }

    /// What says who they are.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Answer, String> {
        let began = Instant::now();
        let request = request.bearer_auth(&self.token).header("tus-resumable", "1.0.0");
        let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.map_err(|error| format!("{error:?}"))?;
        Ok(Answer {
            status,
            headers,
            body,
            took: began.elapsed(),
        })
    }

    /// Announces a file under a name, by tus.
    pub(crate) async fn announce(&self, file: &File, name: &str) -> Result<Answer, String> {
        let metadata = format!(
            "hash {},name {}",
            BASE64_STANDARD.encode(file.hash.to_string()),
            BASE64_STANDARD.encode(name)
        );
        let request = self
            .http
            .post(format!("{}/v1/uploads", self.media))
            .header("upload-length", file.size())
            .header("upload-metadata", metadata);
        self.ask(request).await
    }

    /// A slot.
    pub(crate) async fn slot(&self, file: &File, name: &str) -> AttachmentId {
        let answer = self.announce(file, name).await.expect("media answers");
        assert_eq!(answer.status, 201, "{answer:?}");
        let location = answer.headers.get(LOCATION).and_then(|url| url.to_str().ok());
        let id = location.and_then(|url| url.rsplit('/').next()?.parse().ok());
        id.unwrap_or_else(|| panic!("no id in {answer:?}"))
    }

    /// Uploads what `body` has, on from `offset` if the way is tus.
    pub(crate) async fn send(
        &self,
        way: Way,
        id: AttachmentId,
        file: &File,
        offset: usize,
        body: impl Into<Body>,
    ) -> Result<Answer, String> {
        let media = &self.media;
        let request = match way {
            Way::Post => {
                let url = format!("{media}/v1/attachments?hash={}&name=posted", file.hash);
                self.http.post(url)
            }
            Way::Put => self.http.put(format!("{media}/v1/attachments/{id}")),
            Way::Tus => self
                .http
                .patch(format!("{media}/v1/uploads/{id}"))
                .header("upload-offset", offset)
                .header(CONTENT_TYPE, "application/offset+octet-stream"),
        };
        let length = file.size() - offset;
        self.ask(request.header(CONTENT_LENGTH, length).body(body)).await
    }

    /// Begins an upload, of which so many bytes have been taken. The rest is the caller's to feed.
    pub(crate) async fn begin(
        &self,
        way: Way,
        id: AttachmentId,
        file: &File,
        taken: usize,
    ) -> (Feeder, JoinHandle<Result<Answer, String>>) {
        let (mut feeder, body) = fed();
        let request = tokio::spawn({
            let (uploader, file) = (self.clone(), file.clone());
            async move { uploader.send(way, id, &file, 0, body).await }
        });
        assert!(feed(&mut feeder, file.bytes.slice(..taken)).await, "media reads");
        (feeder, request)
    }

    /// Uploads everything that is missing.
    pub(crate) async fn upload(&self, way: Way, id: AttachmentId, file: &File) -> Result<Answer, String> {
        let offset = match way {
            Way::Tus => {
                let standing = self.standing(id).await?;
                match standing.offset() {
                    Some(offset) => offset,
                    None => return Ok(standing),
                }
            }
            Way::Post | Way::Put => 0,
        };
        self.send(way, id, file, offset, file.bytes.slice(offset..)).await
    }

    /// How far an upload by tus is.
    pub(crate) async fn standing(&self, id: AttachmentId) -> Result<Answer, String> {
        self.ask(self.http.head(format!("{}/v1/uploads/{id}", self.media)))
            .await
    }

    /// Ends an upload by tus.
    pub(crate) async fn remove(&self, id: AttachmentId) -> Result<Answer, String> {
        self.ask(self.http.delete(format!("{}/v1/uploads/{id}", self.media)))
            .await
    }

    /// The bytes.
    pub(crate) async fn get(&self, id: AttachmentId) -> Result<Answer, String> {
        self.ask(self.http.get(format!("{}/v1/attachments/{id}", self.media)))
            .await
    }

    /// Whether it can be read, and is right then; anything but "not ready" and the right bytes is a failure.
    pub(crate) async fn is_ready(&self, id: AttachmentId, file: &File, note: &str) -> bool {
        let answer = self.get(id).await;
        let answer = answer.unwrap_or_else(|error| panic!("{note}: {error}"));
        match answer.status {
            200 => {
                assert!(
                    answer.body == file.bytes,
                    "{note}: {} other bytes are read",
                    answer.body.len()
                );
                true
            }
            409 if answer.code() == "attachment_not_ready" => false,
            _ => panic!("{note}: {answer:?}"),
        }
    }
}

impl Answer {
    /// Whether it was done.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether it was done to the end.
    pub(crate) fn is_stored(&self, file: &File) -> bool {
        match self.status {
            200 | 201 => true,
            204 => self.offset() == Some(file.size()),
            _ => false,
        }
    }

    /// `Upload-Offset`.
    pub(crate) fn offset(&self) -> Option<usize> {
        let offset = self.headers.get("upload-offset")?;
        offset.to_str().ok()?.parse().ok()
    }

    /// `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
    }

    /// The code of the error in the body, or nothing.
    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// Refused with this status, the code `unavailable`, and the time to wait; an answer to HEAD has no body.
    pub(crate) fn assert_unavailable(&self, status: u16, note: &str) {
        let said = (self.status, self.code(), self.retry_after().is_some());
        assert_eq!(said, (status, "unavailable".to_owned(), true), "{note}: {self:?}");
    }
}

/// A body, and what feeds it.
pub(crate) fn fed() -> (Feeder, Body) {
    let (feeder, pieces) = mpsc::channel(0);
    (feeder, Body::wrap_stream(pieces))
}

/// Feeds bytes; false if nobody takes them any more.
pub(crate) async fn feed(feeder: &mut Feeder, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        if feeder.send(Ok(piece)).await.is_err() {
            return false;
        }
    }
    true
}

/// Lets the connection break.
pub(crate) async fn break_off(mut feeder: Feeder) {
    // It may be broken already.
    let _ = feeder.send(Err(io::Error::other("the client is gone"))).await;
}
