//! A doubt about all sessions: which of them may have missed something is asked of the streams, many at once, and
//! only those read.
//!
//! A session that is suspected and hears nothing meanwhile is cleared when everything that its inbox holds, as of a
//! moment after the doubt, lies below its floor: what a lost notice was about was stored before.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tidings_nats::{Shard, Topology, inbox_subjects};
use tokio::sync::watch;

use crate::ends::Ends;
use crate::sessions::{SessionHandle, Sessions};

/// What casts doubt rarely comes alone, and to all gateways alike: they wait for a random part of this.
const JITTER: Duration = Duration::from_millis(200);
/// A check fails while NATS comes back or a stream elects its leader; after so many the sessions read by themselves,
/// so that one stream without a leader holds nobody else up for longer.
const TRIES: u32 = 4;
/// Before the second try; doubles with each.
const DELAY: Duration = Duration::from_millis(250);

/// Checks after each doubt, until the task is dropped. `doubts` counts them. Each shard's sessions for themselves: one
/// whose stream has no leader keeps no other waiting.
pub(crate) async fn run(
    ends: Arc<Ends>,
    topology: Topology,
    sessions: Arc<Sessions>,
    doubts: watch::Receiver<u64>,
) {
    let shards = topology
        .shards()
        .map(|shard| run_shard(&ends, topology, &sessions, shard, doubts.clone()));
    futures::future::join_all(shards).await;
}

async fn run_shard(
    ends: &Arc<Ends>,
    topology: Topology,
    sessions: &Sessions,
    shard: Shard,
    mut doubts: watch::Receiver<u64>,
) {
    while doubts.changed().await.is_ok() {
        tokio::time::sleep(JITTER.mul_f64(rand::random())).await;
        let doubt = *doubts.borrow_and_update();
        let mut suspected = sessions.of_shard(shard);
        suspected.retain(|session| session.mailbox.is_suspected(doubt));
        // No bound: they share a few requests.
        futures::stream::iter(&suspected)
            .for_each_concurrent(None, |session| check(ends, &topology, session, doubt))
            .await;
    }
}

async fn check(ends: &Arc<Ends>, topology: &Topology, session: &SessionHandle, doubt: u64) {
    let subjects = inbox_subjects(topology, &session.user_id, session.client_id, session.heir);
    for attempt in 0..TRIES {
        if let Some(last) = ends.last(session.shard, subjects.clone()).await {
            let last = last.into_iter().max().filter(|sequence| *sequence > 0);
            session.mailbox.clear(doubt, last);
            return;
        }
        tokio::time::sleep(DELAY * 2_u32.pow(attempt)).await;
    }
    session.mailbox.doubt_if_suspected(doubt);
}
