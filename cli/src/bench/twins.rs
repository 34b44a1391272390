//! Twins of the streams of inboxes: configured like them, under names and subjects of their own, made to be measured
//! and deleted afterwards. Nobody's inbox is touched.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tidings_nats::{ApiError, Bus, Shard, Topology, inbox_stream, setup};

/// For one request: making a replicated stream waits for an election.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests at a time.
const CONCURRENT: usize = 16;
/// Error code of a stream that does not exist.
const STREAM_NOT_FOUND: u16 = 10059;
/// First tokens of the subjects of inboxes, and of their twins: as long, so that both cost the same.
const INBOX_SUBJECTS: &str = "inbox";
const TWIN_SUBJECTS: &str = "bench";

/// See the module. They stay until [`Self::delete`]; those of a run that was killed are deleted by the next.
pub(crate) struct Twins {
    bus: Bus,
    topology: Topology,
}

impl Twins {
    /// Makes them.
    pub(crate) async fn make(bus: Bus) -> anyhow::Result<Self> {
        let topology = setup::check(&bus).await?;
        let twins = Self { bus, topology };
        // What a killed run has left would be counted in.
        twins.delete().await?;
        let made = stream::iter(topology.shards())
            .map(|shard| twins.make_one(shard))
            .buffer_unordered(CONCURRENT)
            .try_collect::<()>()
            .await;
        if let Err(error) = made {
            twins.delete().await.ok();
            return Err(error);
        }
        Ok(twins)
    }

    async fn make_one(&self, shard: Shard) -> anyhow::Result<()> {
        let inboxes = inbox_stream(shard);
        let config = setup::stream_config(&self.bus, &inboxes).await?;
        let config = config.with_context(|| format!("there is no stream {inboxes}"))?;
        let (name, config) = (stream_name(shard), twin_config(shard, config));
        self.bus
            .api::<IgnoredAny>(&format!("STREAM.CREATE.{name}"), &config, TIMEOUT)
            .await
            .with_context(|| format!("cannot make the stream {name}"))?;
        Ok(())
    }

    /// Into how many parts the system is cut.
    pub(crate) const fn topology(&self) -> Topology {
        self.topology
    }

    /// Deletes them, and what is in them.
    pub(crate) async fn delete(&self) -> anyhow::Result<()> {
        stream::iter(self.topology.shards())
            .map(|shard| self.delete_one(shard))
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await
    }

    async fn delete_one(&self, shard: Shard) -> anyhow::Result<()> {
        let (name, nothing) = (stream_name(shard), json!({}));
        let subject = format!("STREAM.DELETE.{name}");
        match self.bus.api::<IgnoredAny>(&subject, &nothing, TIMEOUT).await {
            Err(ApiError::Refused {
                code: STREAM_NOT_FOUND,
                ..
            })
            | Ok(_) => Ok(()),
            Err(error) => Err(anyhow!(error).context(format!("cannot delete the stream {name}"))),
        }
    }
}

/// The twin of a shard's stream.
pub(crate) fn stream_name(shard: Shard) -> String {
    format!("BENCH_{shard}")
}

/// Where an entry goes instead of an inbox.
pub(crate) fn twin_subject(inbox_subject: &str) -> String {
    inbox_subject.replacen(INBOX_SUBJECTS, TWIN_SUBJECTS, 1)
}

fn twin_config(shard: Shard, mut config: Value) -> Value {
    config["name"] = json!(stream_name(shard));
    config["subjects"] = json!([format!("{TWIN_SUBJECTS}.{shard}.>")]);
    config["description"] = json!("Of `tidings bench`, for as long as it runs.");
    // It is promised beside the inboxes', and the server promises no more than its disk may hold. What is in it is
    // bounded by what is under way.
    config["max_bytes"] = json!(-1);
    // Far above zero where an inbox's stream was made anew.
    if let Some(config) = config.as_object_mut() {
        config.remove("first_seq");
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_differs_in_name_alone() {
        let inboxes = setup::streams(&setup::SetupOptions::default());
        let inboxes = inboxes.into_iter().find(|stream| stream["name"] == "INBOX_07");
        let inboxes = inboxes.expect("there are 64");
        let twin = twin_config(Shard(7), inboxes.clone());
        let differing: Vec<&str> = inboxes
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(key, value)| twin[key.as_str()] != **value)
            .map(|(key, _)| key.as_str())
            .collect();
        assert_eq!(differing, ["description", "max_bytes", "name", "subjects"]);
        assert_eq!(twin["subjects"], json!(["bench.07.>"]));
        assert_eq!(twin_subject("inbox.07.inbox.first"), "bench.07.inbox.first");
    }
}
