//! The streams, as an operator sees them: what they hold, and how much more they take.

use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tidings_nats::{Bus, CHATS, Topology, inbox_stream};
use tidings_service::NatsConnection;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::stored::Stored;

/// For one question.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question is asked again while JetStream does not answer it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const INTERVAL: Duration = Duration::from_millis(250);
/// What a full stream still takes: a few small events, so that it is full at one moment and not at the next.
const ROOM_BYTES: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub struct Store {
    bus: Bus,
    topology: Topology,
    /// The settings of streams that are full, as they were before.
    before: Mutex<Vec<Value>>,
    /// Keeps the connection.
    _nats: NatsConnection,
}

#[derive(Deserialize)]
struct StreamInfo {
    config: Value,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    bytes: u64,
    messages: u64,
}

impl Store {
    pub(super) fn new(nats: NatsConnection) -> Self {
        Self {
            bus: Bus::new(nats.client().clone()),
            topology: Topology::default(),
            before: Mutex::default(),
            _nats: nats,
        }
    }

    /// Makes the streams of events and inboxes take next to nothing more.
    pub(super) async fn fill(&self) -> anyhow::Result<()> {
        let mut before = self.before.lock().await;
        for stream in self.streams() {
            let info = self.info(&stream).await?;
            let mut config = info.config.clone();
            config["max_bytes"] = json!(info.state.bytes + ROOM_BYTES);
            self.update(&stream, &config).await?;
            before.push(info.config);
        }
        Ok(())
    }

    /// Gives them back what they had.
    pub(super) async fn make_room(&self) -> anyhow::Result<()> {
        let mut before = self.before.lock().await;
        for config in before.drain(..) {
            let stream = config["name"].as_str().expect("a stream has a name").to_owned();
            self.update(&stream, &config).await?;
        }
        Ok(())
    }

    /// How many events wait for the fan-out.
    pub async fn waiting_events(&self) -> anyhow::Result<u64> {
        Ok(self.info(CHATS).await?.state.messages)
    }

    /// What inboxes hold.
    pub fn inboxes(&self) -> Stored {
        Stored::at(self.bus.client().clone())
    }

    fn streams(&self) -> Vec<String> {
        let inboxes = self.topology.shards().map(inbox_stream);
        std::iter::once(CHATS.to_owned()).chain(inboxes).collect()
    }

    async fn info(&self, stream: &str) -> anyhow::Result<StreamInfo> {
        self.patiently(&format!("STREAM.INFO.{stream}"), &json!({})).await
    }

    async fn update(&self, stream: &str, config: &Value) -> anyhow::Result<()> {
        self.patiently::<Value>(&format!("STREAM.UPDATE.{stream}"), config)
            .await
            .map(drop)
    }

    /// Asks until there is an answer.
    async fn patiently<T: serde::de::DeserializeOwned>(
        &self,
        subject: &str,
        question: &Value,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        loop {
            match self.bus.api(subject, question, TIMEOUT).await {
                Ok(answer) => return Ok(answer),
                Err(error) if began.elapsed() > PATIENCE => return Err(error).context(subject.to_owned()),
                Err(_) => sleep(INTERVAL).await,
            }
        }
    }
}
