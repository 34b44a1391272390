//! Bytes to the server, by tus 1.0 on the slot of a `createAttachment`.

use std::io;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, Method};
use tidings_protocol::{Attachment, AttachmentId, CreateAttachment, ErrorCode};
use tokio::io::{AsyncRead, AsyncSeek};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::attachments::media::{ANSWER_TIMEOUT, Answer, Failure, Rejection, STALL_TIMEOUT, Way};
use crate::attachments::progress::{Progress, Stage};
use crate::attachments::retry::Verdict;
use crate::attachments::source::Source;
use crate::client::Client;
use crate::link::Stopped;
use crate::request::RequestError;

/// A file that changes while it is sent is read once more.
const MISMATCHES_MAX: u32 = 1;
/// A slot that vanishes again and again is the server's trouble.
const SLOTS_MAX: u32 = 3;

/// An upload that did not succeed. What the server has of it is kept for a day, and the same upload goes on there.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The server did not take the `createAttachment`: too many, too large, a name that cannot be.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// This server has no place for attachments.
    #[error("this server takes no attachments")]
    NotServed,
    /// The token is refused, and the provider has no other.
    #[error("the token is refused")]
    Unauthorized,
    /// The service for attachments did not take it.
    #[error("the server refused the upload: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The code, where the service gave one.
        code: Option<ErrorCode>,
        /// Its words.
        reason: String,
    },
    /// Twice the server got other bytes than those that were announced.
    #[error("what is uploaded changes meanwhile")]
    Changed,
    /// It cannot be read.
    #[error("cannot read what is to be uploaded: {0}")]
    Source(#[from] io::Error),
}

impl From<Failure> for UploadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotServed => Self::NotServed,
            Failure::Unauthorized => Self::Unauthorized,
            Failure::Stopped(reason) => Self::Request(RequestError::Stopped(reason)),
        }
    }
}

impl From<Rejection> for UploadError {
    fn from(rejection: Rejection) -> Self {
        Self::Refused {
            status: rejection.status,
            reason: rejection.to_string(),
            code: rejection.error.map(|error| error.code),
        }
    }
}

/// How an attempt to send ended.
enum Sent {
    /// Everything is there.
    All,
    /// The slot, or what was in it, is not there any more.
    SlotLost,
    /// Not what was announced.
    Mismatch,
}

impl Client {
    /// Uploads `source`, which is read twice: to know what it is, and to send it. Gives what recipients will
    /// see of it; its id goes into [`Self::send_with`].
    ///
    /// Waits for connections and goes on where the server stands for as long as it takes; drop the future to
    /// give up. The same content with the same type and name, also in another run of the program, goes on
    /// where the first left off, and is not sent at all if the server has it.
    pub async fn upload<S>(
        &self,
        source: S,
        content_type: &str,
        name: Option<&str>,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Attachment, UploadError>
    where
        S: AsyncRead + AsyncSeek + Unpin + Send + 'static,
    {
        let source = Source::new(source);
        let mut way = self.media().way();
        let mut mismatches = 0;
        loop {
            let size = source.size().await?;
            let mut report = |stage, done| {
                progress(Progress {
                    stage,
                    done,
                    total: size,
                });
            };
            let hash = source.hash(size, |done| report(Stage::Hashing, done)).await?;
            let frame = CreateAttachment {
                id: 0,
                hash: hash.clone(),
                size,
                content_type: content_type.to_owned(),
                name: name.map(str::to_owned),
            };
            match self.fill(&frame, &source, &mut way, &mut report).await? {
                Some(attachment_id) => {
                    return Ok(Attachment {
                        attachment_id,
                        size,
                        content_type: content_type.to_owned(),
                        hash,
                        name: name.map(str::to_owned),
                    });
                }
                None if mismatches == MISMATCHES_MAX => return Err(UploadError::Changed),
                None => mismatches += 1,
            }
        }
    }

    /// Gets a slot and fills it; None if the server got something else.
    async fn fill<S>(
        &self,
        frame: &CreateAttachment,
        source: &Source<S>,
        way: &mut Way,
        report: &mut (impl FnMut(Stage, u64) + Send),
    ) -> Result<Option<AttachmentId>, UploadError>
    where
        S: AsyncRead + AsyncSeek + Unpin + Send + 'static,
    {
        let mut slots = 0;
        loop {
            report(Stage::Waiting, 0);
            let reply = self.create_attachment(frame.clone()).await?;
            let attachment_id = reply
                .attachment_id
                .ok_or(RequestError::Incomplete("attachmentId"))?;
            if reply.uploaded == Some(true) {
                report(Stage::Sending, frame.size);
                return Ok(Some(attachment_id));
            }
            slots += 1;
            match send(attachment_id, frame.size, source, way, report).await? {
                Sent::All => return Ok(Some(attachment_id)),
                Sent::Mismatch => return Ok(None),
                Sent::SlotLost if slots < SLOTS_MAX => {}
                Sent::SlotLost => {
                    return Err(UploadError::Refused {
                        status: 404,
                        code: None,
                        reason: "the place for the upload vanishes again and again".to_owned(),
                    });
                }
            }
        }
    }
}

/// Sends from where the server stands, as often as it takes.
async fn send<S>(
    attachment_id: AttachmentId,
    size: u64,
    source: &Source<S>,
    way: &mut Way,
    report: &mut (impl FnMut(Stage, u64) + Send),
) -> Result<Sent, UploadError>
where
    S: AsyncRead + AsyncSeek + Unpin + Send + 'static,
{
    let path = format!("/v1/uploads/{attachment_id}");
    let mut furthest = None;
    loop {
        let asked = way
            .ask(Method::HEAD, &path, STALL_TIMEOUT, |request| {
                request.header("Tus-Resumable", "1.0.0")
            })
            .await?;
        let mut answer = asked;
        if let Answer::Good(response) = &answer {
            let offset = offset_of(response.headers()).unwrap_or(0).min(size);
            if furthest.is_none_or(|before| before < offset) {
                way.good();
            }
            furthest = furthest.max(Some(offset));
            answer = patch(&path, offset, size, source, way, report).await?;
            // The end of an upload that is through already: the slot knows.
            if offset == size && matches!(&answer, Answer::Bad(_, rejection) if rejection.status == 409) {
                return Ok(Sent::SlotLost);
            }
        }
        let wait = match answer {
            Answer::Good(response) => match offset_of(response.headers()) {
                Some(offset) if offset >= size => {
                    report(Stage::Sending, size);
                    return Ok(Sent::All);
                }
                _ => None,
            },
            Answer::Lost | Answer::Bad(Verdict::NewToken, _) => None,
            Answer::Bad(Verdict::Again(asked), _) => asked,
            Answer::Bad(Verdict::Mismatch, _) => return Ok(Sent::Mismatch),
            Answer::Bad(Verdict::NotFound | Verdict::Gone, _) => return Ok(Sent::SlotLost),
            Answer::Bad(Verdict::Refused, rejection) => return Err(rejection.into()),
        };
        report(Stage::Waiting, furthest.unwrap_or(0));
        way.rest(wait).await;
    }
}

/// One request with everything from `offset` on.
async fn patch<S>(
    path: &str,
    offset: u64,
    size: u64,
    source: &Source<S>,
    way: &mut Way,
    report: &mut (impl FnMut(Stage, u64) + Send),
) -> Result<Answer, UploadError>
where
    S: AsyncRead + AsyncSeek + Unpin + Send + 'static,
{
    let (given, mut read) = watch::channel(offset);
    let body = Body::wrap_stream(source.body(offset, size, given));
    // The watch below is the patience.
    let far = 365 * 24 * ANSWER_TIMEOUT;
    let asked = way.ask(Method::PATCH, path, far, |request| {
        request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", offset)
            .header(CONTENT_TYPE, "application/offset+octet-stream")
            .header(CONTENT_LENGTH, size - offset)
            .body(body)
    });
    tokio::pin!(asked);
    report(Stage::Sending, offset);
    loop {
        let done = *read.borrow_and_update();
        let patience = if done < size {
            STALL_TIMEOUT
        } else {
            ANSWER_TIMEOUT
        };
        let lost = Instant::now() + patience;
        tokio::select! {
            answer = &mut asked => return Ok(answer?),
            // An error means that the body is let go of; the answer follows.
            changed = read.changed() => {
                if changed.is_err() {
                    let answer = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
                    return Ok(answer.unwrap_or(Ok(Answer::Lost))?);
                }
                report(Stage::Sending, *read.borrow());
            }
            () = sleep_until(lost) => return Ok(Answer::Lost),
        }
    }
}

fn offset_of(headers: &HeaderMap) -> Option<u64> {
    headers.get("upload-offset")?.to_str().ok()?.parse().ok()
}

impl UploadError {
    /// Whether the client was stopped; the upload goes on when it is begun again.
    pub fn stopped(&self) -> Option<&Stopped> {
        match self {
            Self::Request(RequestError::Stopped(reason)) => Some(reason),
            _ => None,
        }
    }
}
