//! Gathers bytes into blocks, and has each hashed and written to a file at the same time, while the next is gathered.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::hasher::Hasher;

/// Large enough that the hand-over to a thread costs nothing beside the hashing, small enough that the two of an
/// upload (one that is gathered, one in hand) are 1 MiB.
pub(crate) const BLOCK_BYTES: usize = 512 * 1024;

/// See the module. Its futures may be dropped; threads end what they have begun, and hold the file as long.
#[derive(Debug)]
pub(crate) struct Blocks {
    gathered: Vec<u8>,
    /// What is being hashed and written. It is gathered into again, so that nothing is allocated while bytes flow.
    sent: Option<Arc<Vec<u8>>>,
    /// `None` while `hashing` has it.
    hasher: Option<Hasher>,
    hashing: Option<JoinHandle<Hasher>>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Blocks {
    /// Goes on from a hash.
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self {
            gathered: Vec::new(),
            sent: None,
            hasher: Some(hasher),
            hashing: None,
            writing: None,
        }
    }

    /// How many bytes are gathered.
    pub(crate) fn gathered(&self) -> usize {
        self.gathered.len()
    }

    /// Whether nothing more can be gathered before [`Blocks::flush`].
    pub(crate) fn is_full(&self) -> bool {
        self.gathered.len() >= BLOCK_BYTES
    }

    /// Takes as many bytes as fit and at most `limit` off the front; says how many.
    pub(crate) fn gather(&mut self, bytes: &mut Bytes, limit: usize) -> usize {
        let count = bytes.len().min(limit).min(BLOCK_BYTES - self.gathered.len());
        if self.gathered.capacity() == 0 {
            // A picture needs no more than its size, and a block is never moved while it grows.
            let capacity = if count == bytes.len() { count } else { BLOCK_BYTES };
            self.gathered.reserve_exact(capacity);
        } else if self.gathered.capacity() - self.gathered.len() < count {
            self.gathered.reserve_exact(BLOCK_BYTES - self.gathered.len());
        }
        self.gathered.extend_from_slice(&bytes.split_to(count));
        count
    }

    /// Sends what is gathered on its way to `offset` of the file, once what was sent before has arrived.
    pub(crate) async fn flush(&mut self, file: &Arc<File>, offset: u64) -> io::Result<()> {
        self.settle().await?;
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut hasher = self.hasher.take().expect("nothing is being hashed");
        let mut spare = self.sent.take().and_then(Arc::into_inner).unwrap_or_default();
        spare.clear();
        let block = Arc::new(std::mem::replace(&mut self.gathered, spare));
        self.sent = Some(Arc::clone(&block));
        let (hashed, file) = (Arc::clone(&block), Arc::clone(file));
        self.hashing = Some(spawn_blocking(move || {
            hasher.update(&hashed);
            hasher
        }));
        self.writing = Some(spawn_blocking(move || file.write_all_at(&block, offset)));
        Ok(())
    }

    /// Waits until what was sent has been hashed and written.
    pub(crate) async fn settle(&mut self) -> io::Result<()> {
        if let Some(hashing) = &mut self.hashing {
            self.hasher = Some(
                hashing
                    .await
                    .expect("the hash does not panic, and nobody aborts it"),
            );
            self.hashing = None;
        }
        if let Some(writing) = &mut self.writing {
            let written = writing.await.map_err(io::Error::other);
            self.writing = None;
            written??;
        }
        Ok(())
    }

    /// The hash of everything that was flushed. Must be settled.
    pub(crate) fn hasher(&self) -> &Hasher {
        self.hasher.as_ref().expect("nothing is being hashed")
    }
}
