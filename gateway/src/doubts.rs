//! A doubt about all sessions: which of them may have missed something is asked of the streams, many at once, and
//! only those read.
//!
//! A session that is suspected and hears nothing meanwhile is cleared when everything that its inbox holds, as the
//! stream's leader had it after the doubt, lies below its floor: what a lost notice was about was stored before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tidings_nats::{Bus, Shard, Topology, inbox_stream, inbox_subjects};
use tokio::sync::watch;

use crate::sessions::{SessionHandle, Sessions};

/// Subjects of one request; the server answers 1,024, and one more is asked for.
const SUBJECTS_MAX: usize = 1000;
/// Requests at once. One takes a few milliseconds, and all gateways ask at the same moment.
const CHECKS_MAX: usize = 8;
/// What casts doubt rarely comes alone, and to all gateways alike: they wait for a random part of this.
const JITTER: Duration = Duration::from_millis(200);
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A check fails while NATS comes back or a stream elects its leader; after so many the sessions read by themselves,
/// so that one stream without a leader holds nobody else up for longer.
const TRIES: u32 = 4;
/// Before the second try; doubles with each.
const DELAY: Duration = Duration::from_millis(250);

/// Checks after each doubt, until the task is dropped. `doubts` counts them.
pub(crate) async fn run(
    bus: Bus,
    topology: Topology,
    sessions: Arc<Sessions>,
    mut doubts: watch::Receiver<u64>,
) {
    while doubts.changed().await.is_ok() {
        tokio::time::sleep(JITTER.mul_f64(rand::random())).await;
        let doubt = *doubts.borrow_and_update();
        let mut by_shard: HashMap<Shard, Vec<Arc<SessionHandle>>> = HashMap::new();
        for session in sessions.all() {
            if session.mailbox.is_suspected(doubt) {
                by_shard.entry(session.shard).or_default().push(session);
            }
        }
        let checks = by_shard
            .iter()
            .map(|(shard, suspected)| check(&bus, &topology, *shard, suspected, doubt));
        futures::stream::iter(checks)
            .for_each_concurrent(CHECKS_MAX, |check| check)
            .await;
    }
}

async fn check(bus: &Bus, topology: &Topology, shard: Shard, suspected: &[Arc<SessionHandle>], doubt: u64) {
    let mut batch: Vec<(&SessionHandle, Vec<String>)> = Vec::new();
    let mut count = 0;
    for session in suspected {
        let subjects = inbox_subjects(topology, &session.user_id, session.client_id, session.heir);
        if count + subjects.len() > SUBJECTS_MAX {
            check_batch(bus, shard, &std::mem::take(&mut batch), doubt).await;
            count = 0;
        }
        count += subjects.len();
        batch.push((session, subjects));
    }
    check_batch(bus, shard, &batch, doubt).await;
}

async fn check_batch(bus: &Bus, shard: Shard, batch: &[(&SessionHandle, Vec<String>)], doubt: u64) {
    let subjects: Vec<String> = batch
        .iter()
        .flat_map(|(_, subjects)| subjects.iter().cloned())
        .collect();
    let Some(last) = last_sequences(bus, shard, &subjects).await else {
        for (session, _) in batch {
            session.mailbox.doubt_if_suspected(doubt);
        }
        return;
    };
    for (session, subjects) in batch {
        let sequences = subjects.iter().filter_map(|subject| last.get(subject));
        session.mailbox.clear(doubt, sequences.max().copied());
    }
}

/// The last sequence of each subject that holds anything, as of now; none if it cannot be found out.
async fn last_sequences(bus: &Bus, shard: Shard, subjects: &[String]) -> Option<HashMap<String, u64>> {
    for attempt in 0..TRIES {
        metrics::counter!("tidings_doubt_checks_total").increment(1);
        match bus
            .last_by_subjects_now(&inbox_stream(shard), subjects, TIMEOUT)
            .await
        {
            Ok(found) => {
                let last = found.into_iter();
                return Some(last.map(|message| (message.subject, message.sequence)).collect());
            }
            Err(error) => {
                tracing::debug!(%shard, %error, attempt, "inboxes could not be checked");
                tokio::time::sleep(DELAY * 2_u32.pow(attempt)).await;
            }
        }
    }
    None
}
