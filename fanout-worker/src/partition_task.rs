//! The I/O around a partition's reader: does what it says, and tells it what happens. It decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Message, Subscriber};
use foldhash::{HashMap, HashMapExt as _};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::de::IgnoredAny;
use serde_json::json;
use tidings_nats::{
    Bus, CHATS, ConsumerStatus, DeliveryInfo, FANOUT_GROUP, Lane, Partition, Pull, fanout_consumer,
};
use tidings_protocol::ChatId;
use tidings_service::{NatsConnection, NatsState, Tasks};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::chat_queue::ChatKey;
use crate::fan_out::{FanOut, Incoming, Outcome};
use crate::forgotten_events;
use crate::participants::ParticipantsCache;
use crate::partition_reader::{Action, Delivery, Event, PartitionReader};
use crate::partition_trials::Suspects;
use crate::payloads::Payloads;
use crate::rounds::{Hurry, Whose};

/// For a reset or an unpin: an election of the consumer takes about as long.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// How exact the reader's timers are.
const TICK: Duration = Duration::from_millis(200);
/// What an event costs beside its content: headers, subjects, its place in the queue.
const EVENT_BYTES: usize = 512;
/// Which header names the pin.
const PIN_HEADER: &str = "Nats-Pin-Id";
/// Which header of a status says how much of a pull is unanswered.
const PENDING_HEADER: &str = "Nats-Pending-Messages";

/// A partition's task, from outside. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PartitionHandle {
    pub(crate) partition: Partition,
    events: mpsc::UnboundedSender<Event<Incoming>>,
    pinned: Arc<AtomicBool>,
}

impl PartitionHandle {
    /// Tells the reader. One that has ended needs to hear nothing.
    pub(crate) fn tell(&self, event: Event<Incoming>) {
        let _ = self.events.send(event);
    }

    /// Whether this worker holds the partition.
    pub(crate) fn pinned(&self) -> bool {
        self.pinned.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PartitionTask {
    consumer: String,
    fan_out: Arc<FanOut>,
    tasks: Tasks,
    connection: watch::Receiver<NatsState>,
    seen: Option<NatsState>,
    began: Instant,
    reader: PartitionReader<Incoming>,
    /// What control and the events' own tasks tell. Unbounded, but for each event that was started there is one.
    events: mpsc::UnboundedReceiver<Event<Incoming>>,
    handle: PartitionHandle,
    /// The inbox of a generation is `<inbox>.<generation>.<pull>`.
    inbox: String,
    generation: u64,
    replies: Option<Subscriber>,
    participants: Arc<ParticipantsCache>,
    cancels: HashMap<u64, CancellationToken>,
    resets: u64,
    survey: Arc<Mutex<Option<Survey>>>,
    payloads: Arc<Payloads>,
    /// While the partition is given away: another worker waits for its deletions.
    hurry: Option<Hurry>,
}

/// What was suspect when this worker was pinned.
#[derive(Clone, Debug)]
struct Survey {
    pin: String,
    suspects: Arc<Suspects>,
}

impl PartitionTask {
    /// The partitions of a worker began at the same moment, so that what all of them do from time to time wakes it once.
    pub(crate) fn new(
        partition: Partition,
        fan_out: Arc<FanOut>,
        nats: &NatsConnection,
        tasks: Tasks,
        began: Instant,
    ) -> (Self, PartitionHandle) {
        let (sender, events) = mpsc::unbounded_channel();
        let handle = PartitionHandle {
            partition,
            events: sender,
            pinned: Arc::default(),
        };
        let task = Self {
            consumer: fanout_consumer(partition),
            inbox: fan_out.bus.client().new_inbox(),
            fan_out,
            tasks,
            connection: nats.state(),
            seen: None,
            began,
            reader: PartitionReader::new(began),
            events,
            handle: handle.clone(),
            generation: 0,
            replies: None,
            participants: Arc::default(),
            cancels: HashMap::new(),
            resets: 0,
            survey: Arc::default(),
            payloads: Arc::default(),
            hurry: None,
        };
        (task, handle)
    }

    /// Reads the partition until it is told to stop and has finished.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval_at(self.began.into(), TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        self.connection.mark_changed();
        loop {
            let events = tokio::select! {
                Some(event) = self.events.recv() => vec![event],
                message = next(&mut self.replies) => vec![self.message(message)],
                Ok(()) = self.connection.changed() => self.connection_events(),
                _ = ticks.tick() => vec![Event::Tick],
            };
            for event in events {
                if self.handle_event(event).await {
                    return;
                }
            }
        }
    }

    /// Whether the reader has ended.
    async fn handle_event(&mut self, event: Event<Incoming>) -> bool {
        if let Event::Finished { sequence } | Event::Abandoned { sequence } = &event {
            self.cancels.remove(sequence);
        }
        let actions = self.reader.handle(event, Instant::now());
        let mut ended = false;
        for action in actions {
            ended |= matches!(action, Action::End);
            self.act(action).await;
        }
        if !self.reader.is_draining() {
            self.hurry = None;
        } else if self.hurry.is_none() {
            self.hurry = Some(self.fan_out.deletions.rounds.hurry(Whose::All));
        }
        self.handle.pinned.store(self.reader.pinned(), Ordering::Relaxed);
        metrics::counter!("tidings_fanout_resets_total").increment(self.reader.resets() - self.resets);
        self.resets = self.reader.resets();
        ended
    }

    /// What the connection's state means since it was last looked at.
    fn connection_events(&mut self) -> Vec<Event<Incoming>> {
        let now = *self.connection.borrow_and_update();
        let before = self.seen.replace(now);
        let again = before.is_none_or(|before| now.connects > before.connects || !before.connected);
        if again || !now.connected {
            // What waits to be deleted is not, and must be known not to be before it comes again.
            self.fan_out.deletions.rounds.end();
        }
        match (now.connected, again) {
            (false, _) => vec![Event::Disconnected],
            (true, true) => {
                self.connected(now);
                vec![Event::Disconnected]
            }
            // Only the count of dropped messages can have changed.
            (true, false) => vec![Event::Doubt],
        }
    }

    /// Tells the reader of a connection once the consumer is there: a server that was started again may have forgotten
    /// it, and a pull of a consumer that is not there is answered by nobody.
    fn connected(&self, now: NatsState) {
        let (bus, handle, connection) = (
            self.fan_out.bus.clone(),
            self.handle.clone(),
            self.connection.clone(),
        );
        self.tasks.spawn(async move {
            ensure(&bus, handle.partition).await;
            let still = {
                let state = connection.borrow();
                state.connected && state.connects == now.connects
            };
            if still {
                handle.tell(Event::Connected);
            }
        });
    }

    fn message(&mut self, message: Option<Message>) -> Event<Incoming> {
        let Some(message) = message else {
            self.replies = None;
            return Event::Doubt;
        };
        let generation = self.generation;
        if let Some(status) = ConsumerStatus::of(&message) {
            let pull = message
                .subject
                .rsplit('.')
                .next()
                .and_then(|pull| pull.parse().ok());
            return Event::Status {
                generation,
                pull: pull.unwrap_or_default(),
                status,
                unanswered: header(&message, PENDING_HEADER).and_then(|count| count.parse().ok()),
            };
        }
        let reply = message
            .reply
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let Some(info) = DeliveryInfo::parse(&reply) else {
            tracing::warn!(subject = %message.subject, "a message is not from the consumer");
            return Event::Doubt;
        };
        let chat: ChatKey = message.subject.splitn(3, '.').nth(2).unwrap_or_default().into();
        let held = self.payloads.hold(&chat, message.payload.len());
        let kept = held.as_ref().map_or(0, |_| message.payload.len());
        Event::Delivered {
            generation,
            pin: header(&message, PIN_HEADER).map(str::to_owned),
            info,
            delivery: Delivery {
                chat,
                bytes: kept + EVENT_BYTES,
                reply,
                content: Incoming {
                    sequence: info.stream_sequence,
                    stored_at: info.stored_at,
                    lane: Lane {
                        partition: self.handle.partition,
                        generation,
                    },
                    subject: message.subject.to_string(),
                    headers: message.headers.unwrap_or_default(),
                    payload: held.map(|held| (message.payload, held)),
                },
            },
        }
    }

    async fn act(&mut self, action: Action<Incoming>) {
        match action {
            Action::Open { generation } => self.open(generation).await,
            Action::Pull {
                generation,
                number,
                batch,
                bytes_max,
                expires,
                pin,
            } => {
                let pull = Pull {
                    batch,
                    max_bytes: bytes_max,
                    expires: expires.as_nanos() as u64,
                    group: Some(FANOUT_GROUP),
                    id: pin.as_deref(),
                    ..Pull::default()
                };
                self.pull(generation, number, &pull).await;
            }
            Action::Renew {
                generation,
                number,
                pin,
            } => {
                // No message has a single byte, so none is delivered; the server renews the pin before it looks.
                let pull = Pull {
                    batch: 1,
                    max_bytes: 1,
                    no_wait: true,
                    group: Some(FANOUT_GROUP),
                    id: Some(&pin),
                    ..Pull::default()
                };
                self.pull(generation, number, &pull).await;
            }
            Action::Reset { generation } => self.reset(generation),
            Action::Look => self.look(),
            Action::Unpin => {
                // Whoever follows does again what is still there.
                self.fan_out.deletions.rounds.end();
                self.unpin();
            }
            Action::Start {
                sequence, content, ..
            } => self.start(sequence, content),
            Action::Cancel { sequence } => {
                if let Some(cancel) = self.cancels.get(&sequence) {
                    cancel.cancel();
                }
            }
            Action::Delete { sequence } => self.delete(sequence),
            Action::Progress { reply } => self.say_progress(reply).await,
            Action::Forget { chat } => {
                if let Ok(chat_id) = chat.parse::<ChatId>() {
                    self.participants.forget(chat_id);
                }
            }
            Action::End => self.replies = None,
        }
    }

    /// The old inbox is closed by a command that is sent before any that follows: the server drops pulls that
    /// nobody listens to, which would otherwise take what is meant for the new one.
    async fn open(&mut self, generation: u64) {
        if let Some(mut replies) = self.replies.take() {
            // An error says that the connection is gone, and with it the subscription.
            let _ = replies.unsubscribe().await;
        }
        self.generation = generation;
        self.participants = Arc::default();
        let subject = format!("{}.{generation}.*", self.inbox);
        match self.fan_out.bus.client().subscribe(subject).await {
            Ok(replies) => self.replies = Some(replies),
            // The pull will find no answer, and the reader tries again.
            Err(error) => tracing::debug!(%error, "cannot subscribe"),
        }
    }

    async fn pull(&self, generation: u64, number: u64, pull: &Pull<'_>) {
        let subject = Pull::subject(CHATS, &self.consumer);
        let reply = format!("{}.{generation}.{number}", self.inbox);
        let client = self.fan_out.bus.client();
        // A pull that is lost is noticed by its time.
        if self.fan_out.bus.connected()
            && let Err(error) = client.publish_with_reply(subject, reply, pull.encode()).await
        {
            tracing::debug!(%error, "a pull was not sent");
        }
    }

    /// Resets the consumer; at a new pin, what it has delivered before is looked up first.
    fn reset(&self, generation: u64) {
        let (fan_out, handle) = (self.fan_out.clone(), self.handle.clone());
        let pin = self.reader.pin().unwrap_or_default().to_owned();
        let survey = self.survey.clone();
        self.tasks.spawn(async move {
            let known = survey.lock().as_ref().is_some_and(|survey| survey.pin == pin);
            let result = async {
                if !known {
                    let suspects = Arc::new(fan_out.trials.survey(handle.partition).await?);
                    *survey.lock() = Some(Survey { pin, suspects });
                }
                fan_out
                    .bus
                    .reset_partition_consumer(handle.partition, API_TIMEOUT)
                    .await
            }
            .await;
            if let Err(error) = &result {
                tracing::warn!(%error, partition = %handle.partition, "the consumer was not reset");
                // Nobody answers for one that is not there.
                ensure(&fan_out.bus, handle.partition).await;
            }
            handle.tell(Event::Reset {
                generation,
                done: result.is_ok(),
            });
        });
    }

    /// An event that is stored while nobody is pinned, and that does not come, was forgotten by the consumer.
    fn look(&self) {
        let (bus, partition) = (self.fan_out.bus.clone(), self.handle.partition);
        self.tasks.spawn(async move {
            match forgotten_events::remind(&bus, partition).await {
                Ok(None) => {}
                Ok(Some(sequence)) => tracing::warn!(
                    stream.sequence = sequence,
                    %partition,
                    "the consumer had forgotten what is stored from here on, and was reset"
                ),
                Err(error) => tracing::debug!(%error, %partition, "not known whether something is forgotten"),
            }
        });
    }

    fn unpin(&self) {
        let subject = format!("CONSUMER.UNPIN.{CHATS}.{}", self.consumer);
        let (bus, handle) = (self.fan_out.bus.clone(), self.handle.clone());
        self.tasks.spawn(async move {
            // Without it the pin expires.
            if let Err(error) = bus
                .api::<IgnoredAny>(&subject, &json!({ "group": FANOUT_GROUP }), API_TIMEOUT)
                .await
            {
                tracing::debug!(%error, partition = %handle.partition, "the consumer was not unpinned");
            }
            handle.tell(Event::Unpinned);
        });
    }

    fn start(&mut self, sequence: u64, incoming: Incoming) {
        let cancel = CancellationToken::new();
        self.cancels.insert(sequence, cancel.clone());
        let (fan_out, participants) = (self.fan_out.clone(), self.participants.clone());
        let handle = self.handle.clone();
        let survey = self.survey.lock().clone();
        self.tasks.spawn(async move {
            let suspects = survey.as_ref().map(|survey| &survey.suspects);
            let told = || handle.tell(Event::Told { sequence });
            let outcome = fan_out
                .process(&incoming, &participants, suspects, &cancel, told)
                .await;
            handle.tell(match outcome {
                Outcome::Finished => Event::Finished { sequence },
                Outcome::Abandoned => Event::Abandoned { sequence },
            });
        });
    }

    /// Where it fails the event comes again, and is known.
    fn delete(&self, sequence: u64) {
        let (fan_out, handle) = (self.fan_out.clone(), self.handle.clone());
        let (connection, seen) = (self.connection.clone(), self.seen);
        // What nobody was told directly nobody waits for, and a round would only be more to do again.
        let chat_id = fan_out.live.holds.finished(sequence);
        self.tasks.spawn(async move {
            // On another connection the stream may have come back without its end, and have another event in this place.
            let may_still = move || {
                let now = connection.borrow();
                now.connected && seen.is_some_and(|seen| seen.connects == now.connects)
            };
            match fan_out.deletions.delete(sequence, chat_id, may_still).await {
                Ok(()) => fan_out.live.holds.gone(sequence),
                Err(error) => {
                    tracing::debug!(stream.sequence = sequence, %error, "a finished event was not deleted");
                }
            }
            handle.tell(Event::Deleted { sequence });
        });
    }

    /// What is not sent is not missed: the event comes again, and is known.
    async fn say_progress(&self, reply: String) {
        if self.fan_out.bus.connected()
            && let Err(error) = self.fan_out.bus.client().publish(reply, "+WPI".into()).await
        {
            tracing::debug!(%error, "an event was not said to be in progress");
        }
    }
}

/// Makes the consumer if it is not there. The reader pulls again and again, so whoever asks goes on in any case.
async fn ensure(bus: &Bus, partition: Partition) {
    match bus.ensure_partition_consumer(partition, API_TIMEOUT).await {
        Ok(Some(_)) => {}
        Ok(None) => tracing::info!(%partition, "the consumer was not there, and was made"),
        Err(error) => tracing::warn!(%error, %partition, "not known whether the consumer is there"),
    }
}

async fn next(replies: &mut Option<Subscriber>) -> Option<Message> {
    match replies {
        Some(replies) => replies.next().await,
        None => std::future::pending().await,
    }
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message
        .headers
        .as_ref()?
        .get(name)
        .map(async_nats::HeaderValue::as_str)
}
