//! What came for this client, and the word that it was taken.

use tidings_protocol::{ChatUpdate, InboxTrimmed, NewMessage};
use tokio::sync::mpsc;

use crate::inbox::Key;

/// Something that came for this client, once. When the application has stored it, or shown it, or whatever
/// it does with it, it says [`confirm`](Self::confirm): only then does the server forget it. Dropped without
/// that word it comes again on the next connection.
#[derive(Debug)]
pub struct Delivery {
    content: Content,
    key: Key,
    verdicts: mpsc::UnboundedSender<Verdict>,
    confirmed: bool,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A message.
    Message(NewMessage),
    /// The participants of a chat have changed.
    Update(ChatUpdate),
    /// Something was dropped from the inbox.
    Trimmed(InboxTrimmed),
}

/// What the application did with a delivery.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Verdict {
    Confirmed(Key),
    Abandoned(Key),
}

impl Delivery {
    pub(crate) fn new(content: Content, key: Key, verdicts: mpsc::UnboundedSender<Verdict>) -> Self {
        Self {
            content,
            key,
            verdicts,
            confirmed: false,
        }
    }

    /// What it is. Its `delivery` number is the library's business.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The application has it. The library notes that in its memory and then tells the server, at the latest
    /// after 200 ms; [`Client::flush`](crate::Client::flush) waits for it. What is confirmed after the client
    /// has stopped comes again.
    pub fn confirm(mut self) {
        self.confirmed = true;
        // A client that has stopped does not listen.
        self.verdicts.send(Verdict::Confirmed(self.key)).ok();
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.confirmed {
            self.verdicts.send(Verdict::Abandoned(self.key)).ok();
        }
    }
}
