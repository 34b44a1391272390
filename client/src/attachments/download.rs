//! Bytes from the server into a file.

use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::{CONTENT_RANGE, IF_RANGE, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tidings_protocol::{Attachment, ErrorCode};
use tokio::time::timeout;

use crate::attachments::media::{Answer, Failure, Rejection, STALL_TIMEOUT, Way};
use crate::attachments::part_file::PartFile;
use crate::attachments::progress::{Progress, Stage};
use crate::attachments::retry::Verdict;
use crate::client::Client;
use crate::link::Stopped;

/// Bytes that turn out wrong are fetched once more.
const MISMATCHES_MAX: u32 = 1;

/// A download that did not succeed. What came is kept beside the target, and the same download goes on there.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// There is a file of this name already; it is left as it is.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// Another download of the same attachment writes here.
    #[error("{} is being written by another download", .0.display())]
    Busy(PathBuf),
    /// No such attachment, as far as this user may know.
    #[error("there is no such attachment for you")]
    NotFound,
    /// The attachment has expired.
    #[error("the attachment has expired")]
    Gone,
    /// This server has no attachments.
    #[error("this server has no attachments")]
    NotServed,
    /// The token is refused, and the provider has no other.
    #[error("the token is refused")]
    Unauthorized,
    /// The service refused it.
    #[error("the server refused the download: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The code, where the service gave one.
        code: Option<ErrorCode>,
        /// Its words.
        reason: String,
    },
    /// Twice other bytes came than those that the message tells of.
    #[error("what came is not what the message tells of")]
    Mismatch,
    /// It cannot be written.
    #[error("cannot write what comes: {0}")]
    File(#[from] io::Error),
    /// The client has stopped.
    #[error("the client has stopped: {0}")]
    Stopped(#[from] Stopped),
}

impl From<Failure> for DownloadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotServed => Self::NotServed,
            Failure::Unauthorized => Self::Unauthorized,
            Failure::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

impl From<Rejection> for DownloadError {
    fn from(rejection: Rejection) -> Self {
        Self::Refused {
            status: rejection.status,
            reason: rejection.to_string(),
            code: rejection.error.map(|error| error.code),
        }
    }
}

impl Client {
    /// Downloads an attachment into `target`, which must not be there.
    ///
    /// The bytes are gathered in a file beside it, verified by size and SHA-256, and only then get their name.
    /// Waits for connections and goes on where it stands for as long as it takes; drop the future to give up.
    /// The same download, also in another run of the program, goes on where the first left off.
    pub async fn download(
        &self,
        attachment: &Attachment,
        target: &Path,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(), DownloadError> {
        let total = attachment.size;
        let mut report = |stage, done| progress(Progress { stage, done, total });
        let (path, id) = (target.to_owned(), attachment.attachment_id);
        let mut part = Some(blocking(move || PartFile::open(&path, id)).await?);
        while with(&mut part, move |part| part.take_up(total)).await? {
            report(Stage::Hashing, part.as_ref().map_or(0, PartFile::len));
        }
        let mut way = self.media().way();
        let mut mismatches = 0;
        loop {
            fetch(attachment, &mut part, &mut way, &mut report).await?;
            let hash = with(&mut part, |part| Ok(part.hash())).await?;
            if hash.eq_ignore_ascii_case(&attachment.hash) {
                break;
            }
            if mismatches == MISMATCHES_MAX {
                let part = part.take().expect("it is taken only here and below");
                blocking(move || {
                    part.discard();
                    Ok(())
                })
                .await?;
                return Err(DownloadError::Mismatch);
            }
            mismatches += 1;
            with(&mut part, PartFile::restart).await?;
        }
        let part = part.take().expect("it is taken only here and above");
        blocking(move || part.finish()).await
    }
}

/// Until as many bytes are there as there should be.
async fn fetch(
    attachment: &Attachment,
    part: &mut Option<PartFile>,
    way: &mut Way,
    report: &mut (impl FnMut(Stage, u64) + Send),
) -> Result<(), DownloadError> {
    let path = format!("/v1/attachments/{}", attachment.attachment_id);
    let tag = format!("\"{}\"", attachment.hash.to_ascii_lowercase());
    loop {
        let have = with(part, |part| Ok(part.len())).await?;
        report(Stage::Waiting, have);
        if have == attachment.size {
            return Ok(());
        }
        let range = |request: RequestBuilder| match have {
            0 => request,
            have => request.header(RANGE, format!("bytes={have}-")),
        };
        let mut answer = way
            .ask(Method::GET, &path, STALL_TIMEOUT, |request| {
                range(request).header(IF_RANGE, &tag)
            })
            .await?;
        if let Answer::Good(response) = &answer
            && let Some(followed) = way.follow(response, range).await
        {
            // A store behind the service has entity tags of its own; its refusals say nothing of ours.
            answer = match followed {
                Answer::Bad(..) => Answer::Lost,
                other => other,
            };
        }
        let wait = match answer {
            Answer::Good(response) => {
                let before = have;
                receive(response, attachment.size, part, report).await?;
                if with(part, |part| Ok(part.len())).await? > before {
                    way.good();
                }
                None
            }
            Answer::Lost | Answer::Bad(Verdict::NewToken, _) => None,
            Answer::Bad(Verdict::Again(asked), _) => asked,
            Answer::Bad(Verdict::NotFound, _) => return Err(DownloadError::NotFound),
            Answer::Bad(Verdict::Gone, _) => return Err(DownloadError::Gone),
            Answer::Bad(_, rejection) if rejection.status == 416 => {
                with(part, PartFile::restart).await?;
                None
            }
            Answer::Bad(_, rejection) => return Err(rejection.into()),
        };
        let have = with(part, |part| Ok(part.len())).await?;
        if have < attachment.size {
            report(Stage::Waiting, have);
            way.rest(wait).await;
        }
    }
}

/// Takes the body, as far as it comes.
async fn receive(
    mut response: Response,
    size: u64,
    part: &mut Option<PartFile>,
    report: &mut (impl FnMut(Stage, u64) + Send),
) -> Result<(), DownloadError> {
    let have = with(part, |part| Ok(part.len())).await?;
    let begins = match response.status() {
        StatusCode::PARTIAL_CONTENT => begin_of(&response),
        StatusCode::OK => Some(0),
        _ => None,
    };
    match begins {
        Some(begin) if begin == have => {}
        Some(0) => with(part, PartFile::restart).await?,
        _ => return Ok(()),
    }
    while let Ok(Ok(Some(piece))) = timeout(STALL_TIMEOUT, response.chunk()).await {
        let done = with(part, move |part| {
            // More than was told of is not what was told of.
            let room = (size - part.len()).min(piece.len() as u64) as usize;
            part.write(&piece[..room])?;
            Ok(part.len())
        })
        .await?;
        report(Stage::Receiving, done);
        if done == size {
            break;
        }
    }
    Ok(())
}

/// Of `bytes 42-99/100`.
fn begin_of(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// Works with the file on a thread that may block.
async fn with<T: Send + 'static>(
    part: &mut Option<PartFile>,
    work: impl FnOnce(&mut PartFile) -> io::Result<T> + Send + 'static,
) -> Result<T, DownloadError> {
    let mut file = part
        .take()
        .expect("only this function takes it, and puts it back");
    let (file, result) = blocking(move || {
        let result = work(&mut file);
        Ok((file, result))
    })
    .await?;
    *part = Some(file);
    Ok(result?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)?
}
