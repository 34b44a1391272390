//! Whose clients changed lately: a hello that was under way meanwhile looks again at what it read before.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tidings_protocol::UserId;

/// Changes that are remembered. A hello takes milliseconds, and seconds at worst; who has seen more of them go by
/// than this looks again.
const CHANGES_MAX: usize = 4_096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct ChangedUsers {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many changes there were, ever.
    count: u64,
    /// The newest of them.
    newest: VecDeque<UserId>,
}

impl ChangedUsers {
    /// A user's clients have changed.
    pub(crate) fn one(&self, user_id: &UserId) {
        let mut state = self.state.lock();
        state.count += 1;
        if state.newest.len() == CHANGES_MAX {
            state.newest.pop_front();
        }
        state.newest.push_back(user_id.clone());
    }

    /// Anybody's may have changed.
    pub(crate) fn all(&self) {
        let mut state = self.state.lock();
        // As many as nobody remembers.
        state.count += CHANGES_MAX as u64 + 1;
        state.newest.clear();
    }

    /// A place in the changes, for [`Self::changed_since`].
    pub(crate) fn seen(&self) -> u64 {
        self.state.lock().count
    }

    /// Whether a user's clients may have changed since then.
    pub(crate) fn changed_since(&self, user_id: &UserId, seen: u64) -> bool {
        let state = self.state.lock();
        let since = state.count - seen;
        since > state.newest.len() as u64
            || state
                .newest
                .iter()
                .rev()
                .take(since as usize)
                .any(|user| user == user_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("a user id")
    }

    #[test]
    fn a_change_counts_for_who_began_before_it() {
        let changed = ChangedUsers::default();
        let before = changed.seen();
        assert!(!changed.changed_since(&user("alice"), before));
        changed.one(&user("alice"));
        changed.one(&user("bob"));
        assert!(changed.changed_since(&user("alice"), before));
        assert!(!changed.changed_since(&user("carol"), before));
        let after = changed.seen();
        assert!(!changed.changed_since(&user("alice"), after));
        changed.all();
        assert!(changed.changed_since(&user("carol"), after));
        assert!(!changed.changed_since(&user("carol"), changed.seen()));
    }

    #[test]
    fn what_is_not_remembered_counts_as_a_change() {
        let changed = ChangedUsers::default();
        let before = changed.seen();
        for _ in 0..CHANGES_MAX {
            changed.one(&user("bob"));
        }
        assert!(!changed.changed_since(&user("alice"), before));
        changed.one(&user("bob"));
        assert!(changed.changed_since(&user("alice"), before));
    }
}
