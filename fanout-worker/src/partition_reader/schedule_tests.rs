//! Readers against the model of their consumer, under generated schedules: connections break, messages get lost,
//! leaders change, workers come and go. A failure names its seed; `TIDINGS_SEED=<seed>` runs that one alone,
//! `TIDINGS_SEEDS=<count>` runs more than usual.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::consumer_model::{Consumer, Inbox, Output, Request};
use super::{Action, Delivery, Event, PartitionReader};

/// A generator that gives the same for the same seed on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a worker has sent and the server has not seen.
enum Sent {
    Open(u64),
    Request(Request),
    Reset(u64),
    Unpin,
    Ack(u64),
    Progress(u64),
}

/// What the server has sent and the worker has not seen.
enum Answer {
    Output(u64, Output),
    Reset(u64),
    Unpinned,
}

struct Worker {
    reader: PartitionReader<u64>,
    connected: bool,
    allowed: bool,
    ended: bool,
    /// Which inbox the server delivers to.
    open: Option<u64>,
    sent: VecDeque<Sent>,
    answers: VecDeque<Answer>,
    /// Requests that wait for an answer; one that does not come is a failure.
    asked: Vec<(Instant, Option<u64>)>,
    /// What runs: sequence, chat, cancelled.
    running: BTreeMap<u64, (u64, bool)>,
    finished: BTreeSet<u64>,
}

struct World {
    random: Random,
    now: Instant,
    consumer: Consumer,
    workers: Vec<Worker>,
    chats: u64,
    chat_of: HashMap<u64, u64>,
    /// The events all of whose entries are stored.
    done: BTreeSet<u64>,
    started: u64,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, workers: usize, chats: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            now: Instant::now(),
            consumer: Consumer::default(),
            workers: Vec::new(),
            chats,
            chat_of: HashMap::new(),
            done: BTreeSet::new(),
            started: 0,
            log: Vec::new(),
        };
        for _ in 0..workers {
            world.add_worker();
        }
        world
    }

    fn add_worker(&mut self) {
        let worker = self.workers.len();
        self.workers.push(Worker {
            reader: PartitionReader::new(self.now),
            connected: true,
            allowed: true,
            ended: false,
            open: None,
            sent: VecDeque::new(),
            answers: VecDeque::new(),
            asked: Vec::new(),
            running: BTreeMap::new(),
            finished: BTreeSet::new(),
        });
        self.tell(worker, Event::Connected);
        self.tell(worker, Event::Resume);
    }

    fn tell(&mut self, worker: usize, event: Event<u64>) {
        self.log.push(format!("{worker} <- {event:?}"));
        let actions = self.workers[worker].reader.handle(event, self.now);
        for action in actions {
            self.log.push(format!("{worker} -> {action:?}"));
            self.act(worker, action);
        }
    }

    fn act(&mut self, worker: usize, action: Action<u64>) {
        let now = self.now;
        let sequence_of = |reply: &str| reply.parse::<u64>().expect("replies are sequences");
        let sent = match action {
            Action::Open { generation } => Sent::Open(generation),
            Action::Pull {
                generation,
                number,
                batch,
                expires,
                pin,
                ..
            } => {
                assert!(batch > 0, "an empty pull");
                Sent::Request(Request {
                    inbox: (worker, generation),
                    number,
                    batch,
                    too_small: false,
                    no_wait: false,
                    expires,
                    pin,
                })
            }
            Action::Renew {
                generation,
                number,
                pin,
            } => Sent::Request(Request {
                inbox: (worker, generation),
                number,
                batch: 1,
                too_small: true,
                no_wait: true,
                expires: Duration::ZERO,
                pin: Some(pin),
            }),
            Action::Reset { generation } => {
                self.workers[worker]
                    .asked
                    .push((now + Duration::from_secs(5), Some(generation)));
                Sent::Reset(generation)
            }
            Action::Unpin => {
                self.workers[worker]
                    .asked
                    .push((now + Duration::from_secs(5), None));
                Sent::Unpin
            }
            Action::Start {
                sequence,
                chat,
                content,
            } => return self.start(worker, sequence, &chat, content),
            Action::Cancel { sequence } => {
                let running = self.workers[worker].running.get_mut(&sequence);
                running.expect("what is cancelled runs").1 = true;
                return;
            }
            Action::Ack { reply } => Sent::Ack(sequence_of(&reply)),
            Action::Progress { reply } => Sent::Progress(sequence_of(&reply)),
            Action::Forget { .. } => return,
            Action::End => {
                assert!(
                    self.workers[worker].running.is_empty(),
                    "ended while something runs"
                );
                self.workers[worker].ended = true;
                return;
            }
        };
        if self.workers[worker].connected {
            self.workers[worker].sent.push_back(sent);
        }
    }

    fn start(&mut self, worker: usize, sequence: u64, chat: &str, content: u64) {
        assert_eq!(sequence, content);
        let chat: u64 = chat.parse().expect("chats are numbers");
        self.started += 1;
        let earlier = (1..sequence).find(|other| self.chat_of[other] == chat && !self.done.contains(other));
        assert_eq!(
            earlier, None,
            "{sequence} is started before an earlier one of its chat"
        );
        let again = self.workers[worker].finished.contains(&sequence);
        assert!(!again, "{sequence} is started again by who has finished it");
        let running = &mut self.workers[worker].running;
        assert!(
            running.values().all(|(other, _)| *other != chat),
            "{sequence} is started while another of its chat runs here"
        );
        running.insert(sequence, (chat, false));
    }

    /// The server takes the next thing that a worker has sent.
    fn serve(&mut self, worker: usize) {
        let Some(sent) = self.workers[worker].sent.pop_front() else {
            return;
        };
        match sent {
            Sent::Open(generation) => {
                if let Some(old) = self.workers[worker].open.replace(generation) {
                    self.consumer.interest.remove(&(worker, old));
                }
                self.consumer.interest.insert((worker, generation));
            }
            Sent::Request(request) => self.consumer.request(request, self.now),
            Sent::Reset(generation) => {
                self.consumer.reset(self.now);
                self.workers[worker].answers.push_back(Answer::Reset(generation));
            }
            Sent::Unpin => {
                self.consumer.unpin(self.now);
                self.workers[worker].answers.push_back(Answer::Unpinned);
            }
            Sent::Ack(sequence) => {
                assert!(self.done.contains(&sequence), "{sequence} is acked and not done");
                self.consumer.ack(sequence);
            }
            Sent::Progress(sequence) => self.consumer.progress(sequence, self.now),
        }
        self.spread();
    }

    /// What the server said goes on its way to those who are listening.
    fn spread(&mut self) {
        for (inbox, output) in std::mem::take(&mut self.consumer.outputs) {
            let (worker, generation): Inbox = inbox;
            if self.consumer.interest.contains(&inbox) {
                self.workers[worker]
                    .answers
                    .push_back(Answer::Output(generation, output));
            }
        }
    }

    /// A worker takes the next thing that the server has sent.
    fn hear(&mut self, worker: usize) {
        let Some(answer) = self.workers[worker].answers.pop_front() else {
            return;
        };
        let event = match answer {
            // The subscription of an earlier generation is closed on this side, too.
            Answer::Output(generation, _) if generation != self.workers[worker].reader.generation => return,
            Answer::Output(generation, Output::Delivered { pin, info, chat }) => Event::Delivered {
                generation,
                pin: Some(pin),
                info,
                delivery: Delivery {
                    chat: chat.to_string().into(),
                    bytes: 100_000,
                    reply: info.stream_sequence.to_string(),
                    content: info.stream_sequence,
                },
            },
            Answer::Output(
                generation,
                Output::Status {
                    number,
                    status,
                    unanswered,
                },
            ) => Event::Status {
                generation,
                pull: number,
                status,
                unanswered,
            },
            Answer::Reset(generation) => {
                self.workers[worker]
                    .asked
                    .retain(|(_, asked)| *asked != Some(generation));
                Event::Reset {
                    generation,
                    done: true,
                }
            }
            Answer::Unpinned => {
                self.workers[worker].asked.retain(|(_, asked)| asked.is_some());
                Event::Unpinned
            }
        };
        self.tell(worker, event);
    }

    /// Something that runs comes to its end.
    fn work(&mut self, worker: usize) {
        let running = &mut self.workers[worker].running;
        let count = running.len() as u64;
        if count == 0 {
            return;
        }
        let place = self.random.below(count) as usize;
        let (sequence, (_, cancelled)) = running
            .iter()
            .nth(place)
            .map(|(s, r)| (*s, *r))
            .expect("it is there");
        running.remove(&sequence);
        // What is cancelled may have been stored before it noticed.
        if cancelled && self.random.chance(70) {
            self.tell(worker, Event::Abandoned { sequence });
        } else {
            self.done.insert(sequence);
            self.workers[worker].finished.insert(sequence);
            self.tell(worker, Event::Finished { sequence });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.consumer.advance(self.now);
        self.spread();
        for worker in 0..self.workers.len() {
            if self.workers[worker].ended {
                continue;
            }
            let now = self.now;
            let asked = std::mem::take(&mut self.workers[worker].asked);
            let (late, rest): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(until, _)| now >= *until);
            self.workers[worker].asked = rest;
            for (_, generation) in late {
                self.tell(
                    worker,
                    match generation {
                        Some(generation) => Event::Reset {
                            generation,
                            done: false,
                        },
                        None => Event::Unpinned,
                    },
                );
            }
            self.tell(worker, Event::Tick);
        }
    }

    fn publish(&mut self) {
        let chat = self.random.below(self.chats);
        let sequence = self.consumer.publish(chat);
        self.chat_of.insert(sequence, chat);
        self.consumer.advance(self.now);
        self.spread();
    }

    fn disconnect(&mut self, worker: usize, notices: bool) {
        let state = &mut self.workers[worker];
        state.connected = false;
        state.sent.clear();
        state.answers.clear();
        if let Some(open) = state.open.take() {
            self.consumer.interest.remove(&(worker, open));
        }
        if notices {
            self.tell(worker, Event::Disconnected);
        }
    }

    fn reconnect(&mut self, worker: usize) {
        self.workers[worker].connected = true;
        self.tell(worker, Event::Disconnected);
        self.tell(worker, Event::Connected);
    }

    fn trouble(&mut self, worker: usize) {
        match self.random.below(12) {
            0 => {
                if self.workers[worker].connected {
                    self.disconnect(worker, true);
                } else {
                    self.reconnect(worker);
                }
            }
            1 if self.workers[worker].connected => {
                self.disconnect(worker, false);
                self.reconnect(worker);
            }
            2 => {
                // Lost on the way, and noticed, or not.
                if let Some(Answer::Output(..)) = self.workers[worker].answers.front() {
                    self.workers[worker].answers.pop_front();
                    if self.random.chance(50) {
                        self.tell(worker, Event::Doubt);
                    }
                }
            }
            3 => {
                self.consumer.change_leader();
                self.spread();
            }
            4 => {
                // A reset that was sent long ago and took its time.
                self.consumer.reset(self.now);
                self.spread();
            }
            5 => self.tell(worker, Event::Release),
            6 => {
                let reluctant = self.random.chance(50);
                self.tell(worker, Event::Reluctant(reluctant));
            }
            7 => {
                let allowed = !self.workers[worker].allowed;
                self.workers[worker].allowed = allowed;
                self.tell(worker, if allowed { Event::Resume } else { Event::Suspend });
            }
            // Killed: its work is left half done, and nobody hears of it.
            8 if self.workers.len() < 8 && self.random.chance(30) => {
                self.disconnect(worker, false);
                self.workers[worker].running.clear();
                self.workers[worker].ended = true;
                self.add_worker();
            }
            9 if self.random.chance(20) => {
                let within = Duration::from_secs(2);
                self.tell(worker, Event::Stop { within });
                if self.workers.len() < 8 {
                    self.add_worker();
                }
            }
            10 => self.pass(Duration::from_secs(self.random.0 % 8)),
            _ => {}
        }
    }

    fn step(&mut self, trouble_percent: u64) {
        let worker = self.random.below(self.workers.len() as u64) as usize;
        if self.workers[worker].ended {
            return;
        }
        match self.random.below(10) {
            0 => self.publish(),
            1..=3 => self.serve(worker),
            4..=6 => self.hear(worker),
            7 | 8 => self.work(worker),
            _ => {
                let time = Duration::from_millis(self.random.below(120));
                self.pass(time);
            }
        }
        let worker = self.random.below(self.workers.len() as u64) as usize;
        if !self.workers[worker].ended && self.random.chance(trouble_percent) {
            self.trouble(worker);
        }
    }

    /// Everybody is well again; whoever stops may end.
    fn calm(&mut self) {
        for worker in 0..self.workers.len() {
            if !self.workers[worker].ended {
                self.workers[worker].allowed = true;
                self.tell(worker, Event::Resume);
                self.tell(worker, Event::Reluctant(false));
                if !self.workers[worker].connected {
                    self.reconnect(worker);
                }
            }
        }
        if self
            .workers
            .iter()
            .all(|worker| worker.ended || worker.reader.stopping)
        {
            self.add_worker();
        }
    }

    /// Runs calmly until `done`; how long that took.
    fn settle(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let began = self.now;
        while !done(self) {
            if self.now > began + limit {
                return None;
            }
            for worker in 0..self.workers.len() {
                if self.workers[worker].ended {
                    continue;
                }
                while !self.workers[worker].sent.is_empty() {
                    self.serve(worker);
                }
                while !self.workers[worker].answers.is_empty() {
                    self.hear(worker);
                }
                while !self.workers[worker].running.is_empty() {
                    self.work(worker);
                }
            }
            self.pass(Duration::from_millis(50));
        }
        Some(self.now - began)
    }
}

/// Runs a scenario for each seed and says which one failed, with the end of its log.
fn for_seeds(count: u64, scenario: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let more = std::env::var("TIDINGS_SEEDS").ok();
    let more = more.map(|count| count.parse().expect("TIDINGS_SEEDS is a number"));
    let seeds = match std::env::var("TIDINGS_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("TIDINGS_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..more.unwrap_or(count),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| scenario(seed)) {
            eprintln!("seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
    }
}

/// Says the end of the log when the scenario fails.
struct Tail<'a>(&'a mut World);

impl Drop for Tail<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = &self.0.log;
            for line in &log[log.len().saturating_sub(120)..] {
                eprintln!("{line}");
            }
        }
    }
}

#[test]
fn whatever_happens_nothing_is_lost_and_chats_stay_in_order() {
    for_seeds(200, |seed| {
        let mut world = World::new(seed, 1 + (seed % 3) as usize, 1 + seed % 5);
        let tail = Tail(&mut world);
        let world = &mut *tail.0;
        for _ in 0..3_000 {
            world.step(seed % 13);
        }
        world.calm();
        // What was lost unnoticed comes again after the consumer's ack wait.
        let settled = world.settle(Duration::from_mins(3), |world| world.consumer.stored.is_empty());
        assert!(
            settled.is_some(),
            "{} events are left",
            world.consumer.stored.len()
        );
        assert_eq!(
            world.done.len() as u64,
            world.consumer.last,
            "everything was done"
        );
    });
}

#[test]
fn another_takes_over_within_ten_seconds() {
    for_seeds(100, |seed| {
        let mut world = World::new(seed, 2, 3);
        let tail = Tail(&mut world);
        let world = &mut *tail.0;
        for worker in 0..2 {
            world.tell(worker, Event::Reluctant(seed % 2 == 0));
        }
        for _ in 0..1_000 {
            world.step(0);
        }
        while !world.workers.iter().any(|worker| worker.reader.pinned()) {
            world.step(0);
        }
        let pinned = world.workers.iter().position(|worker| worker.reader.pinned());
        let dead = pinned.expect("one is pinned");
        world.disconnect(dead, false);
        world.workers[dead].ended = true;
        world.publish();
        let took = world.settle(Duration::from_mins(1), |world| world.consumer.stored.is_empty());
        let took = took.expect("everything is done");
        assert!(took < Duration::from_secs(10), "took over after {took:?}");
    });
}

#[test]
fn a_release_hands_over_without_waiting_for_the_pin_to_expire() {
    for_seeds(100, |seed| {
        let mut world = World::new(seed, 2, 3);
        let tail = Tail(&mut world);
        let world = &mut *tail.0;
        world.publish();
        world
            .settle(Duration::from_secs(10), |world| world.consumer.stored.is_empty())
            .expect("it is done");
        let first = world
            .workers
            .iter()
            .position(|worker| worker.reader.pinned())
            .expect("one is pinned");
        world.tell(first, Event::Release);
        world
            .settle(Duration::from_secs(1), |world| !world.consumer.pinned())
            .expect("it is given away at once");
        world.publish();
        world
            .settle(Duration::from_secs(1), |world| {
                world.workers[1 - first].reader.pinned()
            })
            .expect("the other one takes it at once");
        world.tell(
            1 - first,
            Event::Stop {
                within: Duration::from_secs(5),
            },
        );
        world
            .settle(Duration::from_secs(2), |world| world.workers[1 - first].ended)
            .expect("it ends");
        world.publish();
        world
            .settle(Duration::from_secs(6), |world| world.consumer.stored.is_empty())
            .expect("the first one takes it again after its rest");
    });
}

#[test]
fn a_quiet_partition_keeps_its_pin() {
    let mut world = World::new(1, 2, 1);
    world.publish();
    world
        .settle(Duration::from_secs(10), |world| world.consumer.stored.is_empty())
        .expect("it is done");
    let pinned = world.workers.iter().position(|worker| worker.reader.pinned());
    for _ in 0..100 {
        world.settle(Duration::from_secs(1), |_| false);
        assert!(world.consumer.pinned());
    }
    assert_eq!(
        world.workers.iter().position(|worker| worker.reader.pinned()),
        pinned
    );
    let resets: u64 = world.workers.iter().map(|worker| worker.reader.resets()).sum();
    assert_eq!(resets, 1);
}
