//! Reads a range of a file as a stream, off the runtime.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::task::spawn_blocking;

/// Large enough that handing it over costs little beside reading it.
const PIECE_BYTES: u64 = 256 * 1024;
/// One is read while another is sent.
const AHEAD: usize = 2;

/// The bytes of a range, which must lie within the file.
pub(crate) fn pieces(
    file: Arc<File>,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let starts = range.clone().step_by(PIECE_BYTES as usize);
    stream::iter(starts)
        .map(move |start| {
            let file = Arc::clone(&file);
            let length = (range.end - start).min(PIECE_BYTES);
            async move {
                // Not on the thread that reads: each would keep a heap of its own for what others free.
                let mut piece = vec![0; length as usize];
                let read = spawn_blocking(move || {
                    file.read_exact_at(&mut piece, start)?;
                    Ok(Bytes::from(piece))
                });
                read.await.map_err(io::Error::other)?
            }
        })
        .buffered(AHEAD)
}
