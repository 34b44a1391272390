//! The durable consumer of a client: its inbox as operators see it, and what a session reads at connect.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tidings_protocol::{ClientId, UserId};

use crate::api::{ApiError, Bus};
use crate::shard::{Shard, Topology};
use crate::subject::{Inbox, inbox_stream, inbox_subject, lost_subject};

/// The counts of a durable. Unprocessed and outstanding together are what the client has yet to confirm.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DurableInfo {
    /// Stored and not delivered by this consumer.
    #[serde(rename = "num_pending")]
    pub unprocessed: u64,
    /// Delivered by this consumer and still stored.
    #[serde(rename = "num_ack_pending")]
    pub outstanding: u64,
}

impl DurableInfo {
    /// What the client has yet to confirm.
    pub const fn unconfirmed(&self) -> u64 {
        self.unprocessed + self.outstanding
    }
}

/// A durable that was started anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedDurable {
    /// What waits.
    pub info: DurableInfo,
    /// Which subjects it reads.
    pub subjects: Vec<String>,
}

/// The subjects of a client's inbox: its own, its marks, and both of the inbox `first` where it is the heir.
pub fn inbox_subjects(topology: &Topology, user_id: &UserId, client_id: ClientId, heir: bool) -> Vec<String> {
    let own = inbox_subject(topology, user_id, Inbox::Client(client_id));
    let mut subjects = vec![own.clone(), lost_subject(&own)];
    if heir {
        let first = inbox_subject(topology, user_id, Inbox::First);
        subjects.extend([first.clone(), lost_subject(&first)]);
    }
    subjects
}

/// The configuration of a client's durable, as the API takes it. An heir reads the `first` inbox too.
pub fn durable_config(topology: &Topology, user_id: &UserId, client_id: ClientId, heir: bool) -> Value {
    json!({
        "name": client_id.to_string(),
        "durable_name": client_id.to_string(),
        "description": format!("Inbox of a client of {user_id}: unprocessed + outstanding = unconfirmed."),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        // Entries leave by deletion, never by a redelivery: as long as the stream keeps them.
        "ack_wait": Duration::from_hours(31 * 24).as_nanos() as u64,
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": 64,
        "replay_policy": "instant",
        // One file-backed copy: memory state does not survive a restart of a single server, and a lost durable
        // is made again at no cost, since the stream is the truth.
        "num_replicas": 1,
        "mem_storage": false,
        "filter_subjects": inbox_subjects(topology, user_id, client_id, heir),
        "metadata": { "owner": "tidings" }
    })
}

impl Bus {
    /// Makes the durable, or brings it to this configuration.
    pub async fn create_durable(
        &self,
        shard: Shard,
        config: &Value,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        let stream = inbox_stream(shard);
        let name = config["name"].as_str().expect("durable_config gives a name");
        let body = json!({ "stream_name": stream, "config": config, "action": "" });
        self.api::<serde::de::IgnoredAny>(&format!("CONSUMER.CREATE.{stream}.{name}"), &body, timeout)
            .await?;
        Ok(())
    }

    /// Starts the durable anew at sequence 1: everything stored is delivered again, in stream order, with
    /// consumer sequences 1, 2, 3, … Says what waits, and on which subjects.
    pub async fn reset_durable(
        &self,
        shard: Shard,
        client_id: ClientId,
        timeout: Duration,
    ) -> Result<StartedDurable, ApiError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(flatten)]
            info: DurableInfo,
            config: Config,
        }
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            filter_subject: Option<String>,
            #[serde(default)]
            filter_subjects: Vec<String>,
        }
        let subject = format!("CONSUMER.RESET.{}.{client_id}", inbox_stream(shard));
        let Answer { info, config } = self.api(&subject, &json!({ "seq": 1 }), timeout).await?;
        let mut subjects = config.filter_subjects;
        subjects.extend(config.filter_subject);
        Ok(StartedDurable { info, subjects })
    }

    /// The durable's counts.
    pub async fn durable_info(
        &self,
        shard: Shard,
        client_id: ClientId,
        timeout: Duration,
    ) -> Result<DurableInfo, ApiError> {
        let subject = format!("CONSUMER.INFO.{}.{client_id}", inbox_stream(shard));
        self.api(&subject, &json!({}), timeout).await
    }

    /// Removes the durable. One that is gone already is removed.
    pub async fn delete_durable(
        &self,
        shard: Shard,
        client_id: ClientId,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        let subject = format!("CONSUMER.DELETE.{}.{client_id}", inbox_stream(shard));
        match self
            .api::<serde::de::IgnoredAny>(&subject, &json!({}), timeout)
            .await
        {
            Err(error) if !error.not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
