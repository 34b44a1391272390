//! A connection to NATS that says how it is: connected since when, how often, and whether messages were lost.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::Event;
use tidings_nats::{Bus, Denial, Denials};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::nats_settings::NatsSettings;

/// A server that does not answer is given up after this; another of the cluster is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A dead connection is noticed after two to three of these, well below the 10 s in which another takes over.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// A request without an answer fails after this: above an election of JetStream would be too long for a caller.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between tries to connect at most this passes, full jitter: all gateways lose the same server at once.
const RECONNECT_DELAY_MAX: Duration = Duration::from_secs(2);
/// How often the counters of the connection are compared with the events, of which a flood may drop some.
const COUNTERS_INTERVAL: Duration = Duration::from_millis(500);

/// How a connection is. A reader that must not miss anything compares `connects` and `slow_consumers` with what
/// it saw before.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct NatsState {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Since when `connected` is what it is.
    pub since: Instant,
    /// How often a connection was made, the first one included. Higher than before: core NATS messages may have
    /// been lost in between.
    pub connects: u64,
    /// How many messages were dropped because a subscription of this process was full.
    pub slow_consumers: u64,
}

/// A connection that comes back by itself. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NatsConnection {
    client: async_nats::Client,
    state: watch::Receiver<NatsState>,
    denials: Arc<Denials>,
}

impl NatsConnection {
    /// Connects once; fails where no server can be reached or the login is refused. Later losses are repaired by
    /// the connection itself. `name` is what operators see in `nats server report connections`.
    pub async fn connect(settings: &NatsSettings, name: &str) -> anyhow::Result<Self> {
        let (sender, state) = watch::channel(NatsState {
            connected: false,
            since: Instant::now(),
            connects: 0,
            slow_consumers: 0,
        });
        let events = sender.clone();
        let denials = Arc::new(Denials::default());
        let forbidden = denials.clone();
        let client = settings
            .options()
            .await?
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .reconnect_delay_callback(reconnect_delay)
            .event_callback(move |event| {
                apply(&events, &forbidden, &event);
                std::future::ready(())
            })
            .connect(settings.addresses())
            .await
            .map_err(|error| settings.explain(error))?;
        tokio::spawn(watch_counters(client.clone(), sender));
        let mut connection = Self {
            client,
            state,
            denials,
        };
        connection
            .state
            .wait_for(|state| state.connected)
            .await
            .context("the connection was closed")?;
        Ok(connection)
    }

    /// Connects, however long it takes, with back-off; each failure is logged. Ends when the future `given_up`
    /// ends, with `None`, or when the settings themselves are wrong.
    pub async fn connect_with_retries(
        settings: &NatsSettings,
        name: &str,
        given_up: impl Future<Output = ()>,
    ) -> Option<Self> {
        let connect = async {
            for attempt in 1.. {
                match Self::connect(settings, name).await {
                    Ok(connection) => return connection,
                    Err(error) => tracing::warn!(attempt, "{error:#}; trying again"),
                }
                tokio::time::sleep(reconnect_delay(attempt)).await;
            }
            unreachable!("there are more attempts than seconds")
        };
        tokio::select! {
            connection = connect => Some(connection),
            () = given_up => None,
        }
    }

    /// The client, for publishing, requests and subscriptions.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// The bus on this connection.
    pub fn bus(&self) -> Bus {
        Bus::with_denials(self.client.clone(), self.denials.clone())
    }

    /// How the connection is, now and at each change.
    pub fn state(&self) -> watch::Receiver<NatsState> {
        self.state.clone()
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().connected
    }
}

/// Full jitter below a bound that doubles from 100 ms.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(10);
    let bound = (Duration::from_millis(100) * 2_u32.pow(doublings)).min(RECONNECT_DELAY_MAX);
    bound.mul_f64(rand::random())
}

fn apply(state: &watch::Sender<NatsState>, denials: &Denials, event: &Event) {
    match event {
        Event::Connected => {
            denials.forget();
            connected(state, None);
        }
        Event::Disconnected | Event::Closed => disconnected(state),
        Event::SlowConsumer(subscription) => {
            metrics::counter!("tidings_nats_slow_consumer_messages_total").increment(1);
            tracing::debug!(subscription, "a subscription is full: a message was dropped");
            state.send_modify(|state| state.slow_consumers += 1);
        }
        Event::LameDuckMode => tracing::info!("the NATS server is about to stop; another one is looked for"),
        Event::Draining => tracing::debug!("the NATS connection is draining"),
        Event::ServerError(error) => server_error(denials, &error.to_string()),
        Event::ClientError(error) => tracing::warn!(%error, "the NATS client reported an error"),
    }
}

/// What is forbidden is a mistake of whoever set the servers up, and stays one until they put it right. It is counted, and
/// said now and then.
fn server_error(denials: &Denials, error: &str) {
    match denials.note(error, std::time::Instant::now()) {
        None => tracing::warn!(error, "the NATS server reported an error"),
        Some(Denial { subject, tell }) => {
            metrics::counter!("tidings_nats_forbidden_total").increment(1);
            if tell {
                tracing::error!(
                    subject,
                    "NATS forbids this process what it needs: has its user the permissions of this version (tidings nats-users)?"
                );
            }
        }
    }
}

/// `connects` is the connection's own count, or `None` where the event itself is counted.
fn connected(state: &watch::Sender<NatsState>, connects: Option<u64>) {
    let changed = state.send_if_modified(|state| {
        let connects = connects.unwrap_or(state.connects + 1);
        if state.connected && state.connects >= connects {
            return false;
        }
        *state = NatsState {
            connected: true,
            since: Instant::now(),
            connects,
            ..*state
        };
        true
    });
    if changed {
        metrics::counter!("tidings_nats_connects_total").increment(1);
        metrics::gauge!("tidings_nats_connected").set(1);
        tracing::info!(nats.connects = state.borrow().connects, "connected to NATS");
    }
}

fn disconnected(state: &watch::Sender<NatsState>) {
    let changed = state.send_if_modified(|state| {
        let changed = state.connected;
        if changed {
            *state = NatsState {
                connected: false,
                since: Instant::now(),
                ..*state
            };
        }
        changed
    });
    if changed {
        metrics::gauge!("tidings_nats_connected").set(0);
        tracing::warn!("lost the connection to NATS; connecting again");
    }
}

/// `async-nats` drops events when 128 of them wait, which a flood of slow-consumer events can cause; its counters
/// are exact.
async fn watch_counters(client: async_nats::Client, state: watch::Sender<NatsState>) {
    let mut interval = tokio::time::interval(COUNTERS_INTERVAL);
    let mut connects_before = 0;
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = state.closed() => return,
        }
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        // An event that is only late is not lost: both looks, half a second apart, must agree.
        if connects == connects_before && connects > state.borrow().connects {
            connected(&state, Some(connects));
        }
        connects_before = connects;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_jittered_and_bounded() {
        let delays: Vec<Duration> = (0..1000).map(|_| reconnect_delay(50)).collect();
        assert!(delays.iter().all(|delay| *delay <= RECONNECT_DELAY_MAX));
        assert!(delays.iter().max() > delays.iter().min());
        assert!(reconnect_delay(1) <= Duration::from_millis(100));
    }

    #[test]
    fn events_and_counters_make_one_count() {
        let (sender, state) = watch::channel(NatsState {
            connected: false,
            since: Instant::now(),
            connects: 0,
            slow_consumers: 0,
        });
        let apply = |sender: &watch::Sender<NatsState>, event: &Event| {
            apply(sender, &Denials::default(), event);
        };
        apply(&sender, &Event::Connected);
        connected(&sender, Some(1));
        assert_eq!((state.borrow().connected, state.borrow().connects), (true, 1));
        apply(&sender, &Event::Disconnected);
        assert!(!state.borrow().connected);
        apply(&sender, &Event::Connected);
        apply(&sender, &Event::SlowConsumer(7));
        assert_eq!((state.borrow().connects, state.borrow().slow_consumers), (2, 1));
        // Both the loss and the return were dropped in a flood.
        connected(&sender, Some(3));
        assert_eq!(state.borrow().connects, 3);
    }
}
