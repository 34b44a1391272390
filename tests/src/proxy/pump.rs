//! One direction of a connection.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Mode, State};

/// Bytes taken at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// In which direction.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Course {
    ToServer,
    ToClient,
}

/// Passes bytes on until one side ends, or this direction is closed.
pub(super) async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    course: Course,
    began: State,
    mut state: watch::Receiver<State>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let now = *state.borrow_and_update();
        if course == Course::ToClient && now.half_closes > began.half_closes {
            break;
        }
        let changed = if now.mode.stalls(course) {
            // What is not read stays in the sender's hands.
            state.changed().await.map(|()| None)
        } else {
            tokio::select! {
                changed = state.changed() => changed.map(|()| None),
                read = from.read(&mut chunk) => Ok(Some(read.unwrap_or(0))),
            }
        };
        match changed {
            Ok(None) => {}
            Ok(Some(read)) if read > 0 => {
                let mode = state.borrow().mode;
                if let Mode::Slow(wait) = mode {
                    sleep(wait).await;
                }
                if to.write_all(&chunk[..read]).await.is_err() {
                    return;
                }
            }
            // The end of this side, or of the proxy.
            Ok(Some(_)) | Err(_) => break,
        }
    }
    // The other side is told, unless it is gone as well.
    let _ = to.shutdown().await;
}

impl Mode {
    fn stalls(self, course: Course) -> bool {
        match self {
            Self::Stall => true,
            Self::StallToServer => course == Course::ToServer,
            Self::StallToClient => course == Course::ToClient,
            Self::Pass | Self::Refuse | Self::Slow(_) => false,
        }
    }
}
