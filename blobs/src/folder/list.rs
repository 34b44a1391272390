//! Everything that lies in the folder.

use std::fs::{self, DirEntry};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc::{Sender, channel};
use tokio::task::spawn_blocking;

use super::Folder;
use crate::error::BlobError;
use crate::store::StoredBlob;

/// How far the thread that reads folders may be ahead.
const AHEAD: usize = 64;

/// See the module.
pub(crate) fn list(folder: &Arc<Folder>) -> BoxStream<'static, Result<StoredBlob, BlobError>> {
    let folder = Arc::clone(folder);
    futures::stream::once(async move {
        let (found, mut receiver) = channel(AHEAD);
        spawn_blocking(move || {
            if let Err(error) = walk(&folder, &found) {
                // Nobody listens any more, or hears this.
                let _ = found.blocking_send(Err(error.into()));
            }
        });
        futures::stream::poll_fn(move |context| receiver.poll_recv(context))
    })
    .flatten()
    .boxed()
}

/// Ends early when nobody listens.
fn walk(folder: &Folder, found: &Sender<Result<StoredBlob, BlobError>>) -> io::Result<()> {
    if !each(&folder.uploads(), false, found)? {
        return Ok(());
    }
    for entry in fs::read_dir(folder.blobs())? {
        let path = entry?.path();
        if path.is_dir() && !each(&path, true, found)? {
            break;
        }
    }
    Ok(())
}

/// Whether somebody still listens.
fn each(path: &Path, whole: bool, found: &Sender<Result<StoredBlob, BlobError>>) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        if let Some(blob) = look(&entry?, whole)?
            && found.blocking_send(Ok(blob)).is_err()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `None` for what is not ours, or was removed meanwhile.
fn look(entry: &DirEntry, whole: bool) -> io::Result<Option<StoredBlob>> {
    let Some(blob_id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
        return Ok(None);
    };
    let metadata = match entry.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(StoredBlob {
        blob_id,
        modified: metadata.modified()?,
        whole,
    }))
}
