//! An upload into the folder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidings_protocol::ContentHash;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use uuid::Uuid;

use super::data::DataFile;
use super::{Folder, blocking, sync_folder};
use crate::blocks::{ALIGNMENT, BLOCK_BYTES, Blocks};
use crate::error::{BlobError, FinishError};
use crate::hasher::Hasher;
use crate::upload::{Checkpoint, check};

/// How often bytes are brought to the disk while more come: the end has less to wait for, and who resumes less to
/// hash again. A disk of 100 MB/s needs less than a second for it.
const SYNC_BYTES: u64 = 64 * 1024 * 1024;
/// How often a lock is tried again, and how many times: an upload that was dropped may have threads at work.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);
const LOCK_TRIES: u32 = 100;
/// Read at a time when what is there is hashed again.
const READ_BYTES: usize = 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct FolderUpload {
    folder: Arc<Folder>,
    blob_id: Uuid,
    /// Locked, unless `whole`.
    file: Arc<DataFile>,
    /// Somebody has finished it, and may not have been able to tell.
    whole: bool,
    received: u64,
    blocks: Blocks,
    /// Where the last sync began that was begun.
    synced: u64,
    syncing: Option<JoinHandle<io::Result<Checkpoint>>>,
    /// What a sync failed with. The kernel says it once, and takes what it could not write for written from then on.
    failed: Option<io::Error>,
}

/// What is noted of an upload.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    offset: u64,
    sha256: String,
}

/// What was found of an upload.
struct Found {
    file: File,
    whole: bool,
}

impl FolderUpload {
    pub(crate) async fn begin(folder: &Arc<Folder>, blob_id: Uuid) -> Result<Self, BlobError> {
        let path = folder.partial(blob_id);
        let file = blocking(move || {
            let file = options().create_new(true).open(&path).map_err(begin_error)?;
            file.try_lock().map_err(|_| BlobError::Busy)?;
            Ok(file)
        })
        .await?;
        Ok(Self::new(folder, blob_id, file, false, 0, Hasher::default()))
    }

    pub(crate) async fn resume(
        folder: &Arc<Folder>,
        blob_id: Uuid,
        state: Option<&Value>,
    ) -> Result<Self, BlobError> {
        let mut tries = 0;
        let Found { file, whole } = loop {
            let folder = Arc::clone(folder);
            match blocking(move || find(&folder, blob_id)).await {
                Err(BlobError::Busy) if tries < LOCK_TRIES => tries += 1,
                found => break found?,
            }
            sleep(LOCK_INTERVAL).await;
        };
        let noted = state.and_then(|state| State::deserialize(state).ok());
        let (file, received, hasher) = blocking(move || {
            let (received, hasher) = hash_again(&file, noted)?;
            Ok((file, received, hasher))
        })
        .await?;
        Ok(Self::new(folder, blob_id, file, whole, received, hasher))
    }

    fn new(
        folder: &Arc<Folder>,
        blob_id: Uuid,
        file: File,
        whole: bool,
        received: u64,
        hasher: Hasher,
    ) -> Self {
        Self {
            folder: Arc::clone(folder),
            blob_id,
            file: Arc::new(DataFile::new(file)),
            whole,
            received,
            blocks: Blocks::new(hasher),
            synced: received,
            syncing: None,
            failed: None,
        }
    }

    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), BlobError> {
        if self.whole && !bytes.is_empty() {
            return Err(BlobError::Defect(format!("{} is whole already", self.blob_id)));
        }
        while !bytes.is_empty() {
            // A block ends where the next may be written past the cache.
            let begin = self.received - self.blocks.gathered() as u64;
            let end = begin + BLOCK_BYTES as u64 - begin % ALIGNMENT as u64;
            if self.received == end {
                self.flush().await?;
            } else {
                let room = (end - self.received) as usize;
                self.received += self.blocks.gather(&mut bytes, room) as u64;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let offset = self.received - self.blocks.gathered() as u64;
        self.blocks.settle().await?;
        if offset - self.synced >= SYNC_BYTES && self.syncing.is_none() {
            self.synced = offset;
            self.syncing = Some(self.sync(offset));
        }
        let file = Arc::clone(&self.file);
        self.blocks.flush(move |block| file.write(block, offset)).await
    }

    /// Makes everything before `offset`, which was settled, durable.
    fn sync(&self, offset: u64) -> JoinHandle<io::Result<Checkpoint>> {
        let state = State {
            offset,
            sha256: self.blocks.hasher().save(),
        };
        let (file, folder, blob_id) = (Arc::clone(&self.file), Arc::clone(&self.folder), self.blob_id);
        spawn_blocking(move || {
            durable(&folder, blob_id, file.file().sync_data())?;
            sync_folder(&folder.uploads())?;
            Ok(Checkpoint {
                received: offset,
                state: serde_json::to_value(state).expect("plain data serializes"),
            })
        })
    }

    pub(crate) fn due_checkpoint(&mut self) -> Option<Checkpoint> {
        let done = self.syncing.as_mut()?.now_or_never()?;
        self.syncing = None;
        // The next bytes hear of a disk that fails.
        done.unwrap_or_else(|error| Err(io::Error::other(error)))
            .map_err(|error| self.failed = Some(error))
            .ok()
    }

    /// Waits until everything is hashed and written, and no sync is under way.
    async fn settle(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.blocks.settle().await?;
        if let Some(syncing) = &mut self.syncing {
            let done = syncing.await;
            self.syncing = None;
            done.map_err(io::Error::other)??;
        }
        Ok(())
    }

    pub(crate) async fn checkpoint(&mut self) -> Result<Checkpoint, BlobError> {
        self.settle().await?;
        let done = self.sync(self.received).await;
        Ok(done.map_err(|error| BlobError::Defect(error.to_string()))??)
    }

    pub(crate) async fn finish(mut self, expected: ContentHash, size: u64) -> Result<(), FinishError> {
        self.settle().await.map_err(BlobError::from)?;
        let verdict = check(expected, size, self.blocks.hasher().hash(), self.received);
        if let Err(mismatch) = verdict {
            self.folder.remove(self.blob_id).await?;
            return Err(mismatch);
        }
        if !self.whole {
            // In one piece on a thread: who drops this future does not leave half of it.
            let (folder, file, blob_id) = (self.folder, self.file, self.blob_id);
            blocking(move || make_whole(&folder, file.file(), blob_id)).await?;
        }
        Ok(())
    }
}

fn options() -> OpenOptions {
    let mut options = File::options();
    options.read(true).write(true);
    options
}

fn begin_error(error: io::Error) -> BlobError {
    match error.kind() {
        // Nobody knows the id but who reads its row, and goes on with it: before us.
        ErrorKind::AlreadyExists => BlobError::Busy,
        _ => error.into(),
    }
}

/// The file of an upload, locked; a new one where there is none.
fn find(folder: &Folder, blob_id: Uuid) -> Result<Found, BlobError> {
    let partial = folder.partial(blob_id);
    // Whoever holds the lock renames or removes the file at most once or twice before it is ours.
    for _ in 0..8 {
        match File::open(folder.whole(blob_id)) {
            Ok(file) => return Ok(Found { file, whole: true }),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Err(_) => {}
        }
        let file = options().create(true).truncate(false).open(&partial)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BlobError::Busy),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if is_at(&file, &partial)? {
            // Another one can have been finished after the first look, and a new file made by us.
            if folder.whole(blob_id).exists() {
                fs::remove_file(&partial)?;
                continue;
            }
            return Ok(Found { file, whole: false });
        }
    }
    Err(BlobError::Busy)
}

/// Whether `path` still is the name of `file`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => {
            let own = file.metadata()?;
            Ok((own.dev(), own.ino()) == (metadata.dev(), metadata.ino()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Length and hash of what is there, from what was noted on if the file reaches there.
fn hash_again(file: &File, noted: Option<State>) -> Result<(u64, Hasher), BlobError> {
    let length = file.metadata()?.len();
    let noted = noted.filter(|noted| noted.offset <= length);
    let from = noted.and_then(|noted| Some((noted.offset, Hasher::restore(&noted.sha256)?)));
    let (mut offset, mut hasher) = from.unwrap_or_default();
    let mut piece = vec![0; READ_BYTES.min((length - offset) as usize)];
    while offset < length {
        let count = file.read_at(&mut piece, offset)?;
        if count == 0 {
            break;
        }
        hasher.update(&piece[..count]);
        offset += count as u64;
    }
    Ok((offset, hasher))
}

/// Lets nobody go on with what did not get to the disk: it can be read, from memory, and syncs of it succeed from now on.
fn durable(folder: &Folder, blob_id: Uuid, synced: io::Result<()>) -> io::Result<()> {
    if synced.is_err() {
        // If it cannot be removed either, the disk is no use to whoever comes.
        let _ = fs::remove_file(folder.partial(blob_id));
    }
    synced
}

/// On the disk first, then renamed, and the names on the disk.
fn make_whole(folder: &Folder, file: &File, blob_id: Uuid) -> Result<(), BlobError> {
    durable(folder, blob_id, file.sync_all())?;
    let (partial, whole) = (folder.partial(blob_id), folder.whole(blob_id));
    let parent = whole.parent().expect("a blob lies in a folder");
    match fs::create_dir(parent) {
        Ok(()) => sync_folder(&folder.blobs())?,
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        Err(_) => {}
    }
    match fs::rename(partial, &whole) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(BlobError::Missing),
        renamed => renamed?,
    }
    sync_folder(parent)?;
    sync_folder(&folder.uploads())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(temp: &tempfile::TempDir) -> Arc<Folder> {
        let folder = Arc::new(Folder::new(temp.path().to_owned()));
        fs::create_dir_all(folder.uploads()).expect("the temporary folder is writable");
        fs::create_dir_all(folder.blobs()).expect("the temporary folder is writable");
        folder
    }

    /// An upload with some bytes, and a sync that the disk has failed.
    async fn failing(folder: &Arc<Folder>, blob_id: Uuid) -> FolderUpload {
        let mut upload = FolderUpload::begin(folder, blob_id).await.expect("the id is new");
        let bytes = Bytes::from_static(b"some bytes");
        upload.write(bytes).await.expect("there is room");
        upload.syncing = Some(spawn_blocking(|| Err(ErrorKind::StorageFull.into())));
        upload
    }

    #[tokio::test]
    async fn a_failed_sync_is_heard_of_by_who_writes_on() {
        let temp = tempfile::tempdir().expect("the temporary folder is writable");
        let mut upload = failing(&folder(&temp), Uuid::new_v4()).await;
        while upload.syncing.is_some() {
            assert_eq!(upload.due_checkpoint(), None);
            tokio::task::yield_now().await;
        }
        let error = upload.flush().await.expect_err("the disk has failed");
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }

    #[tokio::test]
    async fn a_failed_sync_is_heard_of_by_who_ends() {
        let temp = tempfile::tempdir().expect("the temporary folder is writable");
        let folder = folder(&temp);
        let mut upload = failing(&folder, Uuid::new_v4()).await;
        let checkpoint = upload.checkpoint().await;
        assert!(matches!(checkpoint, Err(BlobError::Full(_))), "{checkpoint:?}");

        let blob_id = Uuid::new_v4();
        let upload = failing(&folder, blob_id).await;
        let hash = ContentHash([0; 32]);
        let finished = upload.finish(hash, 10).await;
        assert!(
            matches!(finished, Err(FinishError::Blob(BlobError::Full(_)))),
            "{finished:?}"
        );
        assert!(!folder.whole(blob_id).exists());
    }

    #[tokio::test]
    async fn nobody_goes_on_with_what_did_not_get_to_the_disk() {
        let temp = tempfile::tempdir().expect("the temporary folder is writable");
        let (folder, blob_id) = (folder(&temp), Uuid::new_v4());
        let mut upload = FolderUpload::begin(&folder, blob_id)
            .await
            .expect("the id is new");
        let bytes = Bytes::from_static(b"some bytes");
        upload.write(bytes).await.expect("there is room");
        let noted = upload.checkpoint().await.expect("there is room");
        durable(&folder, blob_id, Ok(())).expect("it is");
        durable(&folder, blob_id, Err(ErrorKind::StorageFull.into())).expect_err("it is not");
        drop(upload);
        let upload = FolderUpload::resume(&folder, blob_id, Some(&noted.state)).await;
        assert_eq!(upload.expect("it begins anew").received(), 0);
    }
}
