//! The store as a folder: `blobs/<2 hex>/<id>` is whole, `uploads/<id>` is not.
//!
//! A file comes to `blobs` only by a rename, after it was checked and is on the disk. Whoever writes `uploads/<id>`
//! holds an exclusive lock on it, which ends with the process however that ends. What a killed process has received
//! lies in its file up to the last byte that was handed to the system, and is hashed again by who resumes.

mod data;
mod list;
mod upload;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use crate::error::BlobError;
use crate::pieces::pieces;
pub(crate) use list::list;
pub(crate) use upload::FolderUpload;

/// The name of the file with the store's id.
pub(crate) const MARKER: &str = "tidings-store";

/// See the module.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn partial(&self, blob_id: Uuid) -> PathBuf {
        self.uploads().join(blob_id.to_string())
    }

    fn whole(&self, blob_id: Uuid) -> PathBuf {
        let name = blob_id.to_string();
        self.blobs().join(&name[..2]).join(&name)
    }

    pub(crate) async fn id(self: &Arc<Self>) -> Result<Option<Uuid>, BlobError> {
        let folder = Arc::clone(self);
        blocking(move || folder.read_marker()).await
    }

    fn read_marker(&self) -> Result<Option<Uuid>, BlobError> {
        match fs::read_to_string(self.root.join(MARKER)) {
            Ok(text) => parse_marker(&text).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn claim(self: &Arc<Self>, id: Uuid) -> Result<Uuid, BlobError> {
        let folder = Arc::clone(self);
        blocking(move || {
            fs::create_dir_all(folder.uploads())?;
            fs::create_dir_all(folder.blobs())?;
            // A link is made only where there is none, and of a file that is whole.
            let new = folder.root.join(format!("{MARKER}-{id}"));
            let mut file = File::create(&new)?;
            writeln!(file, "{id}")?;
            file.sync_all()?;
            let linked = fs::hard_link(&new, folder.root.join(MARKER));
            fs::remove_file(&new)?;
            match linked {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
                _ => sync_folder(&folder.root)?,
            }
            let marker = folder.read_marker()?;
            marker.ok_or_else(|| BlobError::Defect(format!("somebody removes {MARKER}")))
        })
        .await
    }

    pub(crate) async fn read(
        &self,
        blob_id: Uuid,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let (path, root) = (self.whole(blob_id), self.root.clone());
        let end = range.end;
        let file = blocking(move || match File::open(path) {
            Ok(file) if file.metadata()?.len() < end => {
                Err(BlobError::Defect(format!("{blob_id} is shorter than it was")))
            }
            Ok(file) => Ok(file),
            // Of a disk that is not mounted nothing is known.
            Err(error) if error.kind() == ErrorKind::NotFound && root.join(MARKER).exists() => {
                Err(BlobError::Missing)
            }
            Err(error) => Err(error.into()),
        })
        .await?;
        Ok(pieces(Arc::new(file), range).map_err(BlobError::from).boxed())
    }

    pub(crate) async fn remove(self: &Arc<Self>, blob_id: Uuid) -> Result<(), BlobError> {
        let folder = Arc::clone(self);
        blocking(move || {
            // In this order: what a writer has renamed in between is found at its new place.
            for path in [folder.partial(blob_id), folder.whole(blob_id)] {
                match fs::remove_file(path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}

/// The id in a marker.
pub(crate) fn parse_marker(text: &str) -> Result<Uuid, BlobError> {
    let id = text.trim().parse();
    id.map_err(|_| BlobError::Defect(format!("{MARKER} holds no id")))
}

/// Makes the names in a folder durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Runs what may wait for a disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    spawn_blocking(work)
        .await
        .map_err(|error| BlobError::Defect(error.to_string()))?
}
