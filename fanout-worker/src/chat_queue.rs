//! What waits inside a partition: chats run side by side, one event of a chat at a time, also across fresh
//! starts of the partition.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};

/// A chat as its subject names it. The text, since a subject may hold what is no chat's id and must not be
/// mixed with others for it.
pub(crate) type ChatKey = Arc<str>;

/// Items in the order in which they came, by chat.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct ChatQueue<T> {
    chats: HashMap<ChatKey, Chat<T>>,
    /// The chats that have something waiting and nothing running, longest first. Each stands here once.
    ready: VecDeque<ChatKey>,
    waiting: usize,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, Hash))]
struct Chat<T> {
    /// How many items the next one must wait for.
    running: usize,
    waiting: VecDeque<T>,
}

impl<T> Default for Chat<T> {
    fn default() -> Self {
        Self {
            running: 0,
            waiting: VecDeque::new(),
        }
    }
}

impl<T> Default for ChatQueue<T> {
    fn default() -> Self {
        Self {
            chats: HashMap::new(),
            ready: VecDeque::new(),
            waiting: 0,
        }
    }
}

impl<T> ChatQueue<T> {
    /// Adds an item behind what waits in its chat.
    pub(crate) fn push(&mut self, chat: ChatKey, item: T) {
        self.insert(chat, item, VecDeque::push_back);
    }

    /// Adds an item before the first that waits in its chat and `is_later`.
    pub(crate) fn push_before(&mut self, chat: ChatKey, item: T, is_later: impl Fn(&T) -> bool) {
        self.insert(chat, item, |waiting, item| {
            let place = waiting.iter().position(is_later).unwrap_or(waiting.len());
            waiting.insert(place, item);
        });
    }

    fn insert(&mut self, chat: ChatKey, item: T, insert: impl FnOnce(&mut VecDeque<T>, T)) {
        let entry = self.chats.entry(chat.clone()).or_default();
        if entry.running == 0 && entry.waiting.is_empty() {
            self.ready.push_back(chat);
        }
        insert(&mut entry.waiting, item);
        self.waiting += 1;
    }

    /// The next item of a chat in which nothing runs. Something runs there from now on, until [`Self::done`].
    pub(crate) fn start(&mut self) -> Option<(ChatKey, T)> {
        let chat = self.ready.pop_front()?;
        let entry = self.chats.get_mut(&chat).expect("ready chats have items");
        let item = entry.waiting.pop_front().expect("ready chats have items");
        entry.running = 1;
        self.waiting -= 1;
        Some((chat, item))
    }

    /// The next item of this chat must wait for one more thing.
    pub(crate) fn block(&mut self, chat: &ChatKey) {
        let entry = self.chats.entry(chat.clone()).or_default();
        entry.running += 1;
        self.ready.retain(|ready| ready != chat);
    }

    /// The next item of this chat need not wait for one thing any more.
    pub(crate) fn done(&mut self, chat: &ChatKey) {
        let Some(entry) = self.chats.get_mut(chat) else {
            return;
        };
        entry.running -= 1;
        if entry.running > 0 {
            return;
        }
        if entry.waiting.is_empty() {
            self.chats.remove(chat);
        } else {
            self.ready.push_back(chat.clone());
        }
    }

    /// Forgets everything that waits; what runs goes on running.
    pub(crate) fn clear(&mut self) {
        self.ready.clear();
        self.waiting = 0;
        self.chats.retain(|_, chat| {
            chat.waiting.clear();
            chat.running > 0
        });
    }

    /// How many items wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Every item that waits.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chats.values_mut().flat_map(|chat| chat.waiting.iter_mut())
    }
}

#[cfg(test)]
impl<T: std::hash::Hash> std::hash::Hash for ChatQueue<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let chats: std::collections::BTreeMap<_, _> = self.chats.iter().collect();
        (chats, &self.ready).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(items: &[(&str, u32)]) -> ChatQueue<u32> {
        let mut queue = ChatQueue::default();
        for (chat, item) in items {
            queue.push((*chat).into(), *item);
        }
        queue
    }

    fn started(queue: &mut ChatQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.start().map(|(_, item)| item)).collect()
    }

    #[test]
    fn chats_run_side_by_side_and_each_in_order() {
        let mut queue = queue(&[("a", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5)]);
        assert_eq!(started(&mut queue), [1, 3]);
        queue.done(&"a".into());
        assert_eq!(started(&mut queue), [2]);
        queue.done(&"b".into());
        queue.done(&"a".into());
        assert_eq!(started(&mut queue), [5, 4]);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn what_runs_outlives_a_clear_and_keeps_its_chat_busy() {
        let mut queue = queue(&[("a", 1), ("a", 2), ("b", 3)]);
        let (chat, _) = queue.start().expect("a is ready");
        queue.clear();
        assert_eq!(queue.waiting(), 0);
        queue.push("a".into(), 2);
        queue.push("b".into(), 3);
        assert_eq!(started(&mut queue), [3]);
        queue.push_before("a".into(), 1, |other| *other > 1);
        queue.done(&chat);
        assert_eq!(started(&mut queue), [1]);
    }

    #[test]
    fn a_chat_waits_for_everything_that_blocks_it_and_keeps_its_order() {
        let mut queue = queue(&[("a", 4), ("b", 5)]);
        let chat: ChatKey = "a".into();
        queue.block(&chat);
        queue.block(&chat);
        assert_eq!(started(&mut queue), [5]);
        for item in [3, 1, 2] {
            queue.push_before(chat.clone(), item, |other| *other > item);
        }
        queue.done(&chat);
        assert_eq!(started(&mut queue), [0; 0]);
        queue.done(&chat);
        for item in 1..=4 {
            assert_eq!(started(&mut queue), [item]);
            queue.done(&chat);
        }
        assert!(!queue.chats.contains_key(&chat));
    }

    #[test]
    fn chats_without_items_are_forgotten() {
        let mut queue = queue(&[("a", 1)]);
        let (chat, _) = queue.start().expect("a is ready");
        queue.done(&chat);
        assert!(queue.chats.is_empty());
    }
}
