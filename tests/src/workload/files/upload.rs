//! Somebody uploads a file, whatever happens to the connection, and sends it.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use futures::stream;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Body, RequestBuilder, StatusCode};
use tidings_protocol::{Attachment, AttachmentId, MessageId, Reply};
use tokio::time::sleep;
use uuid::Uuid;

use super::{Errand, RETRY, fetch};
use crate::history::Happening;
use crate::sha256::sha256;
use crate::token::Identity;
use crate::workload::Shared;
use crate::workload::device::Command;
use crate::workload::outbox::Ask;

/// How often a connection breaks in the middle of an upload, because of the one who uploads.
const BROKEN: f64 = 0.25;

/// An upload that was announced.
pub(in crate::workload) struct Upload {
    shared: Arc<Shared>,
    /// The device that announced it, and will send it.
    device: usize,
    identity: Identity,
    errand: Errand,
    attachment_id: AttachmentId,
    url: String,
    bytes: Vec<u8>,
    rng: StdRng,
}

/// What an attempt came to.
enum Tried {
    Done,
    Again,
    Refused(String),
}

impl Upload {
    /// Begins it, in the background. Nothing, if the time for that is over.
    pub(in crate::workload) fn begin(
        shared: &Arc<Shared>,
        device: usize,
        identity: &Identity,
        errand: Errand,
        reply: &Reply,
    ) {
        let (Some(attachment_id), Some(url)) = (reply.attachment_id, reply.upload_url.clone()) else {
            let note = format!("createAttachment was answered without its fields: {reply:?}");
            shared.world.lock().report.surprises.push(note);
            return;
        };
        let upload = Self {
            shared: Arc::clone(shared),
            device,
            identity: identity.clone(),
            errand,
            attachment_id,
            url,
            bytes: errand.file.bytes(),
            rng: StdRng::seed_from_u64(errand.file.seed),
        };
        let uploaded = reply.uploaded == Some(true);
        let files = &shared.files;
        files.uploads.spawn(upload.run(uploaded));
    }

    async fn run(mut self, uploaded: bool) {
        let stop = self.shared.files.no_more_uploads.clone();
        let done = uploaded || stop.run_until_cancelled(self.until_done()).await == Some(true);
        if !done || stop.is_cancelled() {
            return;
        }
        self.shared.world.lock().report.uploads += 1;
        let send = Ask::Send {
            chat_id: self.errand.chat_id,
            message_id: MessageId(Uuid::new_v4()),
            text: String::new(),
            attachments: vec![self.attachment_id],
        };
        // A device that is gone sends nothing.
        let _ = self.shared.world.lock().devices[self.device]
            .commands
            .send(Command::Ask(send));
        self.probe();
    }

    /// Whether it was done; else it was refused.
    async fn until_done(&mut self) -> bool {
        let resumable = self.rng.random_bool(0.5);
        for attempt in 1.. {
            let shared = Arc::clone(&self.shared);
            let permit = shared.files.at_once.acquire().await.expect("it is never closed");
            let tried = if resumable {
                self.go_on().await
            } else {
                self.put().await
            };
            drop(permit);
            match tried {
                Tried::Done => return true,
                Tried::Again => sleep(RETRY.delay(attempt, self.rng.random())).await,
                Tried::Refused(reason) => {
                    let note = format!("upload of attachment {}: {reason}", self.attachment_id);
                    self.shared.recorder.happened(Happening::note(note.clone()));
                    self.shared.world.lock().report.surprises.push(note);
                    return false;
                }
            }
        }
        unreachable!("attempts do not end")
    }

    /// All of it at once.
    async fn put(&mut self) -> Tried {
        let request = self.shared.files.http.put(self.url.clone());
        self.send(request, 0, self.bytes.len()).await
    }

    /// From where the server is, in one piece or two.
    async fn go_on(&mut self) -> Tried {
        let url = self.url.replace("/v1/attachments/", "/v1/uploads/");
        let http = self.shared.files.http.clone();
        let standing = self.authorized(http.head(&url)).send().await;
        let Ok(standing) = standing else {
            return Tried::Again;
        };
        if !standing.status().is_success() {
            return judge(standing.status(), "HEAD");
        }
        let offset = standing.headers().get("upload-offset");
        let offset = offset.and_then(|text| text.to_str().ok()?.parse::<usize>().ok());
        let Some(offset) = offset.filter(|offset| *offset <= self.bytes.len()) else {
            return Tried::Refused(format!("Upload-Offset of {:?}", standing.headers()));
        };
        if offset == self.bytes.len() {
            return Tried::Done;
        }
        let until = if self.rng.random_bool(0.5) {
            self.bytes.len()
        } else {
            self.rng.random_range(offset + 1..=self.bytes.len())
        };
        let request = http
            .patch(&url)
            .header("content-type", "application/offset+octet-stream")
            .header("upload-offset", offset.to_string());
        match self.send(request, offset, until).await {
            Tried::Done if until < self.bytes.len() => Tried::Again,
            tried => tried,
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        request
            .bearer_auth(self.identity.token(&self.shared.targets.secret))
            .header("tus-resumable", "1.0.0")
    }

    /// Sends a piece of the bytes; sometimes the connection breaks on the way.
    async fn send(&mut self, request: RequestBuilder, from: usize, until: usize) -> Tried {
        let piece = self.bytes[from..until].to_vec();
        let request = self
            .authorized(request)
            .header("content-length", piece.len().to_string());
        let body = if self.rng.random_bool(BROKEN) {
            let left = piece[..self.rng.random_range(0..piece.len())].to_vec();
            let broken = Err(io::Error::other("the train is in a tunnel"));
            Body::wrap_stream(stream::iter([Ok(left), broken]))
        } else {
            Body::wrap_stream(stream::iter([Ok::<_, Infallible>(piece)]))
        };
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Tried::Done,
            Ok(answer) => judge(answer.status(), "upload"),
            Err(_) => Tried::Again,
        }
    }

    /// Somebody who is not in the chat asks for it.
    fn probe(&mut self) {
        let stranger = {
            let state = self.shared.world.lock();
            let chat = state.chats.get(&self.errand.chat_id);
            let inside = chat
                .map(super::super::world::ChatState::users)
                .unwrap_or_default();
            let strangers: Vec<&Identity> = state
                .devices
                .iter()
                .filter(|device| device.registered && !device.removed)
                .map(|device| &device.identity)
                .filter(|identity| {
                    identity.user_id != self.identity.user_id && !inside.contains(&identity.user_id)
                })
                .collect();
            strangers
                .choose(&mut self.rng)
                .map(|identity| (*identity).clone())
        };
        if let Some(stranger) = stranger {
            let attachment = Attachment {
                attachment_id: self.attachment_id,
                size: self.bytes.len() as u64,
                content_type: String::new(),
                hash: sha256(&self.bytes).to_string(),
                name: None,
            };
            fetch::probe(&self.shared, stranger, attachment);
        }
    }
}

/// What a refusal means.
fn judge(status: StatusCode, what: &str) -> Tried {
    match status {
        // Somebody else writes it, or it stands elsewhere; or too many do.
        StatusCode::CONFLICT | StatusCode::LOCKED | StatusCode::TOO_MANY_REQUESTS => Tried::Again,
        status if status.is_server_error() => Tried::Again,
        // The device was removed meanwhile.
        StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => Tried::Again,
        status => Tried::Refused(format!("{what} was refused with {status}")),
    }
}
