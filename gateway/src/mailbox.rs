//! What the rest of the gateway tells a connection. Bounded, and never waited for: what does not fit is found by
//! a reading of the inbox.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_nats::{CloseReason, Entry};
use tokio::sync::Notify;

/// Notices that wait for a connection; as many as may be unconfirmed, since no more could be sent.
const NOTICES_MAX: usize = tidings_protocol::WINDOW_MAX;

/// What a connection is told.
#[derive(Debug)]
pub(crate) enum Mail {
    /// A notice may have been lost.
    Doubt,
    /// An entry was stored in the inbox.
    Notice {
        /// The entry, decoded once for all its recipients here.
        entry: Arc<Entry>,
        /// Its stream sequence in the inbox.
        sequence: u64,
        /// Its size, for the window.
        bytes: usize,
    },
    /// Every worker knows of the session.
    FencePassed,
    /// The last sequence stored in the inbox.
    Checked(u64),
    /// The connection is to end.
    Close(Ending),
}

/// Why a connection is to end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody asked for it.
    Asked(CloseReason),
    /// The gateway stops.
    Restart,
}

/// A connection's mailbox. Costs a lock and a few words while it is empty.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    mail: VecDeque<Mail>,
    notices: usize,
    doubt: bool,
    close: Option<Ending>,
}

impl Mailbox {
    /// A notice; if there is no room, doubt instead.
    pub(crate) fn notice(&self, entry: Arc<Entry>, sequence: u64, bytes: usize) {
        {
            let mut state = self.state.lock();
            if state.doubt {
                // A reading follows anyway.
                return;
            }
            if state.notices < NOTICES_MAX {
                state.notices += 1;
                state.mail.push_back(Mail::Notice {
                    entry,
                    sequence,
                    bytes,
                });
            } else {
                state.doubt();
            }
        }
        self.filled.notify_one();
    }

    /// A notice may have been lost.
    pub(crate) fn doubt(&self) {
        self.state.lock().doubt();
        self.filled.notify_one();
    }

    /// Every worker knows of the session.
    pub(crate) fn fence_passed(&self) {
        self.state.lock().mail.push_back(Mail::FencePassed);
        self.filled.notify_one();
    }

    /// The last sequence stored in the inbox, from a check.
    pub(crate) fn checked(&self, last: u64) {
        self.state.lock().mail.push_back(Mail::Checked(last));
        self.filled.notify_one();
    }

    /// The connection is to end; the first reason counts.
    pub(crate) fn close(&self, ending: Ending) {
        self.state.lock().close.get_or_insert(ending);
        self.filled.notify_one();
    }

    /// The next letter. Cancel-safe: a letter is taken only when it is returned.
    pub(crate) async fn next(&self) -> Mail {
        loop {
            if let Some(mail) = self.state.lock().take() {
                return mail;
            }
            self.filled.notified().await;
        }
    }

    /// The next letter, if there is one now.
    pub(crate) fn try_next(&self) -> Option<Mail> {
        self.state.lock().take()
    }
}

impl State {
    /// Notices before the doubt are found by the reading that follows it.
    fn doubt(&mut self) {
        self.doubt = true;
        self.notices = 0;
        self.mail.retain(|mail| !matches!(mail, Mail::Notice { .. }));
    }

    fn take(&mut self) -> Option<Mail> {
        if let Some(ending) = self.close.take() {
            return Some(Mail::Close(ending));
        }
        if std::mem::take(&mut self.doubt) {
            return Some(Mail::Doubt);
        }
        let mail = self.mail.pop_front();
        if matches!(mail, Some(Mail::Notice { .. })) {
            self.notices -= 1;
        }
        if self.mail.is_empty() {
            self.mail.shrink_to_fit();
        }
        mail
    }
}
