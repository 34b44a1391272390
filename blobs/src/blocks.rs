//! Gathers bytes into blocks, and has each hashed and written to a file at the same time, while the next is gathered.

mod block;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::hasher::Hasher;
pub(crate) use block::ALIGNMENT;
use block::Block;

/// Large enough that the hand-over to a thread costs nothing beside the hashing, small enough that the two of an
/// upload (one that is gathered, one in hand) are 1 MiB.
pub(crate) const BLOCK_BYTES: usize = 512 * 1024;

/// See the module. Its futures may be dropped; threads end what they have begun, and hold the file as long.
#[derive(Debug)]
pub(crate) struct Blocks {
    gathered: Block,
    /// What is being hashed and written. It is gathered into again, so that nothing is allocated while bytes flow.
    sent: Option<Arc<Block>>,
    /// `None` while `hashing` has it.
    hasher: Option<Hasher>,
    hashing: Option<JoinHandle<Hasher>>,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Blocks {
    /// Goes on from a hash.
    pub(crate) fn new(hasher: Hasher) -> Self {
        Self {
            gathered: Block::default(),
            sent: None,
            hasher: Some(hasher),
            hashing: None,
            writing: None,
        }
    }

    /// How many bytes are gathered.
    pub(crate) fn gathered(&self) -> usize {
        self.gathered.bytes().len()
    }

    /// Whether nothing more can be gathered before [`Blocks::flush`].
    pub(crate) fn is_full(&self) -> bool {
        self.gathered() >= BLOCK_BYTES
    }

    /// Takes as many bytes as fit and at most `limit` off the front; says how many.
    pub(crate) fn gather(&mut self, bytes: &mut Bytes, limit: usize) -> usize {
        let count = bytes.len().min(limit).min(BLOCK_BYTES - self.gathered());
        // A picture needs no more than its size, and a block is never moved while it grows.
        let capacity = if self.gathered() == 0 && count == bytes.len() {
            count
        } else {
            BLOCK_BYTES
        };
        self.gathered.push(&bytes.split_to(count), capacity);
        count
    }

    /// Sends what is gathered on its way to where `write` puts it, once what was sent before has arrived.
    pub(crate) async fn flush(
        &mut self,
        write: impl FnOnce(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.settle().await?;
        if self.gathered() == 0 {
            return Ok(());
        }
        let mut hasher = self.hasher.take().expect("nothing is being hashed");
        let mut spare = self.sent.take().and_then(Arc::into_inner).unwrap_or_default();
        spare.clear();
        let block = Arc::new(std::mem::replace(&mut self.gathered, spare));
        self.sent = Some(Arc::clone(&block));
        let hashed = Arc::clone(&block);
        self.hashing = Some(spawn_blocking(move || {
            hasher.update(hashed.bytes());
            hasher
        }));
        self.writing = Some(spawn_blocking(move || write(block.bytes())));
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
