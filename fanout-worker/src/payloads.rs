//! How many bytes of events a partition keeps while they wait. What is not kept is read again from CHATS.
//!
//! Events of a chat wait for each other, and in bad weather for long: 33 messages of 64 KiB would otherwise fill the
//! queue, and no other chat of the partition would get anything. So when much is kept, a chat keeps only a share.

use std::sync::Arc;

use foldhash::HashMap;
use parking_lot::Mutex;

use crate::chat_queue::ChatKey;

/// Kept at most; 32 partitions times this is what a worker may hold.
pub(crate) const PAYLOADS_MAX: usize = 4 * 1024 * 1024;
/// Kept of one chat when half of everything is taken: two of the largest messages.
const CHAT_SHARE: usize = 128 * 1024;

/// What a partition keeps.
#[derive(Debug, Default)]
pub(crate) struct Payloads(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    by_chat: HashMap<ChatKey, usize>,
}

/// The right to keep some bytes, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    payloads: Arc<Payloads>,
    chat: ChatKey,
    bytes: usize,
}

impl Payloads {
    /// Whether the payload of an event may be kept.
    pub(crate) fn hold(self: &Arc<Self>, chat: &ChatKey, bytes: usize) -> Option<Held> {
        let mut kept = self.0.lock();
        let of_chat = kept.by_chat.get(chat).copied().unwrap_or(0);
        let all = kept.bytes + bytes;
        if all > PAYLOADS_MAX || (all > PAYLOADS_MAX / 2 && of_chat + bytes > CHAT_SHARE) {
            return None;
        }
        kept.bytes = all;
        kept.by_chat.insert(chat.clone(), of_chat + bytes);
        Some(Held {
            payloads: self.clone(),
            chat: chat.clone(),
            bytes,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut kept = self.payloads.0.lock();
        kept.bytes -= self.bytes;
        if let Some(of_chat) = kept.by_chat.get_mut(&self.chat) {
            *of_chat -= self.bytes;
            if *of_chat == 0 {
                kept.by_chat.remove(&self.chat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_chat_takes_half_and_others_have_room() {
        let payloads = Arc::new(Payloads::default());
        let large = 64 * 1024;
        let held: Vec<Held> = (0..100)
            .map_while(|_| payloads.hold(&"a".into(), large))
            .collect();
        assert_eq!(held.len() * large, PAYLOADS_MAX / 2);
        let others: Vec<Held> = (0..16)
            .filter_map(|chat| payloads.hold(&format!("b{chat}").into(), large))
            .collect();
        assert_eq!(others.len(), 16);
        drop((held, others));
        let kept = payloads.0.lock();
        assert!(kept.bytes == 0 && kept.by_chat.is_empty());
    }

    #[test]
    fn all_is_kept_that_fits_and_of_one_chat_its_share() {
        let payloads = Arc::new(Payloads::default());
        let half = payloads.hold(&"a".into(), PAYLOADS_MAX / 2);
        let half = half.expect("nothing is kept yet");
        let chat: ChatKey = "b".into();
        assert!(payloads.hold(&chat, CHAT_SHARE + 1).is_none());
        let _most = payloads.hold(&chat, CHAT_SHARE - 1).expect("within its share");
        let last = payloads.hold(&chat, 1).expect("its whole share");
        assert!(payloads.hold(&chat, 1).is_none());
        let others: Vec<Held> = (1..PAYLOADS_MAX / 2 / CHAT_SHARE)
            .filter_map(|other| payloads.hold(&format!("c{other}").into(), CHAT_SHARE))
            .collect();
        assert_eq!((others.len(), payloads.0.lock().bytes), (15, PAYLOADS_MAX));
        assert!(payloads.hold(&"d".into(), 1).is_none(), "all is taken");
        drop(last);
        let _last = payloads.hold(&chat, 1).expect("it is free again");
        drop(half);
        assert_eq!(payloads.0.lock().bytes, PAYLOADS_MAX / 2);
    }
}
