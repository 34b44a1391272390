//! Keeps the logs of long runs from filling the disk.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use super::board::Board;
use super::say::say;

/// How often they are looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// A log above this is put aside; one old log is kept.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Looks after the logs of all processes, for ever.
pub(crate) async fn trim(board: Board) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        for log in board.logs() {
            let trimmed = tokio::task::spawn_blocking(move || put_aside(&log)).await;
            if let Ok(Err(error)) = trimmed {
                say(&format!("cannot put a log aside: {error}"));
            }
        }
    }
}

/// Copies the log and empties it, because its process has it open. Processes append, so they go on at the new end;
/// what they write between copy and cut is lost.
fn put_aside(log: &Path) -> std::io::Result<()> {
    if fs::metadata(log)?.len() <= BYTES_MAX {
        return Ok(());
    }
    fs::copy(log, log.with_extension("log.1"))?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_long_log_is_put_aside_while_it_is_written() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let log = folder.path().join("gateway-1.log");
        let aside = folder.path().join("gateway-1.log.1");
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the folder is writable");
        writer.set_len(BYTES_MAX).expect("the disk has room for a hole");
        put_aside(&log).expect("the folder is writable");
        assert!(!aside.exists(), "it is not long yet");
        writer.write_all(b"x").expect("the folder is writable");
        put_aside(&log).expect("the folder is writable");
        writer.write_all(b"y").expect("the folder is writable");
        assert_eq!(fs::read(&log).expect("it is there"), b"y");
        assert_eq!(fs::metadata(&aside).expect("it is there").len(), BYTES_MAX + 1);
    }
}
