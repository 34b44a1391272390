//! The Rust client of Tidings.
//!
//! [`Client`] stays connected, sends every message once, and hands over every message once:
//! ```no_run
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! use tidings_client::{Client, Content, DiskStore, Event, Options, Tokens};
//!
//! let mut options = Options::new("wss://chat.example.org", Tokens::fixed(token));
//! options.store = Box::new(DiskStore::open("alice-phone.redb")?);
//! let (client, mut events) = Client::connect(options)?;
//! let chat = client.direct_chat("bob".parse()?).await?;
//! let accepted = client.send(chat.chat_id, "hi").await?.accepted().await?;
//! println!("accepted as {}", accepted.seq);
//! while let Some(event) = events.next().await {
//!     if let Event::Delivery(delivery) = event {
//!         if let Content::Message(message) = delivery.content() {
//!             println!("{}: {}", message.user_id, message.message);
//!         }
//!         delivery.confirm();
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//! [`connection::Connection`] is one WebSocket, for programs that want to do everything themselves.

pub mod attachments;
mod backoff;
mod client;
pub mod connection;
mod delivery;
mod disk_store;
mod driver;
mod event;
mod inbox;
mod link;
mod memory_store;
mod options;
mod outbox;
mod request;
pub mod store;
mod tokens;

pub use backoff::Backoff;
pub use client::{Client, State};
pub use delivery::{Content, Delivery};
pub use event::{Event, Events};
pub use link::{Ending, Stopped};
pub use options::Options;
pub use request::{Accepted, Changed, ChatNow, Created, RequestError, Sending};
pub use store::{DiskStore, MemoryStore, Store};
pub use tidings_protocol as protocol;
pub use tokens::{TokenReason, Tokens};
pub use tokio_tungstenite::tungstenite;
