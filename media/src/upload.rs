//! How bytes get into the store: one way for POST, PUT and tus.
//!
//! The row of the blob is committed before the first byte is written, and the blob counts only once the store has
//! checked it and Postgres says so. What a PUT or POST does not bring to its end is removed at once; what tus does not
//! bring to its end is made durable, for the next request. Whatever this process does not get to is removed by an
//! inbox worker, which knows of it by the row.
//!
//! An upload is a task of its own: the request that brought it is dropped when its client goes away, and then there
//! is still something to do.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde_json::Value;
use tidings_blobs::{Checkpoint, FinishError, Upload};
use tidings_metadata::{AttachmentRecord, Attempt, DatabaseError, FinishedUpload, OpenUpload};
use tidings_protocol::{AttachmentId, UserId};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::linger;
use crate::media::SharedMedia;
use crate::places::UploadPlace;
use crate::spool::{self, Checksum};
use crate::turns::Turn;
use crate::upload_error::UploadError;
use crate::weather::in_time;

/// A client that sends nothing for so long is cut. It holds one of its user's places, and the store's lock.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How often Postgres is told that the bytes are there: it may be away for a failover, and they were expensive.
const FINISH_TRIES: u32 = 3;
/// Between two of them.
const FINISH_RETRY: Duration = Duration::from_secs(2);

/// What is to be uploaded.
#[derive(Debug)]
pub(crate) struct Job {
    /// Into which slot.
    pub(crate) attachment_id: AttachmentId,
    /// Whose. Nobody else uploads into it.
    pub(crate) owner: UserId,
    /// From the beginning or on.
    pub(crate) way: Way,
}

/// How an upload begins and ends.
#[derive(Debug)]
pub(crate) enum Way {
    /// From the beginning to the end; a part is of no use.
    Whole,
    /// On from an offset; what comes is kept.
    On {
        /// Where the client goes on.
        offset: u64,
        /// Of the bytes of this request.
        checksum: Option<Checksum>,
    },
}

/// What there is after a request.
#[derive(Debug)]
pub(crate) struct Received {
    /// The attachment.
    pub(crate) record: AttachmentRecord,
    /// How many bytes; all of them: the attachment is stored.
    pub(crate) bytes: u64,
}

impl Way {
    const fn keeps(&self) -> bool {
        matches!(self, Self::On { .. })
    }
}

/// Takes a body. The task goes on when the request is dropped.
pub(crate) async fn receive(
    media: &SharedMedia,
    place: UploadPlace,
    job: Job,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received, UploadError> {
    let (answer, result) = oneshot::channel();
    let media = media.clone();
    let expects = headers.contains_key(header::EXPECT);
    let tasks = media.context.tasks.clone();
    tasks.spawn(async move {
        let (started, attachment_id) = (Instant::now(), job.attachment_id);
        let mut body = body.into_data_stream();
        // Boxed: it is the largest future here, and most of the time is spent below it.
        let result = Box::pin(run(&media, job, &mut body)).await;
        drop(place);
        count(attachment_id, started, &result);
        let failed = result.is_err();
        let _ = answer.send(result);
        if failed && !expects {
            linger::read_on(media.context.clone(), body).await;
        }
    });
    result.await.unwrap_or(Err(UploadError::Defect))
}

fn count(attachment_id: AttachmentId, started: Instant, result: &Result<Received, UploadError>) {
    let seconds = started.elapsed().as_secs_f64();
    let outcome = match result {
        Ok(received) if received.bytes < received.record.size => "part",
        Ok(_) => "stored",
        Err(error) => error.outcome(),
    };
    metrics::counter!("tidings_media_uploads_total", "outcome" => outcome).increment(1);
    if outcome == "stored" {
        metrics::histogram!("tidings_media_upload_seconds").record(seconds);
    }
    tracing::debug!(attachment.id = %attachment_id, outcome, seconds, "an upload has ended");
}

async fn run(media: &SharedMedia, job: Job, body: &mut BodyDataStream) -> Result<Received, UploadError> {
    let turn = media
        .turns
        .take(job.attachment_id)
        .await
        .ok_or(UploadError::Busy)?;
    let attempt = if job.way.keeps() {
        Attempt::Resume
    } else {
        Attempt::Fresh
    };
    let opened = media.metadata.open_upload(job.attachment_id, &job.owner, attempt);
    let opened = in_time(opened).await??;
    let mut writing = Writing {
        media,
        state: opened.checkpoint.clone(),
        opened,
        keeps: job.way.keeps(),
        turn: &turn,
    };
    let result = writing.write(&job.way, body).await;
    if let Err(error) = &result
        && writing.is_to_be_removed(error)
    {
        writing.remove().await;
    }
    result
}

/// Ends an upload that is not whole, and removes what came of it.
pub(crate) async fn end(
    media: &SharedMedia,
    attachment_id: AttachmentId,
    owner: &UserId,
) -> Result<(), UploadError> {
    let turn = media.turns.take(attachment_id).await.ok_or(UploadError::Busy)?;
    let opened = in_time(media.metadata.open_upload(attachment_id, owner, Attempt::Resume)).await??;
    let writing = Writing {
        media,
        state: opened.checkpoint.clone(),
        opened,
        keeps: false,
        turn: &turn,
    };
    writing.remove().await;
    Ok(())
}

/// An upload that was opened, and so has a row.
struct Writing<'a> {
    media: &'a SharedMedia,
    opened: OpenUpload,
    /// What is known of it to the store, as far as it was noted.
    state: Option<Value>,
    keeps: bool,
    turn: &'a Turn,
}

impl Writing<'_> {
    /// Whether what is there is of no use to anybody. What another process has taken over is its own.
    fn is_to_be_removed(&self, error: &UploadError) -> bool {
        match error {
            UploadError::Mismatch => true,
            UploadError::Busy => false,
            _ => !self.keeps,
        }
    }

    async fn write(&mut self, way: &Way, body: &mut BodyDataStream) -> Result<Received, UploadError> {
        let store = &self.media.store;
        let mut upload = match way {
            Way::Whole => store.begin(self.opened.blob_id).await?,
            Way::On { .. } => store.resume(self.opened.blob_id, self.state.as_ref()).await?,
        };
        let came = match way {
            Way::On { offset, .. } if *offset != upload.received() => {
                return Err(UploadError::Offset(upload.received()));
            }
            Way::Whole | Way::On { checksum: None, .. } => self.take(&mut upload, body).await,
            Way::On {
                checksum: Some(checksum),
                ..
            } => self.take_checked(&mut upload, checksum, body).await,
        };
        if came.is_ok() && upload.received() == self.opened.record.size {
            return self.finish(upload).await;
        }
        if !self.keeps {
            return Err(came.err().unwrap_or(UploadError::ClientGone));
        }
        match came {
            // The store has said that it can do nothing with it any more; the next request looks what is left.
            Err(error @ (UploadError::Full | UploadError::StoreAway | UploadError::Defect)) => {
                return Err(error);
            }
            came => {
                let checkpoint = upload.checkpoint().await?;
                self.note(&checkpoint).await?;
                came?;
            }
        }
        Ok(Received {
            record: self.opened.record.clone(),
            bytes: upload.received(),
        })
    }

    /// Gives the store what comes.
    async fn take<E>(
        &mut self,
        upload: &mut Upload,
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<(), UploadError> {
        let (superseded, giving_up) = (self.turn.superseded(), self.end_of_patience());
        let counter = metrics::counter!("tidings_media_upload_bytes_total");
        loop {
            let next = tokio::select! {
                biased;
                () = superseded.cancelled() => return Err(UploadError::Superseded),
                () = giving_up.cancelled() => return Err(UploadError::Stopping),
                next = tokio::time::timeout(SILENCE_MAX, body.next()) => next,
            };
            let bytes = match next {
                Err(_) => return Err(UploadError::Silent),
                Ok(None) => return Ok(()),
                Ok(Some(Err(_))) => return Err(UploadError::ClientGone),
                Ok(Some(Ok(bytes))) => bytes,
            };
            self.turn.heard();
            let length = bytes.len() as u64;
            if upload.received() + length > self.opened.record.size {
                return Err(UploadError::TooLong);
            }
            upload.write(bytes).await?;
            self.turn.heard();
            counter.increment(length);
            if let Some(checkpoint) = upload.due_checkpoint() {
                self.note_on_the_way(&checkpoint).await?;
            }
        }
    }

    /// The same once it is known that the bytes have the checksum that the client says. Until then they lie elsewhere,
    /// since what was written to an upload is not taken back, and a process may die at any moment.
    async fn take_checked(
        &mut self,
        upload: &mut Upload,
        checksum: &Checksum,
        body: &mut BodyDataStream,
    ) -> Result<(), UploadError> {
        let (superseded, giving_up) = (self.turn.superseded(), self.end_of_patience());
        let room = self.opened.record.size - upload.received();
        let mut heard = body.inspect(|_| self.turn.heard());
        let spooled = spool::spool(&self.media.spool_dir, checksum, room, SILENCE_MAX, &mut heard);
        let mut spooled = tokio::select! {
            () = superseded.cancelled() => return Err(UploadError::Superseded),
            () = giving_up.cancelled() => return Err(UploadError::Stopping),
            spooled = spooled => spooled?,
        };
        self.take(upload, &mut spooled).await
    }

    /// What can be resumed ends when the process is asked to stop, to go on elsewhere; what cannot has more time.
    fn end_of_patience(&self) -> CancellationToken {
        if self.keeps {
            self.media.context.stopping.clone()
        } else {
            self.media.giving_up.clone()
        }
    }

    /// Writes down how far the upload is.
    async fn note(&mut self, checkpoint: &Checkpoint) -> Result<(), UploadError> {
        let Checkpoint { received, state } = checkpoint;
        let OpenUpload { blob_id, fence, .. } = self.opened;
        let noted = self
            .media
            .metadata
            .note_checkpoint(blob_id, fence, *received, state);
        if !in_time(noted).await?? {
            return Err(UploadError::Busy);
        }
        self.state = Some(state.clone());
        Ok(())
    }

    /// The same while more comes: that Postgres is away for a moment does not end an upload.
    async fn note_on_the_way(&mut self, checkpoint: &Checkpoint) -> Result<(), UploadError> {
        match self.note(checkpoint).await {
            Err(UploadError::Database(refusal)) => {
                tracing::debug!(?refusal, "a checkpoint was not noted; the next one will be");
                Ok(())
            }
            result => result,
        }
    }

    async fn finish(&mut self, upload: Upload) -> Result<Received, UploadError> {
        let record = self.opened.record.clone();
        match upload.finish(record.hash, record.size).await {
            Ok(()) => {}
            Err(FinishError::Mismatch { .. }) => return Err(UploadError::Mismatch),
            Err(FinishError::Blob(error)) => return Err(error.into()),
        }
        match self.finish_row().await? {
            FinishedUpload::Stored => {}
            // Another upload of the same content was faster, so this one is of no use, and nobody needs to know.
            FinishedUpload::AlreadyStored => self.remove_doomed().await,
            FinishedUpload::Lost => return Err(UploadError::Busy),
        }
        Ok(Received {
            bytes: record.size,
            record,
        })
    }

    async fn finish_row(&self) -> Result<FinishedUpload, UploadError> {
        let OpenUpload { blob_id, fence, .. } = self.opened;
        let mut tries = 1;
        loop {
            match in_time(self.media.metadata.finish_upload(blob_id, fence)).await {
                Ok(Err(error @ DatabaseError::Unavailable(_))) if tries < FINISH_TRIES => {
                    tracing::debug!(%error, "an upload is not finished in the database yet");
                    tries += 1;
                    tokio::time::sleep(FINISH_RETRY).await;
                }
                result => return Ok(result??),
            }
        }
    }

    /// Dooms it, and removes it at once where that can be done.
    async fn remove(&self) {
        let OpenUpload { blob_id, fence, .. } = self.opened;
        match in_time(self.media.metadata.abandon_upload(blob_id, fence)).await {
            Ok(Ok(())) => self.remove_doomed().await,
            other => {
                tracing::debug!(blob.id = %blob_id, ?other, "an upload was not given up; it will expire");
            }
        }
    }

    async fn remove_doomed(&self) {
        let blob_id = self.opened.blob_id;
        if let Err(error) = self.media.store.remove(blob_id, self.state.as_ref()).await {
            tracing::debug!(blob.id = %blob_id, %error, "an inbox worker will remove a blob");
            return;
        }
        if let Ok(Err(error)) = in_time(self.media.metadata.forget_blob(blob_id)).await {
            tracing::debug!(blob.id = %blob_id, %error, "an inbox worker will forget a blob");
        }
    }
}
