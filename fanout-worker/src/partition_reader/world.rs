//! Workers, each with its reader, around the model of their consumer: what is on its way between them, what runs, and
//! what must always hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::consumer_model::{Consumer, Inbox, Output, Request};
use super::{Action, Delivery, Event, PartitionReader, Running};

/// What a worker has sent and the server has not seen.
#[derive(Clone, Debug, Hash)]
pub(super) enum Sent {
    Open(u64),
    Request(Request),
    Reset(u64),
    Look,
    Unpin,
    Delete(u64),
    Progress(u64),
}

/// What the server has sent and the worker has not seen.
#[derive(Clone, Debug, Hash)]
pub(super) enum Answer {
    Output(u64, Output),
    Reset(u64),
    Unpinned,
    Deleted(u64),
}

/// What a worker has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Reset(u64),
    Unpin,
    Delete(u64),
}

/// When a request is given up: `API_TIMEOUT` of `partition_task.rs`.
const ASKED_FOR: Duration = Duration::from_secs(5);

/// The work on an event.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Work {
    chat: u64,
    cancelled: bool,
    /// Everybody is told, and it is not finished.
    told: bool,
}

/// A worker as seen from outside.
#[derive(Clone, Debug, Hash)]
pub(super) struct Worker {
    pub(super) reader: PartitionReader<u64>,
    pub(super) connected: bool,
    pub(super) allowed: bool,
    pub(super) ended: bool,
    /// Which inbox the server delivers to.
    pub(super) open: Option<u64>,
    pub(super) sent: VecDeque<Sent>,
    pub(super) answers: VecDeque<Answer>,
    /// Requests that wait for an answer; one that does not come is a failure.
    pub(super) asked: Vec<(Instant, Asked)>,
    /// What runs, by sequence.
    pub(super) running: BTreeMap<u64, Work>,
    pub(super) finished: BTreeSet<u64>,
}

/// See the module.
#[derive(Clone, Debug, Hash)]
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) consumer: Consumer,
    pub(super) workers: Vec<Worker>,
    pub(super) chat_of: BTreeMap<u64, u64>,
    /// The events all of whose entries are stored.
    pub(super) done: BTreeSet<u64>,
    /// What was said, where somebody may want to read it.
    pub(super) log: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(workers: usize, log: bool) -> Self {
        let mut world = Self {
            now: Instant::now(),
            consumer: Consumer::default(),
            workers: Vec::new(),
            chat_of: BTreeMap::new(),
            done: BTreeSet::new(),
            log: log.then(Vec::new),
        };
        for _ in 0..workers {
            world.add_worker();
        }
        world
    }

    /// Which worker believes to be pinned.
    pub(super) fn pinned(&self) -> Option<usize> {
        self.workers.iter().position(|worker| worker.reader.pinned())
    }

    pub(super) fn add_worker(&mut self) {
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

    pub(super) fn tell(&mut self, worker: usize, event: Event<u64>) {
        if let Some(log) = &mut self.log {
            log.push(format!("{worker} <- {event:?}"));
        }
        let reader = &mut self.workers[worker].reader;
        let actions = reader.handle(event, self.now);
        let waiting: usize = reader
            .queue
            .iter_mut()
            .map(|waiting| waiting.delivery.bytes)
            .sum();
        let running = reader.running.values();
        let again = |running: &Running<u64>| running.again.as_ref().map_or(0, |again| again.bytes);
        let running: usize = running.map(|running| running.bytes + again(running)).sum();
        assert_eq!(reader.bytes, waiting + running, "the bytes in hand");
        for action in actions {
            if let Some(log) = &mut self.log {
                log.push(format!("{worker} -> {action:?}"));
            }
            self.act(worker, action);
        }
    }

    pub(super) fn act(&mut self, worker: usize, action: Action<u64>) {
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
                self.ask(worker, Asked::Reset(generation));
                Sent::Reset(generation)
            }
            Action::Look => Sent::Look,
            Action::Unpin => {
                self.ask(worker, Asked::Unpin);
                Sent::Unpin
            }
            Action::Start {
                sequence,
                chat,
                content,
            } => return self.start(worker, sequence, &chat, content),
            Action::Cancel { sequence } => {
                let running = self.workers[worker].running.get_mut(&sequence);
                running.expect("what is cancelled runs").cancelled = true;
                return;
            }
            Action::Delete { sequence } => {
                self.ask(worker, Asked::Delete(sequence));
                Sent::Delete(sequence)
            }
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

    fn ask(&mut self, worker: usize, asked: Asked) {
        let until = self.now + ASKED_FOR;
        self.workers[worker].asked.push((until, asked));
    }

    fn answered(&mut self, worker: usize, answered: Asked) {
        self.workers[worker].asked.retain(|(_, asked)| *asked != answered);
    }

    pub(super) fn start(&mut self, worker: usize, sequence: u64, chat: &str, content: u64) {
        assert_eq!(sequence, content);
        let chat: u64 = chat.parse().expect("chats are numbers");
        let running = &self.workers[worker].running;
        let is_told = |other: &u64| {
            running
                .get(other)
                .is_some_and(|work| work.told && !work.cancelled)
        };
        let earlier = (1..sequence)
            .find(|other| self.chat_of[other] == chat && !self.done.contains(other) && !is_told(other));
        assert_eq!(
            earlier, None,
            "{sequence} is started before an earlier one of its chat"
        );
        let again = self.workers[worker].finished.contains(&sequence);
        assert!(!again, "{sequence} is started again by who has finished it");
        let running = &mut self.workers[worker].running;
        assert!(
            running
                .values()
                .all(|work| work.chat != chat || (work.told && !work.cancelled)),
            "{sequence} is started while another of its chat runs here"
        );
        let work = Work {
            chat,
            cancelled: false,
            told: false,
        };
        running.insert(sequence, work);
    }

    /// The server takes the next thing that a worker has sent.
    pub(super) fn serve(&mut self, worker: usize) -> bool {
        let Some(sent) = self.workers[worker].sent.pop_front() else {
            return false;
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
            Sent::Look => self.consumer.look(self.now),
            Sent::Unpin => {
                self.consumer.unpin(self.now);
                self.workers[worker].answers.push_back(Answer::Unpinned);
            }
            Sent::Delete(sequence) => {
                assert!(
                    self.done.contains(&sequence),
                    "{sequence} is deleted and not done"
                );
                self.consumer.delete(sequence);
                self.workers[worker].answers.push_back(Answer::Deleted(sequence));
            }
            Sent::Progress(sequence) => self.consumer.progress(sequence, self.now),
        }
        self.spread();
        true
    }

    /// What the server said goes on its way to those who are listening.
    pub(super) fn spread(&mut self) {
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
    pub(super) fn hear(&mut self, worker: usize) -> bool {
        let Some(answer) = self.workers[worker].answers.pop_front() else {
            return false;
        };
        let event = match answer {
            // The subscription of an earlier generation is closed on this side, too.
            Answer::Output(generation, _) if generation != self.workers[worker].reader.generation => {
                return true;
            }
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
                self.answered(worker, Asked::Reset(generation));
                Event::Reset {
                    generation,
                    done: true,
                }
            }
            Answer::Unpinned => {
                self.answered(worker, Asked::Unpin);
                Event::Unpinned
            }
            Answer::Deleted(sequence) => {
                self.answered(worker, Asked::Delete(sequence));
                Event::Deleted { sequence }
            }
        };
        self.tell(worker, event);
        true
    }

    /// Of something that runs, everybody is told; a few wait for the answers.
    pub(super) fn tell_all(&mut self, worker: usize, place: usize) -> bool {
        let running = &mut self.workers[worker].running;
        let Some((sequence, work)) = running.iter_mut().nth(place).filter(|(_, work)| !work.told) else {
            return false;
        };
        work.told = true;
        let sequence = *sequence;
        self.tell(worker, Event::Told { sequence });
        true
    }

    /// Something that runs comes to its end. What is cancelled may have been stored before it noticed.
    pub(super) fn end_work(&mut self, worker: usize, place: usize, abandon: bool) -> bool {
        let running = &mut self.workers[worker].running;
        let Some((sequence, work)) = running.iter().nth(place).map(|(s, r)| (*s, *r)) else {
            return false;
        };
        if abandon && !work.cancelled {
            return false;
        }
        running.remove(&sequence);
        if abandon {
            self.tell(worker, Event::Abandoned { sequence });
        } else {
            self.done.insert(sequence);
            self.workers[worker].finished.insert(sequence);
            self.tell(worker, Event::Finished { sequence });
        }
        true
    }

    pub(super) fn pass(&mut self, time: Duration) {
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
            for (_, asked) in late {
                self.tell(
                    worker,
                    match asked {
                        Asked::Reset(generation) => Event::Reset {
                            generation,
                            done: false,
                        },
                        Asked::Unpin => Event::Unpinned,
                        Asked::Delete(sequence) => Event::Deleted { sequence },
                    },
                );
            }
            self.tell(worker, Event::Tick);
        }
    }

    pub(super) fn publish(&mut self, chat: u64) {
        let sequence = self.consumer.publish(chat);
        self.chat_of.insert(sequence, chat);
        self.consumer.advance(self.now);
        self.spread();
    }

    pub(super) fn disconnect(&mut self, worker: usize, notices: bool) {
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

    pub(super) fn reconnect(&mut self, worker: usize) {
        self.workers[worker].connected = true;
        self.tell(worker, Event::Disconnected);
        self.tell(worker, Event::Connected);
    }

    /// Everybody is well again; whoever stops may end.
    pub(super) fn calm(&mut self) {
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
    pub(super) fn settle(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
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
                while self.end_work(worker, 0, true) || self.end_work(worker, 0, false) {}
            }
            self.pass(Duration::from_millis(50));
        }
        Some(self.now - began)
    }
}
