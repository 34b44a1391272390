//! Which chats are hot. CHATS cannot tell: an event leaves it within milliseconds. So events are looked at as they pass, as
//! `nats sub 'chat.>'` does, for a part of each interval that is as short as it must be: a fleet's events of a whole second
//! would be too many for one who watches.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::Client;
use futures::StreamExt as _;
use tidings_protocol::ChatId;

/// Every event, whatever its chat.
const EVENTS: &str = "chat.*.*";
/// Events of an interval that are looked at: a chat with a hundredth of all is seen 20 times. They come with their
/// bodies, which nobody reads: some 600 KB of usual ones.
const EVENTS_MAX: u64 = 2_000;
/// And at most about so many bytes, where bodies are large.
const BYTES_MAX: usize = 4 << 20;
/// For the subscription. Without a connection it would wait for one.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Half of what is shown is what was just seen, the other half what was before: numbers that jump cannot be read.
const SHARE_OF_NEW: f64 = 0.5;
/// One event in 20 s is not hot.
const RATE_MIN: f64 = 0.05;
/// Chats that are remembered, the hottest: more than are shown.
const CHATS_MAX: usize = 2_000;

/// Events a second, by chat and partition.
#[derive(Debug, Default)]
pub(super) struct HotChats {
    chats: HashMap<ChatId, Heat>,
    /// By the partition's two digits.
    partitions: BTreeMap<String, f64>,
    begun: bool,
}

/// A chat.
#[derive(Clone, Debug, PartialEq)]
struct Heat {
    partition: String,
    rate: f64,
}

/// What passed.
#[derive(Debug, Default)]
struct Seen {
    chats: HashMap<ChatId, (String, u64)>,
    events: u64,
    bytes: usize,
}

impl HotChats {
    /// Looks at events for an interval, or until it has seen enough. Returns at the interval's end.
    pub(super) async fn watch(&mut self, client: &Client, interval: Duration) -> anyhow::Result<()> {
        let mut rest = std::pin::pin!(tokio::time::sleep(interval));
        let subscribed = tokio::time::timeout(TIMEOUT, async {
            let events = client.subscribe(EVENTS).await?;
            client.flush().await?;
            anyhow::Ok(events)
        });
        let mut events = match subscribed.await.context("no connection to NATS") {
            Ok(Ok(events)) => events,
            Ok(Err(error)) | Err(error) => {
                rest.await;
                return Err(error);
            }
        };
        let began = Instant::now();
        let mut seen = Seen::default();
        while !seen.enough() {
            tokio::select! {
                () = &mut rest => break,
                event = events.next() => match event {
                    Some(event) => seen.note(&event.subject, event.length),
                    None => break,
                },
            }
        }
        let over = began.elapsed();
        // Unsubscribes.
        drop(events);
        self.learn(seen, over);
        if !rest.is_elapsed() {
            rest.await;
        }
        Ok(())
    }

    fn learn(&mut self, seen: Seen, over: Duration) {
        let share = if self.begun { SHARE_OF_NEW } else { 1.0 };
        self.begun = true;
        // Less than a millisecond says nothing.
        let seconds = over.as_secs_f64().max(0.001);
        for heat in self.chats.values_mut() {
            heat.rate *= 1.0 - share;
        }
        for rate in self.partitions.values_mut() {
            *rate *= 1.0 - share;
        }
        for (chat_id, (partition, events)) in seen.chats {
            let rate = share * events as f64 / seconds;
            *self.partitions.entry(partition.clone()).or_default() += rate;
            let heat = self.chats.entry(chat_id).or_insert(Heat { partition, rate: 0.0 });
            heat.rate += rate;
        }
        self.chats.retain(|_, heat| heat.rate >= RATE_MIN);
        if self.chats.len() > CHATS_MAX {
            let hottest = self.hottest(CHATS_MAX).into_iter().map(|(chat_id, _, _)| chat_id);
            let hottest: HashSet<ChatId> = hottest.collect();
            self.chats.retain(|chat_id, _| hottest.contains(chat_id));
        }
    }

    /// The hottest chats, with their partition and events a second.
    pub(super) fn hottest(&self, count: usize) -> Vec<(ChatId, &str, f64)> {
        let mut chats: Vec<(ChatId, &str, f64)> = self
            .chats
            .iter()
            .map(|(chat_id, heat)| (*chat_id, heat.partition.as_str(), heat.rate))
            .collect();
        chats.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| a.0.0.cmp(&b.0.0)));
        chats.truncate(count);
        chats
    }

    /// Events a second of a partition, by its two digits.
    pub(super) fn of_partition(&self, partition: &str) -> f64 {
        self.partitions.get(partition).copied().unwrap_or(0.0)
    }
}

impl Seen {
    fn note(&mut self, subject: &str, bytes: usize) {
        self.events += 1;
        self.bytes += bytes;
        let mut tokens = subject.split('.').skip(1);
        let (Some(partition), Some(Ok(chat_id))) = (tokens.next(), tokens.next().map(str::parse)) else {
            return;
        };
        let (_, events) = self
            .chats
            .entry(chat_id)
            .or_insert_with(|| (partition.to_owned(), 0));
        *events += 1;
    }

    const fn enough(&self) -> bool {
        self.events >= EVENTS_MAX || self.bytes >= BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn chat(number: u128) -> ChatId {
        ChatId(Uuid::from_u128(number))
    }

    fn seen(events: &[(u128, u64)]) -> Seen {
        let mut seen = Seen::default();
        for (number, count) in events {
            for _ in 0..*count {
                seen.note(&format!("chat.07.{}", chat(*number)), 100);
            }
        }
        seen
    }

    #[test]
    fn the_hottest_come_first_and_cool_down() {
        let mut hot = HotChats::default();
        hot.learn(seen(&[(1, 2), (2, 10)]), Duration::from_secs(2));
        assert_eq!(hot.hottest(5), [(chat(2), "07", 5.0), (chat(1), "07", 1.0)]);
        assert!((hot.of_partition("07") - 6.0).abs() < 1e-9);
        hot.learn(seen(&[(1, 16)]), Duration::from_secs(2));
        assert_eq!(hot.hottest(5), [(chat(1), "07", 4.5), (chat(2), "07", 2.5)]);
        for _ in 0..10 {
            hot.learn(Seen::default(), Duration::from_secs(1));
        }
        assert_eq!(hot.hottest(5), []);
    }

    #[test]
    fn enough_is_enough_and_is_told_by_the_time_it_took() {
        let enough = seen(&[(1, EVENTS_MAX)]);
        assert!(enough.enough() && !seen(&[(1, EVENTS_MAX - 1)]).enough());
        let mut hot = HotChats::default();
        hot.learn(enough, Duration::from_millis(100));
        assert_eq!(hot.hottest(1), [(chat(1), "07", 20_000.0)]);
        let mut large = Seen::default();
        large.note("chat.07.x", BYTES_MAX);
        assert!(large.enough() && large.chats.is_empty());
    }

    #[test]
    fn no_more_chats_are_remembered_than_may_be() {
        let mut hot = HotChats::default();
        for round in 0..4 {
            let events: Vec<(u128, u64)> = (0..EVENTS_MAX)
                .map(|number| (u128::from(round * EVENTS_MAX + number), 1))
                .collect();
            hot.learn(seen(&events), Duration::from_secs(1));
            assert_eq!(hot.chats.len(), CHATS_MAX);
        }
    }
}
