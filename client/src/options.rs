//! What a client is made with.

use tidings_protocol::{ClientId, Codec};

use crate::store::{MemoryStore, Store};
use crate::tokens::Tokens;

/// Requests without a final answer that a client holds, if not said otherwise.
const OUTBOX_MAX: usize = 1_000;

/// How to connect, and what to remember.
pub struct Options {
    /// The gateways, any of which will do: `ws://` or `wss://`; without a path they mean `/v1/ws`. One of
    /// them is tried, and the next one after each failure.
    pub urls: Vec<String>,
    /// Which subprotocol to speak. Postcard by default: smaller, and cheaper to read.
    pub codec: Codec,
    /// Where tokens come from.
    pub tokens: Tokens,
    /// What the user calls this device: 1 to 100 characters.
    pub name: Option<String>,
    /// Which client of the same user to remove, if there are too many.
    pub replace: Option<ClientId>,
    /// Where to remember what was taken and what is to be sent.
    pub store: Box<dyn Store>,
    /// Requests without a final answer at once; more are refused with
    /// [`RequestError::OutboxFull`](crate::RequestError::OutboxFull).
    pub outbox_max: usize,
}

impl Options {
    /// One gateway, the postcard codec, a memory that is gone with the process.
    pub fn new(url: impl Into<String>, tokens: Tokens) -> Self {
        Self {
            urls: vec![url.into()],
            codec: Codec::Postcard,
            tokens,
            name: None,
            replace: None,
            store: Box::new(MemoryStore::default()),
            outbox_max: OUTBOX_MAX,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("urls", &self.urls)
            .field("codec", &self.codec)
            .field("name", &self.name)
            .field("replace", &self.replace)
            .finish_non_exhaustive()
    }
}
