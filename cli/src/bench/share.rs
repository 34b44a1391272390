//! A part of the clients, in a process of its own: the load generator starts itself again with the same arguments. Through
//! the pipes of that process go what its clients are told to do, and what they tell. Plan, pace and ledger stay in the first
//! process, so that nothing has to be put together in the end.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::process::{Child, Command as Program, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidings_protocol::{Codec, EncodedFrame, Reply};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::client::Command;
use super::event::{self, Event};
use super::fleet::Fleet;
use super::observed::{Observed, Traffic};
use super::target::{Target, TargetArgs};

/// Tells a process that it runs a part of another one's clients, and which: `0/2` or `1/2` of two.
const VARIABLE: &str = "TIDINGS_BENCH_PART";
/// What waits to be written to a pipe. Then whoever adds to it waits.
const WAITING_MAX: usize = 65_536;
/// What is written at once.
const BATCH_MAX: usize = 1_024;
/// The largest thing is a batch of requests, or a load's body and the ids of its chats.
const BATCH_BYTES_MAX: u32 = 256 << 20;
/// For what is left to be written when everything is over.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Which part of the clients.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) index: u32,
    /// How many parts there are.
    pub(crate) of: u32,
}

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Connects those of its part that are from the one to the other.
    Connect { first: u32, count: u32 },
    /// See [`Observed::name_run`].
    NameRun(String),
    /// See [`Observed::expect`].
    Expect(Traffic),
    /// Tells a client something.
    Client { index: u32, deed: Deed },
    /// Closes what is left, and ends.
    End,
}

/// A [`Command`] on its way.
#[derive(Debug, Serialize, Deserialize)]
enum Deed {
    Send {
        number: usize,
        chat: u32,
    },
    /// As a frame of the protocol, in postcard.
    Request(Vec<u8>),
    Leave,
    Return,
    /// The moment on the machine's clock.
    BreakOff(u64),
    Close,
}

/// The first process's end of the pipes.
#[derive(Debug)]
pub(crate) struct Share {
    orders: SyncSender<Order>,
    /// By client and number.
    requests: Mutex<HashMap<(u32, u64), oneshot::Sender<Reply>>>,
    ending: AtomicBool,
}

/// Another process. It ends with this value at the latest.
pub(crate) struct Process {
    child: Child,
    pub(crate) share: Arc<Share>,
}

impl Part {
    /// Of this process; none of the first one.
    pub(crate) fn own() -> anyhow::Result<Option<Self>> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let part = text.to_str().and_then(|text| {
            let (index, of) = text.split_once('/')?;
            let (index, of) = (index.parse().ok()?, of.parse().ok()?);
            (index < of).then_some(Self { index, of })
        });
        Ok(Some(part.with_context(|| format!("{VARIABLE} is no part"))?))
    }
}

impl Share {
    /// Connects those of its part that are from the one to the other.
    pub(crate) fn connect(&self, first: u32, count: u32) {
        self.order(Order::Connect { first, count });
    }

    /// See [`Observed::name_run`].
    pub(crate) fn name_run(&self, name: &str) {
        self.order(Order::NameRun(name.to_owned()));
    }

    /// See [`Observed::expect`].
    pub(crate) fn expect(&self, traffic: Traffic) {
        self.order(Order::Expect(traffic));
    }

    /// Tells a client something.
    pub(crate) fn command(&self, index: u32, command: Command) {
        let deed = match command {
            Command::Send { number, chat } => Deed::Send { number, chat },
            Command::Request(frame, reply) => {
                let id = frame.id().unwrap_or_default();
                lock(&self.requests).insert((index, id), reply);
                Deed::Request(match Codec::Postcard.encode_client(&frame) {
                    EncodedFrame::Text(text) => text.into_bytes(),
                    EncodedFrame::Binary(bytes) => bytes,
                })
            }
            Command::Leave => Deed::Leave,
            Command::Return => Deed::Return,
            Command::BreakOff(at) => Deed::BreakOff(event::nanoseconds_of(at.into_std())),
            Command::Close => Deed::Close,
        };
        self.order(Order::Client { index, deed });
    }

    /// Closes what is left, and ends.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.order(Order::End);
    }

    /// A process that has ended is told by whoever reads from it.
    fn order(&self, order: Order) {
        self.orders.send(order).ok();
    }

    fn hear(&self, event: Event, observed: &Observed) {
        let Event::Replied { client, id, reply } = event else {
            return observed.note(event);
        };
        let asked = lock(&self.requests).remove(&(client, id));
        if let (Some(asked), Ok(reply)) = (asked, serde_json::from_str(&reply)) {
            // Whoever asked may have given up.
            asked.send(reply).ok();
        }
    }
}

impl Process {
    /// Starts one.
    pub(crate) fn start(part: Part, observed: &Arc<Observed>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program is no file")?;
        let mut child = Program::new(program)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, format!("{}/{}", part.index, part.of))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start another process")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (mut input, mut output) = input.zip(output).context("the process has no pipes")?;
        let (orders, waiting) = sync_channel(WAITING_MAX);
        let share = Arc::new(Share {
            orders,
            requests: Mutex::default(),
            ending: AtomicBool::new(false),
        });
        std::thread::spawn(move || write_all(&waiting, &mut input));
        let (reading, observed) = (Arc::clone(&share), Arc::clone(observed));
        std::thread::spawn(move || {
            while let Ok(events) = read_batch(&mut output) {
                for event in events {
                    reading.hear(event, &observed);
                }
            }
            // Nobody answers them any more.
            lock(&reading.requests).clear();
            if !reading.ending.load(Ordering::Relaxed) {
                observed.note(Event::Lost {
                    who: format!("process {} of {}", part.index + 1, part.of),
                    why: "it has ended".to_owned(),
                });
            }
        });
        Ok(Self { child, share })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Runs a part of another process's clients, until that says that it is over.
pub(crate) async fn serve(args: &TargetArgs, part: Part) -> anyhow::Result<()> {
    let target = Arc::new(Target::open(args)?);
    let (events, waiting) = sync_channel(WAITING_MAX);
    let (written, all_written) = oneshot::channel();
    std::thread::spawn(move || {
        write_all(&waiting, &mut io::stdout());
        written.send(()).ok();
    });
    let (batches, mut orders) = mpsc::channel(1);
    std::thread::spawn(move || {
        while let Ok(batch) = read_batch::<Order>(&mut io::stdin()) {
            if batches.blocking_send(batch).is_err() {
                return;
            }
        }
    });
    let observed = Arc::new(Observed::elsewhere(events));
    let mut fleet = Fleet::of_part(part, Arc::clone(&observed));
    'orders: while let Some(batch) = orders.recv().await {
        for order in batch {
            match order {
                Order::Connect { first, count } => {
                    if let Err(error) = fleet.connect(&target, first, count).await {
                        let (who, why) = ("a client".to_owned(), format!("{error:#}"));
                        observed.note(Event::Lost { who, why });
                    }
                }
                Order::NameRun(name) => observed.name_run(name),
                Order::Expect(traffic) => drop(observed.expect(traffic)),
                Order::Client { index, deed } => {
                    let client = fleet.clients.get((index / part.of) as usize);
                    if let Some((client, command)) = client.zip(command(index, deed, &observed)) {
                        client.command(command);
                    }
                }
                Order::End => break 'orders,
            }
        }
    }
    fleet.close().await;
    drop(observed);
    timeout(FLUSH_PATIENCE, all_written).await.ok();
    Ok(())
}

/// What a deed was. None if it makes no sense.
fn command(client: u32, deed: Deed, observed: &Arc<Observed>) -> Option<Command> {
    Some(match deed {
        Deed::Send { number, chat } => Command::Send { number, chat },
        Deed::Request(frame) => {
            let frame = Codec::Postcard.decode_client(&frame).ok()?;
            let (id, observed) = (frame.id()?, Arc::clone(observed));
            let (sender, reply) = oneshot::channel::<Reply>();
            tokio::spawn(async move {
                if let Ok(reply) = reply.await {
                    let reply = serde_json::to_string(&reply).expect("replies are plain data");
                    observed.note(Event::Replied { client, id, reply });
                }
            });
            Command::Request(Box::new(frame), sender)
        }
        Deed::Leave => Command::Leave,
        Deed::Return => Command::Return,
        Deed::BreakOff(at) => Command::BreakOff(Instant::from_std(event::instant_of(at))),
        Deed::Close => Command::Close,
    })
}

/// Writes what comes, many at once where many are there, until nobody is left who could add to it.
fn write_all<T: Serialize>(waiting: &Receiver<T>, pipe: &mut impl Write) {
    while let Ok(first) = waiting.recv() {
        let mut batch = vec![first];
        batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
        let bytes = postcard::to_stdvec(&batch).expect("plain data");
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let written = pipe
            .write_all(&length.to_le_bytes())
            .and_then(|()| pipe.write_all(&bytes))
            .and_then(|()| pipe.flush());
        // The other process has ended.
        if written.is_err() {
            return;
        }
    }
}

fn read_batch<T: DeserializeOwned>(pipe: &mut impl Read) -> anyhow::Result<Vec<T>> {
    let mut length = [0; 4];
    pipe.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    ensure!(length <= BATCH_BYTES_MAX, "a batch of {length} bytes");
    let mut bytes = vec![0; length as usize];
    pipe.read_exact(&mut bytes)?;
    Ok(postcard::from_bytes(&bytes)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Each change is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tidings_protocol::ChatId;
    use uuid::Uuid;

    use super::super::plan::Run;
    use super::*;

    #[test]
    fn what_goes_through_a_pipe_comes_out_as_it_went_in() {
        let chats = vec![ChatId(Uuid::new_v4()), ChatId(Uuid::new_v4())];
        let (sender, receiver) = sync_channel(8);
        for order in [
            Order::Connect { first: 3, count: 9 },
            Order::Expect(Traffic::new(Run::new(), chats.clone(), "text".to_owned())),
            Order::Client {
                index: 7,
                deed: Deed::BreakOff(5),
            },
        ] {
            sender.send(order).expect("there is room");
        }
        drop(sender);
        let mut pipe = Vec::new();
        write_all(&receiver, &mut pipe);
        let orders: Vec<Order> = read_batch(&mut pipe.as_slice()).expect("one batch");
        let [
            Order::Connect { first: 3, count: 9 },
            Order::Expect(traffic),
            Order::Client {
                index: 7,
                deed: Deed::BreakOff(5),
            },
        ] = &orders[..]
        else {
            panic!("{orders:?}");
        };
        assert_eq!((traffic.chat(chats[1]), traffic.body.as_str()), (Some(1), "text"));
        assert!(read_batch::<Order>(&mut [0_u8, 0, 0, 255].as_slice()).is_err());
    }
}
