//! Where the bytes of a request with a checksum lie until they have turned out to have it: a file without a name, which
//! is gone with the process.

use std::io::{self, SeekFrom};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _, stream};
use ring::digest;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::upload_error::UploadError;

/// What is read back at once.
const PIECE_BYTES: usize = 256 * 1024;

/// `Upload-Checksum`: the algorithm and what it gives.
#[derive(Clone, Debug)]
pub(crate) struct Checksum {
    algorithm: &'static digest::Algorithm,
    value: Vec<u8>,
}

impl Checksum {
    /// The algorithms, as `Tus-Checksum-Algorithm` names them. SHA-1 is what every tus server must know.
    pub(crate) const ALGORITHMS: &str = "sha1,sha256";

    /// Reads `sha256 <base64>`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once(' ')?;
        let algorithm = match name {
            "sha1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            "sha256" => &digest::SHA256,
            _ => return None,
        };
        let value = BASE64_STANDARD.decode(value.trim()).ok()?;
        (value.len() == algorithm.output_len()).then_some(Self { algorithm, value })
    }
}

/// What has the checksum, to be read once.
pub(crate) type Spooled = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Reads a body of at most `room` bytes to its end, and says whether it has the checksum.
pub(crate) async fn spool<E>(
    dir: &Path,
    checksum: &Checksum,
    room: u64,
    silence_max: Duration,
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
) -> Result<Spooled, UploadError> {
    let mut file = File::from_std(tempfile::tempfile_in(dir).map_err(|error| no_room(&error))?);
    file.set_max_buf_size(PIECE_BYTES);
    let (mut digest, mut length) = (digest::Context::new(checksum.algorithm), 0);
    loop {
        let bytes = match tokio::time::timeout(silence_max, body.next()).await {
            Err(_) => return Err(UploadError::Silent),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(UploadError::ClientGone),
            Ok(Some(Ok(bytes))) => bytes,
        };
        length += bytes.len() as u64;
        if length > room {
            return Err(UploadError::TooLong);
        }
        digest.update(&bytes);
        file.write_all(&bytes).await.map_err(|error| no_room(&error))?;
    }
    if digest.finish().as_ref() != checksum.value {
        return Err(UploadError::Checksum);
    }
    file.flush().await.map_err(|error| no_room(&error))?;
    file.seek(SeekFrom::Start(0))
        .await
        .map_err(|error| no_room(&error))?;
    Ok(Box::pin(pieces(file)))
}

fn pieces(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(file, async |mut file| {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        let read = file.read_buf(&mut piece).await?;
        Ok((read > 0).then(|| (piece.freeze(), file)))
    })
}

fn no_room(error: &io::Error) -> UploadError {
    tracing::error!(%error, "the folder for spooled bodies (--blob-spool-dir) does not take one");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => UploadError::Full,
        _ => UploadError::StoreAway,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_of_the_right_length() {
        for text in [
            "sha1 2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
            "sha256 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ] {
            assert!(Checksum::parse(text).is_some(), "{text}");
        }
        for text in [
            "",
            "sha1",
            "sha1 !",
            "sha256 2jmj7l5rSw0yVb/vlWAYkK/YBwk=",
            "md5 1B2M2Y8AsgTpgAmY7PhCfg==",
        ] {
            assert!(Checksum::parse(text).is_none(), "{text}");
        }
    }
}
