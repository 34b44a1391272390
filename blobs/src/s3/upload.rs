//! An upload to S3.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::TryStreamExt as _;
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::signer::Method;
use object_store::{GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings_protocol::ContentHash;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::{S3, URL_LIFE, error};
use crate::blocks::Blocks;
use crate::error::{BlobError, FinishError};
use crate::hasher::Hasher;
use crate::upload::{Checkpoint, check};

/// All parts but the last are of this size: some servers want them all alike, none takes less than 5 MiB, and 10,000
/// of them are 80 GiB.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// See the module. Its bytes are those of `parts`, of the part that is being sent, and of `spool`.
#[derive(Debug)]
pub(crate) struct S3Upload {
    s3: Arc<S3>,
    blob_id: Uuid,
    /// Somebody has finished it, and may not have been able to tell.
    whole: bool,
    received: u64,
    blocks: Blocks,
    spool: Option<Arc<File>>,
    /// How many bytes of the spool count, those of `blocks` included.
    filled: u64,
    /// The spool of the last part that was sent.
    spare: Option<Arc<File>>,
    multipart: Option<String>,
    parts: Vec<String>,
    /// The hash at the end of `parts`.
    parts_sha256: String,
    sending: Option<Sending>,
    due: bool,
    /// What a part failed with while nobody waited.
    failed: Option<BlobError>,
    /// The tail that the last checkpoint names.
    tail: Option<String>,
    /// Tails that only checkpoints before it name.
    stale: Vec<String>,
    /// Whether something can be there that an earlier request has left.
    resumed: bool,
    /// Whether there can be something to remove at all.
    traces: bool,
    _writing: Writing,
}

#[derive(Debug)]
struct Sending {
    task: AbortOnDropHandle<Result<String, BlobError>>,
    spool: Arc<File>,
    sha256: String,
}

/// What is noted of an upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    multipart: Option<String>,
    /// Their `ETag`s.
    parts: Vec<String>,
    parts_sha256: String,
    tail: Option<Tail>,
    stale: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tail {
    name: String,
    size: u64,
    sha256: String,
}

/// That an upload is written by this process.
#[derive(Debug)]
struct Writing {
    all: Arc<Mutex<HashSet<Uuid>>>,
    blob_id: Uuid,
}

impl Writing {
    fn begin(s3: &S3, blob_id: Uuid) -> Result<Self, BlobError> {
        let all = Arc::clone(&s3.writing);
        if !all.lock().insert(blob_id) {
            return Err(BlobError::Busy);
        }
        Ok(Self { all, blob_id })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.all.lock().remove(&self.blob_id);
    }
}

/// The multipart upload that a noted state names.
pub(crate) fn multipart_of(state: &Value) -> Option<String> {
    State::deserialize(state).ok()?.multipart
}

impl S3Upload {
    pub(crate) fn begin(s3: &Arc<S3>, blob_id: Uuid) -> Result<Self, BlobError> {
        let writing = Writing::begin(s3, blob_id)?;
        Ok(Self {
            s3: Arc::clone(s3),
            blob_id,
            whole: false,
            received: 0,
            blocks: Blocks::new(Hasher::default()),
            spool: None,
            filled: 0,
            spare: None,
            multipart: None,
            parts: Vec::new(),
            parts_sha256: Hasher::default().save(),
            sending: None,
            due: false,
            failed: None,
            tail: None,
            stale: Vec::new(),
            resumed: false,
            traces: false,
            _writing: writing,
        })
    }

    pub(crate) async fn resume(
        s3: &Arc<S3>,
        blob_id: Uuid,
        state: Option<&Value>,
    ) -> Result<Self, BlobError> {
        let mut upload = Self::begin(s3, blob_id)?;
        upload.resumed = true;
        upload.traces = true;
        let state = state.and_then(|state| State::deserialize(state).ok());
        match s3.store.head(&s3.whole(blob_id)).await.map_err(BlobError::from) {
            Ok(object) => {
                upload.whole = true;
                upload.hash_whole(object.size).await?;
                return Ok(upload);
            }
            Err(BlobError::Missing) => {}
            Err(error) => return Err(error),
        }
        let Some(state) = state else {
            return Ok(upload);
        };
        // Whatever does not hold leaves an upload from the beginning; what is there of it goes when it ends.
        if let Some(id) = &state.multipart
            && !upload.is_there(id).await?
        {
            return Ok(upload);
        }
        let Some(hasher) = Hasher::restore(&state.parts_sha256) else {
            return Ok(upload);
        };
        upload.received = state.parts.len() as u64 * PART_BYTES;
        upload.multipart = state.multipart;
        upload.parts = state.parts;
        upload.parts_sha256 = state.parts_sha256;
        upload.stale = state.stale;
        upload.blocks = Blocks::new(hasher);
        if let Some(tail) = state.tail {
            upload.fetch_tail(tail).await?;
        }
        Ok(upload)
    }

    /// Whether S3 still has the parts.
    async fn is_there(&self, multipart: &str) -> Result<bool, BlobError> {
        let query = [("uploadId", multipart), ("max-parts", "1")];
        let path = self.s3.whole(self.blob_id);
        let url = self.s3.sign(Method::GET, &path, URL_LIFE, &query).await?;
        let away = |error: reqwest::Error| BlobError::Away(error.without_url().to_string());
        let answer = self.s3.http.get(url).send().await.map_err(away)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(true);
        }
        match error::of_status(status, &answer.text().await.map_err(away)?) {
            BlobError::Missing => Ok(false),
            error => Err(error),
        }
    }

    /// Brings the tail back into the spool, if it is as it was noted.
    async fn fetch_tail(&mut self, tail: Tail) -> Result<(), BlobError> {
        let path = self.s3.tails(self.blob_id).join(tail.name.as_str());
        let Some(hasher) = Hasher::restore(&tail.sha256).filter(|_| tail.size <= PART_BYTES) else {
            return Ok(());
        };
        let answer = match self.s3.store.get(&path).await.map_err(BlobError::from) {
            Err(BlobError::Missing) => return Ok(()),
            answer => answer?,
        };
        if answer.meta.size != tail.size {
            return Ok(());
        }
        let spool = self.spool().await?;
        let mut bytes = answer.into_stream();
        let mut offset = 0;
        while let Some(piece) = bytes.try_next().await? {
            let (spool, length) = (Arc::clone(&spool), piece.len() as u64);
            run(move || spool.write_all_at(&piece, offset)).await?;
            offset += length;
        }
        self.filled = tail.size;
        self.received += tail.size;
        self.blocks = Blocks::new(hasher);
        self.tail = Some(tail.name);
        Ok(())
    }

    /// Nothing was told of how it was finished: it is read again.
    async fn hash_whole(&mut self, size: u64) -> Result<(), BlobError> {
        let mut hasher = Hasher::default();
        if size > 0 {
            let options = GetOptions {
                range: Some(GetRange::Bounded(0..size)),
                ..GetOptions::default()
            };
            let answer = self
                .s3
                .store
                .get_opts(&self.s3.whole(self.blob_id), options)
                .await?;
            let mut bytes = answer.into_stream();
            while let Some(piece) = bytes.try_next().await? {
                hasher = run(move || {
                    hasher.update(&piece);
                    Ok(hasher)
                })
                .await?;
            }
        }
        self.received = size;
        self.blocks = Blocks::new(hasher);
        Ok(())
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), BlobError> {
        if self.whole && !bytes.is_empty() {
            return Err(BlobError::Defect(format!("{} is whole already", self.blob_id)));
        }
        while !bytes.is_empty() {
            if self.filled == PART_BYTES {
                self.cut_part().await?;
            } else if self.blocks.is_full() {
                self.flush().await?;
            } else {
                let room = PART_BYTES - self.filled;
                let count = self.blocks.gather(&mut bytes, room as usize) as u64;
                self.filled += count;
                self.received += count;
            }
        }
        Ok(())
    }

    /// The file that the part in hand is gathered in.
    async fn spool(&mut self) -> Result<Arc<File>, BlobError> {
        if let Some(spool) = &self.spool {
            return Ok(Arc::clone(spool));
        }
        let spool = if let Some(spare) = self.spare.take() {
            spare
        } else {
            let dir = self.s3.spool_dir.clone();
            Arc::new(run(move || tempfile::tempfile_in(dir)).await?)
        };
        self.spool = Some(Arc::clone(&spool));
        Ok(spool)
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        let spool = self.spool().await?;
        let offset = self.filled - self.blocks.gathered() as u64;
        let write = move |block: &[u8]| spool.write_all_at(block, offset);
        Ok(self.blocks.flush(write).await?)
    }

    /// Sends the spool on its way as a part, once the part before it has arrived.
    async fn cut_part(&mut self) -> Result<(), BlobError> {
        self.flush().await?;
        self.blocks.settle().await?;
        self.sent().await?;
        let path = self.s3.whole(self.blob_id);
        let multipart = if let Some(multipart) = &self.multipart {
            multipart.clone()
        } else {
            // If nobody hears the answer, `remove` finds it by its name.
            self.traces = true;
            self.s3.store.create_multipart(&path).await?
        };
        self.multipart = Some(multipart.clone());
        let spool = self.spool.take().expect("it was just written to");
        let (s3, file, filled) = (Arc::clone(&self.s3), Arc::clone(&spool), self.filled);
        let number = (self.parts.len() + 1).to_string();
        let task = tokio::spawn(async move {
            let query = [("partNumber", number.as_str()), ("uploadId", multipart.as_str())];
            s3.send(&path, &query, &file, filled).await
        });
        self.sending = Some(Sending {
            task: AbortOnDropHandle::new(task),
            spool,
            sha256: self.blocks.hasher().save(),
        });
        self.filled = 0;
        Ok(())
    }

    /// Waits until the part that is being sent has arrived.
    async fn sent(&mut self) -> Result<(), BlobError> {
        if let Some(sending) = &mut self.sending {
            let sent = (&mut sending.task).await;
            self.note_sent(sent);
        }
        self.failed.take().map_or(Ok(()), Err)
    }

    fn note_sent(&mut self, sent: Result<Result<String, BlobError>, tokio::task::JoinError>) {
        let sending = self.sending.take().expect("a part was being sent");
        match sent.unwrap_or_else(|error| Err(BlobError::Defect(error.to_string()))) {
            Ok(etag) => {
                self.parts.push(etag);
                self.parts_sha256 = sending.sha256;
                self.spare = Some(sending.spool);
                self.due = true;
            }
            Err(error) => self.failed = Some(error),
        }
    }

    pub(crate) fn due_checkpoint(&mut self) -> Option<Checkpoint> {
        if let Some(sending) = &mut self.sending
            && let Some(sent) = (&mut sending.task).now_or_never()
        {
            self.note_sent(sent);
        }
        if !std::mem::take(&mut self.due) || self.failed.is_some() {
            return None;
        }
        // The tail of the last checkpoint is in a part now.
        self.stale.extend(self.tail.take());
        Some(self.noted(None))
    }

    fn noted(&self, tail: Option<Tail>) -> Checkpoint {
        let state = State {
            multipart: self.multipart.clone(),
            parts: self.parts.clone(),
            parts_sha256: self.parts_sha256.clone(),
            stale: self.stale.clone(),
            tail,
        };
        let size = state.tail.as_ref().map_or(0, |tail| tail.size);
        Checkpoint {
            received: state.parts.len() as u64 * PART_BYTES + size,
            state: serde_json::to_value(state).expect("plain data serializes"),
        }
    }

    pub(crate) async fn checkpoint(&mut self) -> Result<Checkpoint, BlobError> {
        self.flush().await?;
        self.blocks.settle().await?;
        self.sent().await?;
        self.due = false;
        self.traces = true;
        for name in std::mem::take(&mut self.stale) {
            let path = self.s3.tails(self.blob_id).join(name);
            self.s3.delete(&path).await?;
        }
        let mut tail = None;
        if self.filled > 0 {
            let name = Uuid::new_v4().to_string();
            let path = self.s3.tails(self.blob_id).join(name.as_str());
            let spool = self.spool().await?;
            self.s3.send(&path, &[], &spool, self.filled).await?;
            tail = Some(Tail {
                name,
                size: self.filled,
                sha256: self.blocks.hasher().save(),
            });
        }
        self.stale.extend(self.tail.take());
        self.tail = tail.as_ref().map(|tail| tail.name.clone());
        Ok(self.noted(tail))
    }

    pub(crate) async fn finish(mut self, expected: ContentHash, size: u64) -> Result<(), FinishError> {
        self.flush().await?;
        self.blocks.settle().await.map_err(BlobError::from)?;
        self.sent().await?;
        let verdict = check(expected, size, self.blocks.hasher().hash(), self.received);
        if let Err(mismatch) = verdict {
            if self.traces {
                self.s3.remove(self.blob_id, None).await?;
            }
            return Err(mismatch);
        }
        if !self.whole {
            self.make_whole().await?;
        }
        if self.resumed || self.tail.is_some() || !self.stale.is_empty() {
            self.s3.remove_traces(self.blob_id).await?;
        }
        Ok(())
    }

    async fn make_whole(&mut self) -> Result<(), BlobError> {
        let path = self.s3.whole(self.blob_id);
        let spool = self.spool().await?;
        let Some(multipart) = self.multipart.clone() else {
            self.s3.send(&path, &[], &spool, self.filled).await?;
            return Ok(());
        };
        if self.filled > 0 {
            let number = (self.parts.len() + 1).to_string();
            let query = [("partNumber", number.as_str()), ("uploadId", multipart.as_str())];
            let etag = self.s3.send(&path, &query, &spool, self.filled).await?;
            self.parts.push(etag);
        }
        let parts = self.parts.drain(..).map(|content_id| PartId { content_id });
        let completed = self
            .s3
            .store
            .complete_multipart(&path, &multipart, parts.collect())
            .await;
        match completed.map_err(BlobError::from) {
            // An earlier try that was not answered has done it.
            Err(BlobError::Missing) => drop(self.s3.store.head(&path).await?),
            completed => drop(completed?),
        }
        Ok(())
    }
}

/// Runs what may wait for a disk.
async fn run<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    let done = spawn_blocking(work).await;
    Ok(done.map_err(|error| BlobError::Defect(error.to_string()))??)
}
