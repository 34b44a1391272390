//! Every half minute each session is checked against the stream: what was stored and noticed by nobody is found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_nats::{Bus, Shard, Topology, inbox_subjects};

use crate::inbox_reader::last_sequences;
use crate::sessions::{SessionHandle, Sessions};

/// How often each session is checked.
const INTERVAL: Duration = Duration::from_secs(30);

/// Checks shard by shard, spread over the interval, until the task is dropped.
pub(crate) async fn run(bus: Bus, topology: Topology, sessions: Arc<Sessions>) {
    let mut pace = tokio::time::interval(INTERVAL / u32::from(topology.shards));
    loop {
        for shard in topology.shards() {
            pace.tick().await;
            check(&bus, &topology, shard, &sessions.of_shard(shard)).await;
        }
    }
}

async fn check(bus: &Bus, topology: &Topology, shard: Shard, sessions: &[Arc<SessionHandle>]) {
    if sessions.is_empty() {
        return;
    }
    let mut by_subject: HashMap<String, &Arc<SessionHandle>> = HashMap::new();
    for session in sessions {
        let subjects = inbox_subjects(topology, &session.user_id, session.client_id, session.heir);
        by_subject.extend(subjects.into_iter().map(|subject| (subject, session)));
    }
    let subjects: Vec<String> = by_subject.keys().cloned().collect();
    match last_sequences(bus, shard, &subjects).await {
        Ok(last) => {
            for (subject, sequence) in last {
                if let Some(session) = by_subject.get(&subject) {
                    session.mailbox.checked(sequence);
                }
            }
        }
        Err(error) => tracing::debug!(%shard, %error, "inboxes could not be checked; in half a minute again"),
    }
}
