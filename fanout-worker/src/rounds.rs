//! Rounds: what may wait for a moment is done together, unless somebody waits for it.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use parking_lot::Mutex;
use tidings_protocol::ChatId;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod schedule_tests;

/// How long a round is, and how many go together.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Bounds {
    /// Who comes first waits so long.
    pub(crate) length: Duration,
    /// So many do not wait any longer.
    pub(crate) most: usize,
    /// Nor do so many of one chat.
    pub(crate) most_of_chat: usize,
}

/// Lets everybody go on who has come within some time; at once where they are many, or where somebody is in a hurry.
#[derive(Debug)]
pub(crate) struct Rounds {
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The round that one can still come to, unless its time is over.
    open: Option<Round>,
    /// The chat of each who waits in it: [`Bounds::most`] places, which are used again.
    chats: Vec<ChatId>,
    /// Who is in a hurry, and how many times: one entry for each event that waits to be admitted or partition that is
    /// given away, of which there are as many as a worker has in hand.
    hurries: HashMap<Whose, usize>,
}

#[derive(Clone, Debug)]
struct Round {
    ends: Instant,
    over: CancellationToken,
}

/// What is not to wait.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    /// Whatever comes.
    All,
    /// What is of this chat, and whatever waits with it.
    Chat(ChatId),
}

/// As long as this is there, what it names does not wait.
#[derive(Debug)]
pub(crate) struct Hurry {
    rounds: Arc<Rounds>,
    whose: Whose,
}

impl Rounds {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let state = State {
            chats: Vec::with_capacity(bounds.most),
            ..State::default()
        };
        Arc::new(Self {
            bounds,
            state: Mutex::new(state),
        })
    }

    /// Waits for the end of the round: its length at most.
    pub(crate) async fn next(&self, chat_id: ChatId) {
        if let Some(Round { ends, over }) = self.come(chat_id) {
            // Whether it was ended or its time was over is all the same.
            let _ = timeout_at(ends, over.cancelled()).await;
        }
    }

    /// Ends the round that is open if something waits in it that is meant, and lets nothing of that wait from now on.
    pub(crate) fn hurry(self: &Arc<Self>, whose: Whose) -> Hurry {
        let mut state = self.state.lock();
        *state.hurries.entry(whose).or_default() += 1;
        let is_meant = match whose {
            Whose::All => true,
            Whose::Chat(chat_id) => state.chats.contains(&chat_id),
        };
        if is_meant {
            state.end();
        }
        Hurry {
            rounds: self.clone(),
            whose,
        }
    }

    /// Ends the round that is open.
    pub(crate) fn end(&self) {
        self.state.lock().end();
    }

    /// The round to wait for; None if it is over with whoever has come.
    fn come(&self, chat_id: ChatId) -> Option<Round> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.open.as_ref().is_some_and(|round| now >= round.ends) {
            state.end();
        }
        let of_chat = state.chats.iter().filter(|other| **other == chat_id).count();
        if state.chats.len() + 1 >= self.bounds.most
            || of_chat + 1 >= self.bounds.most_of_chat
            || state.hurries.contains_key(&Whose::All)
            || state.hurries.contains_key(&Whose::Chat(chat_id))
        {
            state.end();
            return None;
        }
        state.chats.push(chat_id);
        let round = state.open.get_or_insert_with(|| Round {
            ends: now + self.bounds.length,
            over: CancellationToken::new(),
        });
        Some(round.clone())
    }
}

impl State {
    fn end(&mut self) {
        self.chats.clear();
        if let Some(round) = self.open.take() {
            round.over.cancel();
        }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        let mut state = self.rounds.state.lock();
        if let Some(times) = state.hurries.get_mut(&self.whose) {
            *times -= 1;
            if *times == 0 {
                state.hurries.remove(&self.whose);
            }
        }
    }
}
