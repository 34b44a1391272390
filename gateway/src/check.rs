//! Every half minute each session is checked against the streams: what was stored and noticed by nobody is found,
//! and so is a key that is gone from SESSIONS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidings_nats::{Bus, Shard, Topology, inbox_subjects};

use crate::gateway::Gateway;
use crate::inbox_reader::last_sequences;
use crate::session_keys;
use crate::sessions::SessionHandle;

/// How often each session is checked.
const INTERVAL: Duration = Duration::from_secs(30);

/// Checks shard by shard, spread over the interval, until the task is dropped; the keys at once where all of them
/// may be gone.
pub(crate) async fn run(gateway: &Gateway) {
    let Gateway { bus, topology, .. } = gateway;
    let mut pace = tokio::time::interval(INTERVAL / u32::from(topology.shards));
    let shards: Vec<Shard> = topology.shards().collect();
    let mut shards = shards.into_iter().cycle();
    loop {
        tokio::select! {
            _ = pace.tick() => {
                let shard = shards.next().expect("there is a shard");
                let sessions = gateway.sessions.of_shard(shard);
                check(bus, topology, shard, &sessions).await;
                session_keys::check(gateway, &sessions).await;
                session_keys::delete_abandoned(gateway).await;
            }
            () = gateway.live.keys_lost() => {
                tracing::warn!("the bucket SESSIONS was made anew: every session's key is looked for");
                session_keys::check(gateway, &gateway.sessions.all()).await;
            }
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
