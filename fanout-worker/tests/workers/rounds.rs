//! Finished events are deleted together, and nobody who needs them gone waits for that. Who is new in a chat: `direct.rs`.

use tidings_nats::CHATS;

use crate::direct::Granted;
use crate::support::{LONG_ROUNDS, PATIENCE};
use crate::two_workers::kick;

/// The worker leaves nothing behind for others to do again.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_stops_ends_the_round() {
    let (granted, worker, _) = Granted::with_long_round().await;
    worker.stop().await;
    assert_eq!(granted.system.stored(CHATS).await, 0);
}

/// Nobody who is new waits for it, so it must not be there for longer than that takes.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_to_nobody_directly_waits_for_no_round() {
    let (mut granted, worker) = Granted::without_grant(LONG_ROUNDS).await;
    granted.say_and_hear("stored").await;
    granted.system.wait_until_fanned_out().await;
    worker.stop().await;
}

/// On the next connection there may be another event in its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_finished_is_deleted_on_its_own_connection_alone() {
    let (mut granted, worker, event) = Granted::with_long_round().await;
    let mut state = worker.context.nats.state();
    let connects = state.borrow().connects;
    kick(&granted.system, &worker).await;
    let again = state.wait_for(|state| state.connected && state.connects > connects);
    let again = tokio::time::timeout(PATIENCE, again).await;
    assert!(again.is_ok_and(|state| state.is_ok()), "it connects again");
    granted.say_and_hear("after it").await;
    // It has come again before, and waits for another round.
    assert!(granted.is_in_chats(event).await);
    worker.stop().await;
    assert_eq!(granted.system.stored(CHATS).await, 0);
}
