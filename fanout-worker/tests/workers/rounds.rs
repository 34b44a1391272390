//! Finished events are deleted together, and nobody who needs them gone waits for that. Who is new in a chat: `direct.rs`.

use tidings_nats::CHATS;
use tidings_protocol::ChatId;

use crate::support::{LONG_ROUNDS, PATIENCE, Person, System, Worker, texts};
use crate::two_workers::kick;

/// A chat of alice and bob, of which two events are finished and wait for a round to end.
struct Waiting {
    system: System,
    alice: Person,
    bob: Person,
    chat_id: ChatId,
    worker: Worker,
}

impl Waiting {
    async fn start() -> Self {
        let system = System::start(1).await;
        let (alice, bob) = (system.register("alice").await, system.register("bob").await);
        let worker = system.worker_with(LONG_ROUNDS).await;
        let (chat_id, _) = system.chat(&[&alice.user_id, &bob.user_id]).await;
        system.send(chat_id, &alice, "one").await;
        system.wait_for_entries(&bob, 2).await;
        assert_eq!(system.stored(CHATS).await, 2);
        Self {
            system,
            alice,
            bob,
            chat_id,
            worker,
        }
    }

    /// The worker leaves nothing behind for others to do again.
    async fn stop(self) {
        self.worker.stop().await;
        assert_eq!(self.system.stored(CHATS).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_ends_the_round() {
    Waiting::start().await.stop().await;
}

/// On the next connection there may be another event in its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_finished_is_deleted_on_its_own_connection_alone() {
    let waiting = Waiting::start().await;
    let Waiting { system, worker, .. } = &waiting;
    let mut state = worker.context.nats.state();
    let connects = state.borrow().connects;
    kick(system, worker).await;
    let again = state.wait_for(|state| state.connected && state.connects > connects);
    let again = tokio::time::timeout(PATIENCE, again).await;
    assert!(again.is_ok_and(|state| state.is_ok()), "it connects again");
    system.send(waiting.chat_id, &waiting.alice, "two").await;
    let entries = system.wait_for_entries(&waiting.bob, 3).await;
    assert_eq!(texts(&entries)[&waiting.chat_id], ["one", "two"]);
    assert_eq!(
        system.stored(CHATS).await,
        3,
        "they have come again, and wait for another round"
    );
    waiting.stop().await;
}
