//! How a workload ends: everybody comes back, everything is known, every chat gets a last message, everybody has read
//! and confirmed all of it.

use std::sync::Arc;
use std::time::Duration;

use tidings_protocol::ChatId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::device::Command;
use super::director::Director;
use super::world::State;
use super::{Shared, TICK, WorkloadReport};
use crate::history::Happening;

/// What is left of the time for everybody to connect a last time, even if the last messages have not reached all.
const LAST_CONNECT: Duration = Duration::from_secs(20);

/// For the last files, where the time is over already.
const LAST_FETCH: Duration = Duration::from_secs(10);

/// Brings everything to rest.
pub(super) async fn come_to_rest(shared: &Arc<Shared>, mut director: Director) -> WorkloadReport {
    let began = Instant::now();
    let deadline = began + shared.options.rest_timeout;
    let before_last = deadline - LAST_CONNECT.min(shared.options.rest_timeout / 2);
    shared
        .recorder
        .happened(Happening::note("everybody comes to rest"));
    shared.files.stop_uploads().await;
    director.bring_everybody();
    tell_all(shared, || Command::Finish);
    let left = |until: Instant| until.saturating_duration_since(Instant::now());
    shared.until(left(before_last), everything_known).await;

    while Instant::now() < before_last {
        let unmarked = unmarked(&shared.world.lock());
        for chat_id in unmarked {
            director.mark(chat_id);
        }
        if everybody_marked(&shared.world.lock()) {
            break;
        }
        sleep(TICK).await;
    }

    let mut waiting = Vec::new();
    for device in &shared.world.lock().devices {
        if device.removed || device.hopeless {
            continue;
        }
        let (done, rested) = oneshot::channel();
        if device.commands.send(Command::Rest { deadline, done }).is_ok() {
            waiting.push(rested);
        }
    }
    let mut not_at_rest = 0;
    for rested in waiting {
        // A device that ends meanwhile was removed.
        not_at_rest += u64::from(matches!(rested.await, Ok(Err(_))));
    }
    shared.files.come_to_rest(left(deadline).max(LAST_FETCH)).await;
    shared
        .recorder
        .happened(Happening::note("everybody was at rest, or gave up"));
    tell_all(shared, || Command::Stop);
    shared.tracker.close();
    shared.tracker.wait().await;
    let state = shared.world.lock();
    let devices = state.devices.iter();
    let active = devices.filter(|device| device.registered && !device.removed && !device.hopeless);
    WorkloadReport {
        users: state.users.clone(),
        clients: active.map(|device| device.identity.clone()).collect(),
        not_at_rest,
        unknown: state.devices.iter().map(|device| device.unanswered as u64).sum(),
        rest: began.elapsed(),
        ..state.report.clone()
    }
}

fn tell_all(shared: &Shared, command: impl Fn() -> Command) {
    for device in &shared.world.lock().devices {
        // One that is gone hears nothing.
        let _ = device.commands.send(command());
    }
}

/// Everybody is connected and nobody waits for an answer.
fn everything_known(state: &State) -> bool {
    let mut devices = state.devices.iter();
    devices.all(|device| {
        device.removed || device.hopeless || device.finishing && device.online && device.unanswered == 0
    })
}

/// Chats whose last message was not told to be sent.
fn unmarked(state: &State) -> Vec<ChatId> {
    let chats = state.chats.iter();
    chats
        .filter(|(chat_id, chat)| !chat.participants.is_empty() && !state.markers.contains_key(chat_id))
        .map(|(chat_id, _)| *chat_id)
        .collect()
}

/// Every device that should has the last message of every chat, and no chat is without one.
fn everybody_marked(state: &State) -> bool {
    let marked = state.markers.values().all(|marker| {
        marker.users.as_ref().is_some_and(|users| {
            users.iter().all(|user_id| {
                state.devices_of(user_id).all(|(_, device)| {
                    device.hopeless
                        || device.identity.client_id == marker.sender
                        || state
                            .marked
                            .contains(&(device.identity.client_id, marker.message_id))
                })
            })
        })
    });
    marked && unmarked(state).is_empty()
}
