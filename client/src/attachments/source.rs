//! What is uploaded: something that can be read from any place, also twice at once.

use std::io::{self, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeek, AsyncSeekExt as _};
use tokio::sync::{Mutex, watch};

use crate::attachments::{PIECE_BYTES, hex};

/// The bytes of an upload. Every read says where, since the body of a broken request may still be reading.
pub(super) struct Source<S>(Arc<Mutex<S>>);

impl<S> Clone for Source<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncSeek + Unpin + Send + 'static> Source<S> {
    pub(super) fn new(bytes: S) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    /// How many there are.
    pub(super) async fn size(&self) -> io::Result<u64> {
        self.0.lock().await.seek(SeekFrom::End(0)).await
    }

    /// The SHA-256 of the first `size` bytes.
    pub(super) async fn hash(&self, size: u64, mut hashed: impl FnMut(u64)) -> io::Result<String> {
        let mut hash = Sha256::new();
        let mut offset = 0;
        while offset < size {
            hashed(offset);
            let piece = self.read_at(offset, size).await?;
            hash.update(&piece);
            offset += piece.len() as u64;
        }
        hashed(size);
        Ok(hex(&hash.finalize()))
    }

    /// The bytes from `offset` to `size`, as a body; `given` is told how far it was read.
    pub(super) fn body(
        &self,
        offset: u64,
        size: u64,
        given: watch::Sender<u64>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let source = self.clone();
        stream::try_unfold(
            (source, offset, given),
            move |(source, offset, given)| async move {
                given.send_replace(offset);
                if offset >= size {
                    return Ok(None);
                }
                let piece = source.read_at(offset, size).await?;
                let next = offset + piece.len() as u64;
                Ok(Some((piece, (source, next, given))))
            },
        )
    }

    async fn read_at(&self, offset: u64, end: u64) -> io::Result<Bytes> {
        let mut source = self.0.lock().await;
        source.seek(SeekFrom::Start(offset)).await?;
        let wanted = (end - offset).min(PIECE_BYTES as u64) as usize;
        let mut piece = vec![0; wanted];
        source.read_exact(&mut piece).await?;
        Ok(piece.into())
    }
}
