//! Admission: an event for somebody who is new waits until what was told before has left CHATS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashSet;
use tidings_protocol::{ChatId, ClientId};

use super::{Holds, State};
use crate::rounds::{Rounds, Whose};

/// How long an event waits at a time until others have left CHATS. It takes milliseconds, unless streams do not answer.
const ADMIT_MAX: Duration = Duration::from_secs(1);
/// How often it is looked besides.
const ADMIT_INTERVAL: Duration = Duration::from_millis(50);
/// An event that is finished, and whose deletion nobody has answered for so long, is not waited for any more: it comes
/// again within seconds, or never.
const GONE_AFTER: Duration = Duration::from_secs(10);

impl Holds {
    /// Waits until an event of a chat may go to these clients. A client that was not there when an event was worked on
    /// that is held would get that one after this one, should it be worked on again: then it must have left CHATS
    /// before, and as long as this waits, the chat's deletions wait for no round. False if that takes long.
    pub(crate) async fn admit(
        &self,
        deletions: &Arc<Rounds>,
        chat_id: ChatId,
        sequence: u64,
        clients: &HashSet<ClientId>,
    ) -> bool {
        if self.is_admitted(chat_id, sequence, clients) {
            return true;
        }
        let _hurry = deletions.hurry(Whose::Chat(chat_id));
        let admitted = async {
            loop {
                let gone = self.gone.notified();
                if self.is_admitted(chat_id, sequence, clients) {
                    return;
                }
                // Bounded, since what is not waited for any more tells nobody.
                let _ = tokio::time::timeout(ADMIT_INTERVAL, gone).await;
            }
        };
        tokio::time::timeout(ADMIT_MAX, admitted).await.is_ok()
    }

    fn is_admitted(&self, chat_id: ChatId, sequence: u64, clients: &HashSet<ClientId>) -> bool {
        let mut state = self.state.lock();
        let State {
            chats,
            events,
            finished: of,
            ..
        } = &mut *state;
        let Some(chat) = chats.get_mut(&chat_id) else {
            return true;
        };
        if clients.is_subset(&chat.known) {
            return true;
        }
        let now = Instant::now();
        chat.events.retain(|sequence, finished| {
            let waits = finished.is_none_or(|at| now < at + GONE_AFTER);
            if !waits {
                of.remove(sequence);
            }
            waits
        });
        if chat.events.is_empty() {
            chats.remove(&chat_id);
            return true;
        }
        // It does not wait for itself, where it was told to some before.
        let mut admitted = true;
        for (sequence, _) in chat.events.range(..sequence) {
            admitted = false;
            if let Some(held) = events.get_mut(sequence) {
                held.refuse_all();
            }
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::super::Due;
    use super::super::tests::{chat, client, held, taker, to_store};
    use super::*;
    use crate::rounds::Bounds;

    /// Rounds that nothing but a hurry ends.
    fn rounds() -> Arc<Rounds> {
        Rounds::new(Bounds {
            length: Duration::from_hours(1),
            most: 100,
            most_of_chat: 100,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_there_waits_until_what_is_held_has_left_chats() {
        let (holds, rounds) = (Holds::default(), rounds());
        let admit = async |of, number| {
            holds
                .admit(&rounds, chat(of), 9, &HashSet::from_iter([client(number)]))
                .await
        };
        held(&holds, 5, 1, vec![taker(1, 10, 1), taker(2, 20, 1)]);
        held(&holds, 6, 1, vec![taker(1, 10, 1)]);
        assert!(admit(1, 1).await);
        assert_eq!(holds.due(5), Due::Wait);
        assert!(!admit(1, 2).await, "6 was not for it");
        assert_eq!(
            to_store(&holds, 5),
            [client(1), client(2)],
            "nobody is waited for"
        );
        assert!(admit(2, 2).await);
        holds.release(6, false);
        holds.release(5, true);
        assert!(!admit(1, 2).await);
        let (admitted, ()) = tokio::join!(admit(1, 2), async {
            tokio::task::yield_now().await;
            holds.gone(5);
        });
        assert!(admitted);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_not_there_waits_for_no_round() {
        let (holds, rounds) = (Holds::default(), rounds());
        for sequence in [4, 5, 6] {
            held(&holds, sequence, 1, vec![taker(1, 10, 1)]);
        }
        holds.release(4, true);
        let delete = async |sequence| {
            rounds.next(chat(1)).await;
            holds.gone(sequence);
        };
        let began = tokio::time::Instant::now();
        let newcomer = HashSet::from_iter([client(2)]);
        let (admitted, (), (), ()) = tokio::join!(
            biased;
            holds.admit(&rounds, chat(1), 9, &newcomer),
            // What waits in the round, what finishes meanwhile, and what others wait for.
            delete(4),
            async {
                tokio::task::yield_now().await;
                holds.release(5, true);
                delete(5).await;
            },
            async {
                tokio::task::yield_now().await;
                holds.release(6, true);
                delete(6).await;
            },
        );
        assert!(admitted);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
