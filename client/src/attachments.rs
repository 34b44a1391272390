//! Attachments: bytes go up and come down over HTTP, beside the connection.
//!
//! ```no_run
//! # async fn example(client: tidings_client::Client, chat_id: tidings_client::protocol::ChatId) -> Result<(), Box<dyn std::error::Error>> {
//! let file = tokio::fs::File::open("cat.png").await?;
//! let cat = client.upload(file, "image/png", Some("cat.png"), |_| {}).await?;
//! client.send_with(chat_id, "look", vec![cat.attachment_id]).await?;
//! # Ok(())
//! # }
//! ```
//! Whoever receives the message calls [`Client::download`](crate::Client::download) with what it says of the
//! attachment. Both go on by themselves after a lost connection, also in another run of the program, and both
//! hold no more than a few pieces in memory.

mod bearer;
mod download;
mod media;
mod part_file;
mod progress;
mod retry;
mod source;
mod upload;

pub use download::DownloadError;
pub use progress::{Progress, Stage};
pub use upload::UploadError;

pub(crate) use media::{Media, Session};

/// Bytes read, hashed and sent at once.
const PIECE_BYTES: usize = 256 << 10;

/// As it stands in a `createAttachment` and in an attachment.
fn hex(hash: &[u8]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
