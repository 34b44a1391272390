//! Readers by script: one step a line.

mod deleting;

use std::time::{Duration, Instant};

use tidings_nats::{ConsumerStatus, DeliveryInfo};

use super::pulls::{BATCH_MAX, BYTES_FREE_MIN, BYTES_MAX, EVENTS_FREE_MIN, EVENTS_MAX};
use super::{Action, Delivery, Event, PartitionReader};

/// A reader, its time, and what it wants done, in short words.
struct Script {
    reader: PartitionReader<()>,
    now: Instant,
}

impl Script {
    /// Not connected.
    fn new() -> Self {
        let now = Instant::now();
        Self {
            reader: PartitionReader::new(now),
            now,
        }
    }

    /// Pinned and reading generation 2.
    fn reading() -> Self {
        let mut script = Self::new();
        script.check(Event::Connected, &[]);
        script.check(Event::Resume, &["open 1", "ask"]);
        script.deliver(1, 1, 1, "a", &["open 2", "reset 2"]);
        script.check(
            Event::Reset {
                generation: 2,
                done: true,
            },
            &["pull 1024"],
        );
        script
    }

    fn check(&mut self, event: Event<()>, expected: &[&str]) {
        let said = format!("{event:?}");
        let actions: Vec<String> = self
            .reader
            .handle(event, self.now)
            .into_iter()
            .map(short)
            .collect();
        assert_eq!(actions, expected, "{said}");
    }

    fn deliver(&mut self, generation: u64, consumer: u64, stream: u64, chat: &str, expected: &[&str]) {
        self.deliver_large(generation, consumer, stream, chat, 100, expected);
    }

    fn deliver_large(
        &mut self,
        generation: u64,
        consumer: u64,
        stream: u64,
        chat: &str,
        bytes: usize,
        expected: &[&str],
    ) {
        let event = Event::Delivered {
            generation,
            pin: Some("p".to_owned()),
            info: DeliveryInfo {
                delivered: 1,
                stream_sequence: stream,
                consumer_sequence: consumer,
                stored_at: stream,
                pending: 0,
            },
            delivery: Delivery {
                chat: chat.into(),
                bytes,
                reply: format!("{stream}.{consumer}"),
                content: (),
            },
        };
        self.check(event, expected);
    }

    fn status(&mut self, generation: u64, pull: u64, status: ConsumerStatus, expected: &[&str]) {
        self.check(ended(generation, pull, status, None), expected);
    }

    fn after(&mut self, milliseconds: u64, expected: &[&str]) {
        self.now += Duration::from_millis(milliseconds);
        self.check(Event::Tick, expected);
    }
}

fn ended(generation: u64, pull: u64, status: ConsumerStatus, unanswered: Option<u32>) -> Event<()> {
    Event::Status {
        generation,
        pull,
        status,
        unanswered,
    }
}

fn was_reset(generation: u64, done: bool) -> Event<()> {
    Event::Reset { generation, done }
}

fn short(action: Action<()>) -> String {
    match action {
        Action::Open { generation } => format!("open {generation}"),
        Action::Pull { pin: None, .. } => "ask".to_owned(),
        Action::Pull { batch, .. } => format!("pull {batch}"),
        Action::Renew { .. } => "renew".to_owned(),
        Action::Reset { generation } => format!("reset {generation}"),
        Action::Look => "look".to_owned(),
        Action::Unpin => "unpin".to_owned(),
        Action::Start { sequence, .. } => format!("start {sequence}"),
        Action::Cancel { sequence } => format!("cancel {sequence}"),
        Action::Delete { sequence } => format!("delete {sequence}"),
        Action::Progress { reply } => format!("progress {reply}"),
        Action::Forget { chat } => format!("forget {chat}"),
        Action::End => "end".to_owned(),
    }
}

#[test]
fn events_of_a_chat_wait_for_each_other() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    script.deliver(2, 3, 3, "b", &["start 3"]);
    script.check(Event::Finished { sequence: 3 }, &["delete 3"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1", "start 2"]);
}

#[test]
fn what_is_told_keeps_nobody_waiting_until_it_may_have_to_be_told_again() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    script.deliver(2, 3, 3, "a", &[]);
    script.check(Event::Told { sequence: 1 }, &["start 2"]);
    script.check(Event::Told { sequence: 1 }, &[]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1"]);
    script.check(Event::Told { sequence: 2 }, &["start 3"]);
    script.check(Event::Suspend, &["cancel 3", "cancel 2", "open 3", "unpin"]);
    script.check(Event::Told { sequence: 3 }, &[]);
    script.check(Event::Abandoned { sequence: 3 }, &[]);
    script.check(Event::Finished { sequence: 2 }, &["delete 2"]);
}

#[test]
fn a_gap_is_a_fresh_start_and_what_runs_counts_once() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    script.deliver(2, 4, 4, "b", &["open 3"]);
    script.after(500, &["reset 3"]);
    script.deliver(2, 5, 5, "c", &[]);
    script.check(
        Event::Reset {
            generation: 3,
            done: true,
        },
        &["pull 1024"],
    );
    assert_eq!(script.reader.in_hand(), 1);
    script.deliver(3, 1, 1, "a", &[]);
    script.deliver(3, 2, 2, "a", &[]);
    script.deliver(3, 3, 3, "b", &["start 3"]);
    script.check(
        Event::Finished { sequence: 1 },
        &["forget a", "delete 1", "start 2"],
    );
}

#[test]
fn a_lost_pin_cancels_what_runs_and_what_comes_back_waits_for_it() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    script.status(2, 2, ConsumerStatus::NotPinned, &["cancel 1", "open 3", "ask"]);
    script.deliver(3, 7, 3, "b", &["open 4"]);
    script.after(500, &["reset 4"]);
    script.check(
        Event::Reset {
            generation: 4,
            done: true,
        },
        &["pull 1024"],
    );
    assert_eq!(script.reader.in_hand(), 1);
    script.deliver(4, 1, 1, "a", &[]);
    script.check(Event::Abandoned { sequence: 1 }, &["start 1"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1"]);
}

#[test]
fn a_reconnect_asks_whether_the_pin_still_holds() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Disconnected, &[]);
    script.after(1_000, &[]);
    script.check(Event::Connected, &["open 3", "renew"]);
    script.status(3, 3, ConsumerStatus::BatchDone, &["open 4", "reset 4"]);
    // Too late, it is not worth asking.
    script.check(Event::Disconnected, &[]);
    script.after(5_000, &[]);
    script.check(Event::Connected, &["cancel 1", "open 5", "ask"]);
}

#[test]
fn pulls_ask_for_no_more_than_fits_and_the_pin_is_renewed_meanwhile() {
    let mut script = Script::reading();
    let large = BYTES_MAX / 4 + 1;
    for sequence in 1..=3 {
        let started = format!("start {sequence}");
        script.deliver_large(2, sequence, sequence, &format!("{sequence}"), large, &[&started]);
    }
    script.status(2, 2, ConsumerStatus::Expired, &[]);
    script.after(1_600, &["renew"]);
    script.after(1_000, &["progress 1.1", "progress 2.2", "progress 3.3"]);
    script.after(600, &["renew"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1", "pull 1024"]);
}

#[test]
fn what_waits_long_is_said_to_be_in_progress() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    script.status(2, 2, ConsumerStatus::Expired, &["pull 1024"]);
    script.now += Duration::from_secs(20);
    script.status(2, 3, ConsumerStatus::Expired, &["pull 1024"]);
    script.after(0, &["progress 2.2", "progress 1.1"]);
}

#[test]
fn a_stop_finishes_what_runs_and_unpins() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    let within = Duration::from_secs(5);
    script.check(Event::Stop { within }, &["open 3"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1"]);
    // Whoever is pinned next would do it again.
    script.check(Event::Deleted { sequence: 1 }, &["unpin"]);
    script.check(Event::Unpinned, &["end"]);
}

#[test]
fn a_stop_does_not_wait_for_weather() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    let within = Duration::from_secs(1);
    script.check(Event::Stop { within }, &["open 3"]);
    script.after(1_100, &["cancel 1"]);
    script.check(Event::Abandoned { sequence: 1 }, &["unpin"]);
    script.check(Event::Unpinned, &["end"]);
}

#[test]
fn who_may_not_work_lets_go_at_once() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Suspend, &["cancel 1", "open 3", "unpin"]);
    script.check(Event::Unpinned, &[]);
    script.after(60_000, &[]);
    script.check(Event::Resume, &["open 4", "ask"]);
}

#[test]
fn errors_are_met_with_a_pause() {
    let mut script = Script::reading();
    script.status(2, 2, ConsumerStatus::Ended, &[]);
    script.after(400, &[]);
    script.after(100, &["open 3", "ask"]);
    // Nobody answers for a consumer that is not there.
    script.status(3, 3, ConsumerStatus::NoResponders, &["look"]);
    script.after(500, &["open 4", "ask"]);
    // A pull without any answer is an error, too.
    script.after(4_100, &[]);
    script.after(500, &["open 5", "ask"]);
}

#[test]
fn a_reader_holds_the_partition_from_its_pin_to_its_end() {
    let mut script = Script::reading();
    assert!(!PartitionReader::<()>::new(script.now).pinned());
    assert!(script.reader.pinned());
    assert_eq!(script.reader.pin(), Some("p"));
    script.check(Event::Suspend, &["open 3", "unpin"]);
    assert!(!script.reader.pinned());
}

#[test]
fn everything_that_waits_or_runs_is_in_hand() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 2, "a", &[]);
    assert_eq!(script.reader.in_hand(), 2);
    // Its ack wait is over before it is finished.
    script.deliver(2, 3, 1, "a", &[]);
    assert_eq!((script.reader.in_hand(), script.reader.bytes), (3, 300));
    script.deliver(2, 4, 1, "a", &[]);
    assert_eq!((script.reader.in_hand(), script.reader.bytes), (3, 300));
    // One that waits is only said to be in progress.
    script.deliver(2, 5, 2, "a", &["progress 2.5"]);
    assert_eq!((script.reader.in_hand(), script.reader.bytes), (3, 300));
}

#[test]
fn a_doubt_before_the_reset_asks_again() {
    let mut script = Script::new();
    script.check(Event::Doubt, &[]);
    script.check(Event::Connected, &[]);
    script.check(Event::Resume, &["open 1", "ask"]);
    script.check(Event::Doubt, &["open 2", "ask"]);
    script.check(Event::Resume, &[]);
    let mut script = Script::reading();
    script.check(Event::Disconnected, &[]);
    script.check(Event::Connected, &["open 3", "renew"]);
    script.check(Event::Doubt, &["open 4", "renew"]);
    let mut script = Script::reading();
    script.check(Event::Doubt, &["open 3"]);
    script.check(Event::Doubt, &["open 4"]);
}

#[test]
fn only_the_answer_to_the_last_reset_counts() {
    let mut script = Script::reading();
    script.check(Event::Doubt, &["open 3"]);
    script.after(500, &["reset 3"]);
    script.check(was_reset(2, true), &[]);
    script.check(was_reset(3, false), &["open 4"]);
    script.after(500, &["reset 4"]);
    script.check(was_reset(4, true), &["pull 1024"]);
    script.deliver(4, 1, 1, "a", &["start 1"]);
    // Once more, while it reads already.
    script.check(was_reset(4, true), &[]);
    script.deliver(4, 2, 2, "b", &["start 2"]);
}

#[test]
fn what_is_not_answered_is_given_up() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Disconnected, &[]);
    script.check(Event::Connected, &["open 3", "renew"]);
    script.now += Duration::from_millis(5_900);
    script.check(Event::Reluctant(false), &[]);
    script.now += Duration::from_millis(100);
    script.check(Event::Reluctant(false), &["cancel 1", "open 4", "ask"]);

    let mut script = Script::reading();
    script.check(Event::Doubt, &["open 3"]);
    script.after(500, &["reset 3"]);
    // The pin is kept meanwhile.
    script.after(1_500, &["renew"]);
    script.now += Duration::from_millis(4_400);
    script.check(Event::Reluctant(false), &["renew"]);
    script.after(100, &["open 4", "reset 4"]);

    let mut script = Script::reading();
    script.check(Event::Release, &["open 3", "unpin"]);
    script.after(5_900, &[]);
    script.after(100, &[]);
    script.after(3_900, &[]);
    script.after(100, &["open 4", "ask"]);
}

#[test]
fn whoever_stops_ends_once_nothing_runs() {
    let within = Duration::from_secs(1);
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Disconnected, &[]);
    script.check(Event::Stop { within }, &["cancel 1"]);
    script.check(Event::Abandoned { sequence: 1 }, &["end"]);
    script.check(Event::Connected, &[]);

    let mut script = Script::reading();
    script.check(Event::Release, &["open 3", "unpin"]);
    script.check(Event::Stop { within }, &[]);
    script.check(Event::Unpinned, &["end"]);

    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Disconnected, &[]);
    script.check(Event::Connected, &["open 3", "renew"]);
    script.check(Event::Stop { within }, &["cancel 1", "unpin"]);
    script.check(Event::Unpinned, &[]);
    script.check(Event::Finished { sequence: 1 }, &["end"]);

    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Stop { within }, &["open 3"]);
    script.check(Event::Disconnected, &["cancel 1"]);
    script.check(Event::Connected, &[]);
    script.check(Event::Abandoned { sequence: 1 }, &["end"]);
}

#[test]
fn whoever_may_not_work_gives_away_only_what_it_holds() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Disconnected, &[]);
    script.check(Event::Suspend, &["cancel 1"]);
    script.check(Event::Connected, &[]);
    assert!(!script.reader.pinned());
    script.check(Event::Resume, &["open 3", "ask"]);
    script.check(Event::Suspend, &[]);
    script.check(Event::Resume, &["open 4", "ask"]);

    let mut script = Script::reading();
    script.check(Event::Release, &["open 3", "unpin"]);
    script.check(Event::Suspend, &[]);
    // It is not over before it is unpinned.
    script.check(Event::Resume, &[]);
    script.check(Event::Unpinned, &[]);
    script.after(4_000, &["open 4", "ask"]);

    let mut script = Script::reading();
    script.check(Event::Suspend, &["open 3", "unpin"]);
    script.check(Event::Unpinned, &[]);
    script.check(Event::Resume, &["open 4", "ask"]);
}

#[test]
fn whoever_has_enough_asks_after_the_others() {
    let mut script = Script::new();
    script.check(Event::Connected, &[]);
    script.check(Event::Reluctant(true), &[]);
    script.check(Event::Resume, &["open 1", "ask"]);
    script.status(1, 1, ConsumerStatus::Expired, &["look"]);
    script.after(1_900, &[]);
    script.after(100, &["ask"]);
    // A pull that is out lasts a second, and two more until it counts as lost.
    script.after(2_900, &[]);
    script.after(100, &["look"]);
    script.after(500, &["open 2", "ask"]);
    script.status(2, 3, ConsumerStatus::Expired, &["look"]);
    script.check(Event::Reluctant(true), &[]);
    script.check(Event::Reluctant(false), &["ask"]);
    script.status(2, 4, ConsumerStatus::Expired, &["ask"]);
    // Half a second later the other pulls of the worker end, and so does this one.
    script.after(2_400, &[]);
    script.after(100, &["look"]);
    script.after(500, &["open 3", "ask"]);
}

#[test]
fn a_pull_that_ends_says_what_is_missing() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(ended(2, 2, ConsumerStatus::Heartbeat, None), &[]);
    script.check(ended(2, 1, ConsumerStatus::Expired, Some(7)), &[]);
    script.check(ended(2, 2, ConsumerStatus::Expired, Some(1_023)), &["pull 1024"]);
    // The server delivered one that did not come here.
    script.check(ended(2, 3, ConsumerStatus::Expired, Some(1_023)), &["open 3"]);
}

#[test]
fn others_are_no_news_before_the_pin_and_after_it() {
    let mut script = Script::new();
    script.check(Event::Connected, &[]);
    script.check(Event::Resume, &["open 1", "ask"]);
    script.status(1, 1, ConsumerStatus::NotPinned, &[]);
    let mut script = Script::reading();
    script.check(Event::Release, &["open 3", "unpin"]);
    script.status(3, 2, ConsumerStatus::NotPinned, &[]);
    script.status(3, 2, ConsumerStatus::Ended, &[]);
    script.check(Event::Unpinned, &[]);
    script.after(4_000, &["open 4", "ask"]);
}

#[test]
fn a_delivery_of_another_pin_is_the_end_of_this_one() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    let delivered = |pin: Option<&str>, generation, stream| Event::Delivered {
        generation,
        pin: pin.map(str::to_owned),
        info: DeliveryInfo {
            delivered: 1,
            stream_sequence: stream,
            consumer_sequence: 2,
            stored_at: stream,
            pending: 0,
        },
        delivery: Delivery {
            chat: "b".into(),
            bytes: 100,
            reply: "2.2".to_owned(),
            content: (),
        },
    };
    script.check(delivered(Some("q"), 2, 2), &["cancel 1", "open 3", "ask"]);
    // A server that does not pin: not well.
    script.check(delivered(None, 3, 2), &[]);
    script.after(500, &["open 4", "ask"]);
}

#[test]
fn pulls_are_sent_while_a_good_part_is_free() {
    let mut script = Script::reading();
    script.deliver_large(2, 1, 1, "1", BYTES_MAX - BYTES_FREE_MIN, &["start 1"]);
    script.status(2, 2, ConsumerStatus::Expired, &["pull 1024"]);
    script.deliver_large(2, 2, 2, "2", 1, &["start 2"]);
    script.status(2, 3, ConsumerStatus::Expired, &[]);

    let mut script = Script::reading();
    for sequence in 1..=(EVENTS_MAX - EVENTS_FREE_MIN) as u64 {
        let started = format!("start {sequence}");
        let mut expected = vec![started.as_str()];
        if sequence.is_multiple_of(BATCH_MAX as u64) {
            expected.push("pull 1024");
        }
        script.deliver(2, sequence, sequence, &sequence.to_string(), &expected);
    }
    script.status(2, 5, ConsumerStatus::Expired, &["pull 256"]);
    script.deliver(2, 3_841, 3_841, "3841", &["start 3841"]);
    script.status(2, 6, ConsumerStatus::Expired, &[]);
}

#[test]
fn the_pin_is_kept_while_what_runs_comes_to_its_end() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Release, &["open 3"]);
    script.after(1_400, &[]);
    script.after(100, &["renew"]);
    script.after(500, &["progress 1.1"]);
    script.after(900, &[]);
    script.after(100, &["renew"]);
    script.after(4_000, &["renew", "progress 1.1"]);
    script.after(900, &[]);
    script.after(100, &["cancel 1"]);
    script.check(Event::Finished { sequence: 1 }, &["delete 1", "unpin"]);
}

#[test]
fn nothing_is_in_progress_without_a_pin_or_a_connection() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.check(Event::Disconnected, &[]);
    script.after(3_000, &[]);
    script.check(Event::Connected, &["open 3", "renew"]);
    script.status(3, 3, ConsumerStatus::NotPinned, &["cancel 1", "open 4", "ask"]);
    script.after(2_900, &[]);
}

#[test]
fn pulls_end_together() {
    let began = Instant::now();
    for (sent, expires) in [
        (0, 2_000),
        (1, 1_999),
        (1_500, 500),
        (1_501, 2_499),
        (2_000, 2_000),
        (7_300, 700),
    ] {
        let mut reader = PartitionReader::<()>::new(began);
        let now = began + Duration::from_millis(sent);
        reader.handle(Event::Connected, now);
        let actions = reader.handle(Event::Resume, now);
        let pull = actions.iter().find_map(|action| match action {
            Action::Pull { expires, .. } => Some(*expires),
            _ => None,
        });
        assert_eq!(pull, Some(Duration::from_millis(expires)), "sent after {sent} ms");
    }
}

#[test]
fn what_came_again_is_no_longer_in_hand_once_it_is_finished_or_forgotten() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 1, "a", &[]);
    script.check(Event::Finished { sequence: 1 }, &["forget a", "delete 1"]);
    assert_eq!(script.reader.bytes, 0);
    script.deliver(2, 3, 2, "a", &["start 2"]);
    script.deliver(2, 4, 2, "a", &[]);
    script.check(Event::Doubt, &["open 3"]);
    assert_eq!(script.reader.bytes, 100);
}

#[test]
fn what_is_abandoned_and_waits_again_is_said_to_be_in_progress_in_time() {
    let mut script = Script::reading();
    script.deliver(2, 1, 1, "a", &["start 1"]);
    script.deliver(2, 2, 1, "a", &[]);
    script.check(Event::Abandoned { sequence: 1 }, &["start 1"]);
    script.after(1_900, &[]);
    script.after(100, &["progress 1.2"]);
}
