//! Files that are sent and saved, beside the talk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use tidings_client::attachments::{DownloadError, Progress, Stage, UploadError};
use tidings_protocol::{Attachment, ChatId};

use crate::chat::file_name;
use crate::chat::operation::sentence;
use crate::chat::screen::{LineId, ProgressLine, Typed};
use crate::chat::shelf::shown_name;
use crate::chat::talk::{Connection, Talk};
use crate::chat::text::{bytes, clean};

/// Between two looks at a line that changes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What is written where lines cannot change.
const MILESTONE_PERCENT: u64 = 25;

/// A transfer that is over.
pub(super) enum Ended {
    Uploaded {
        line: LineId,
        chat_id: ChatId,
        /// The line without what comes at its end.
        head: String,
        text: String,
        result: Result<Attachment, UploadError>,
    },
    Saved {
        line: LineId,
        head: String,
        target: PathBuf,
        result: Result<(), DownloadError>,
    },
}

impl Talk {
    /// `/send`: uploads, and then sends the message.
    pub(super) async fn send_file(&mut self, file: &Path, text: String, typed: Option<Typed>) {
        let Some(chat_id) = self.open else {
            self.screen
                .status("no chat is open: /list shows your chats, /open bob opens one with bob");
            return;
        };
        let (source, size) = match opened(file).await {
            Ok(opened) => opened,
            Err(error) => {
                let shown = clean(&file.display().to_string());
                self.screen.status(format!("cannot read {shown}: {error}"));
                return;
            }
        };
        let name = file_name::sent(file);
        let kind = mime_guess::from_path(file).first_or_octet_stream();
        let label = format!("[{}, {}]", shown_name(name.as_deref()), bytes(size));
        let label = if text.is_empty() {
            label
        } else {
            format!("{text} {label}")
        };
        let head = self.own_line(None, &label, "…");
        let line = self.screen.own(head.clone(), typed);
        self.say_if_waiting();
        let mut told = Told::new(self.screen.progress(line), head.clone());
        let client = self.client.clone();
        let upload = async move {
            let uploaded = client.upload(source, kind.essence_str(), name.as_deref(), move |progress| {
                told.tell(progress);
            });
            let result = uploaded.await;
            Ended::Uploaded {
                line,
                chat_id,
                head,
                text,
                result,
            }
        };
        self.transfers.push(upload.boxed());
    }

    /// `/save`: downloads what a message named.
    pub(super) fn save_file(&mut self, number: usize, target: Option<PathBuf>, typed: Option<Typed>) {
        let Some(attachment) = self.shelf.get(number).cloned() else {
            self.screen.status(format!(
                "there is no file {number}; files are shown with their numbers"
            ));
            return;
        };
        let name = attachment.name.as_deref().and_then(file_name::harmless);
        let name = name.unwrap_or_else(|| format!("attachment-{number}"));
        // A path is taken at its word; for a folder the name is chosen here.
        let target = match target {
            Some(target) if target.is_dir() => file_name::free(&target, &name),
            Some(target) => target,
            None => file_name::free(Path::new(""), &name),
        };
        let shown = clean(&target.display().to_string());
        let head = format!("saving {shown}, {} …", bytes(attachment.size));
        let line = self.screen.own(head.clone(), typed);
        self.say_if_waiting();
        let mut told = Told::new(self.screen.progress(line), head.clone());
        let client = self.client.clone();
        let download = async move {
            let downloaded = client.download(&attachment, &target, move |progress| told.tell(progress));
            let result = downloaded.await;
            Ended::Saved {
                line,
                head,
                target,
                result,
            }
        };
        self.transfers.push(download.boxed());
    }

    pub(super) async fn take_transfer(&mut self, ended: Ended) {
        match ended {
            Ended::Uploaded {
                line,
                chat_id,
                head,
                text,
                result,
            } => {
                let attachment = match result {
                    Ok(attachment) => attachment,
                    Err(error) => {
                        let why = match error {
                            UploadError::Request(error) => sentence(error),
                            error => clean(&error.to_string()),
                        };
                        return self.screen.amend(line, format!("{head} ✗ {why}"));
                    }
                };
                let named = vec![attachment.attachment_id];
                match self.client.send_with(chat_id, text.clone(), named).await {
                    Ok(sending) => self.await_accepted(line, chat_id, text, vec![attachment], sending),
                    Err(error) => self.screen.amend(line, format!("{head} ✗ {}", sentence(error))),
                }
            }
            Ended::Saved {
                line,
                head,
                target,
                result,
            } => {
                let shown = clean(&target.display().to_string());
                match result {
                    Ok(()) => self.screen.amend(line, format!("saved as {shown} ✓")),
                    Err(error) => self
                        .screen
                        .amend(line, format!("{head} ✗ {}", clean(&error.to_string()))),
                }
            }
        }
    }

    fn say_if_waiting(&self) {
        if self.connection != Connection::Up {
            self.screen.status("waiting for the connection");
        }
    }
}

/// A file and how large it is.
async fn opened(path: &Path) -> std::io::Result<(tokio::fs::File, u64)> {
    let file = tokio::fs::File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    Ok((file, metadata.len()))
}

/// What was told last of a transfer, so that nobody is told too often.
struct Told {
    line: ProgressLine,
    head: String,
    at: Option<Instant>,
    /// The stage, and the milestone within it.
    milestone: Option<(Stage, u64)>,
}

impl Told {
    fn new(line: ProgressLine, head: String) -> Self {
        Self {
            line,
            head,
            at: None,
            milestone: None,
        }
    }

    fn tell(&mut self, progress: Progress) {
        let Progress { stage, done, total } = progress;
        let percent = (done.saturating_mul(100)).checked_div(total).unwrap_or(100);
        let milestone = Some((stage, percent / MILESTONE_PERCENT));
        // Neither reading here nor waiting is worth a line of its own.
        let moving = matches!(stage, Stage::Sending | Stage::Receiving);
        let is_milestone = moving && milestone > self.milestone.filter(|(before, _)| *before == stage);
        let is_due = self.at.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if !is_milestone && !is_due {
            return;
        }
        if moving {
            self.milestone = milestone.max(self.milestone);
        }
        self.at = Some(Instant::now());
        self.line
            .write(format!("{} {}", self.head, words(stage, percent)), is_milestone);
    }
}

fn words(stage: Stage, percent: u64) -> String {
    match stage {
        Stage::Hashing => format!("reading {percent} %"),
        Stage::Waiting => format!("waiting at {percent} %"),
        Stage::Sending | Stage::Receiving => format!("{percent} %"),
    }
}
