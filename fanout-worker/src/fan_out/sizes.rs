//! What an event costs while it waits. In a backlog each of thousands of chats has one at work, with all its entries.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::attempt::Target;
use super::entries::ToStore;
use super::{FanOut, Incoming};
use crate::participants::ParticipantsCache;
use crate::partition_trials::Suspects;

/// All that has no box of its own because most events need it.
const EVENT_BYTES_MAX: usize = 4_096;
/// For a permit, and what is published then.
const ENTRY_BYTES_MAX: usize = 384;

struct Here {
    fan_out: FanOut,
    incoming: Incoming,
    participants: ParticipantsCache,
    suspects: Arc<Suspects>,
    cancelled: CancellationToken,
    what: ToStore<'static>,
}

fn size_of_what_it_makes<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
    size_of::<R>()
}

#[test]
fn what_waits_is_small() {
    let event = size_of_what_it_makes(|here: &'static Here, told: fn()| {
        let Here {
            fan_out,
            incoming,
            participants,
            suspects,
            cancelled,
            ..
        } = here;
        fan_out.process(incoming, participants, Some(suspects), cancelled, told)
    });
    let entry =
        size_of_what_it_makes(|here: &'static Here, target: Target| here.fan_out.publish(&here.what, target));
    assert!(event <= EVENT_BYTES_MAX, "{event} bytes an event");
    assert!(entry <= ENTRY_BYTES_MAX, "{entry} bytes an entry");
}
