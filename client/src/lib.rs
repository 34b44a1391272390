//! The Rust client of Tidings.
//!
//! [`connection::Connection`] is one WebSocket, for programs that want to do everything themselves.

pub mod connection;

pub use tidings_protocol as protocol;
pub use tokio_tungstenite::tungstenite;
