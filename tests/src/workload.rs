//! People who use a system for as long as they are let, and do not mind its troubles: seeded sends, membership changes,
//! devices that come and go. What they see is recorded; the [judge](crate::judge) decides about it.

mod device;
mod director;
mod files;
mod options;
mod outbox;
mod rest;
mod session;
mod words;
mod world;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::{ClientId, UserId};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

pub use options::{Targets, WorkloadOptions, WorkloadReport};

use crate::eventually::eventually;
use crate::history::{Happening, Recorder};
use crate::token::Identity;
use device::Device;
use director::Director;
use files::Files;
use world::{State, World};

/// How often a condition is looked at.
const TICK: Duration = Duration::from_millis(50);
/// For how long the beginning waits for people to be registered and chats to be made before it goes on without.
const BEGINNING: Duration = Duration::from_mins(1);

/// What everybody of a workload shares.
struct Shared {
    targets: Targets,
    options: WorkloadOptions,
    recorder: Recorder,
    world: World,
    files: Files,
    tracker: TaskTracker,
}

/// A running workload.
pub struct Workload {
    shared: Arc<Shared>,
    director: JoinHandle<Director>,
    stop: CancellationToken,
}

impl Workload {
    /// Starts it, and returns when the first people are connected and their chats are made (or after a minute, if the
    /// system does not let them). The same seed makes the same people do the same things, as far as they are answered
    /// the same; ids are new in each run, so that one system can carry several.
    ///
    /// `targets` should name every gateway. A URL that does not answer costs a device seconds, so that it is better to
    /// name those that come back at the same place than to name a new one.
    pub async fn start(targets: Targets, seed: u64, options: WorkloadOptions, recorder: Recorder) -> Self {
        recorder.happened(Happening::note(format!("workload with seed {seed}: {options:?}")));
        let shared = Arc::new(Shared {
            targets,
            options,
            recorder,
            world: World::default(),
            files: Files::new(),
            tracker: TaskTracker::new(),
        });
        let mut rng = StdRng::seed_from_u64(seed);
        shared.invite(&mut rng).await;
        let stop = CancellationToken::new();
        let mut director = Director::new(Arc::clone(&shared), rng);
        director.make_chats().await;
        let director = tokio::spawn(director.run(stop.clone()));
        Self {
            shared,
            director,
            stop,
        }
    }

    /// Messages that were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.world.lock().report.accepted
    }

    /// Waits until so many messages are accepted.
    pub async fn until_accepted(&self, messages: u64) {
        eventually(&format!("{messages} messages are accepted"), async || {
            let accepted = self.accepted();
            if accepted >= messages {
                Ok(())
            } else {
                Err(accepted)
            }
        })
        .await;
    }

    /// Deliveries so far.
    pub fn deliveries(&self) -> u64 {
        self.shared.world.lock().report.deliveries
    }

    /// Brings everything to rest, once all faults are over: connects every device, retries what is not known, reads
    /// until nothing is under way any more, confirms everything. Waits at most `options.rest_timeout`; whoever is not
    /// at rest by then says so in the history, which is a violation.
    pub async fn finish(self) -> WorkloadReport {
        self.stop.cancel();
        let director = self.director.await.expect("the director does not panic");
        rest::come_to_rest(&self.shared, director).await
    }
}

impl Shared {
    /// Names the users and connects the first devices of those who are there from the beginning, then the others: a
    /// user's first client is beyond doubt when nobody else says hello before it is welcomed.
    async fn invite(self: &Arc<Self>, rng: &mut StdRng) {
        let run = Uuid::new_v4().simple().to_string();
        let run = &run[..8];
        let options = &self.options;
        let mut firsts = Vec::new();
        for number in 0..options.users {
            let user_id = UserId::new(&format!("user{number}-{run}")).expect("it is short ASCII");
            self.world.lock().users.push(user_id.clone());
            firsts.push(self.add_device(&user_id, None, rng));
        }
        for number in 0..options.late_users {
            let user_id = UserId::new(&format!("late{number}-{run}")).expect("it is short ASCII");
            self.world.lock().users.push(user_id);
        }
        self.until(BEGINNING, |state| {
            firsts.iter().all(|number| state.devices[*number].registered)
        })
        .await;
        let users = self.world.lock().users.clone();
        for user_id in users.iter().take(options.users) {
            for _ in 0..[0, 0, 1, 1, 2][rng.random_range(0..5)] {
                self.add_device(user_id, None, rng);
            }
        }
    }

    /// Another device of a user.
    fn add_device(self: &Arc<Self>, user_id: &UserId, replace: Option<ClientId>, rng: &mut StdRng) -> usize {
        let identity = Identity::new(user_id);
        let devices = self.world.lock().devices.len();
        let short = user_id.as_str().split('-').next().unwrap_or_default();
        let name = format!("{short}.{devices}");
        Device::spawn(self, name, identity, replace, rng.random())
    }

    /// Waits until something holds; false if it does not in time.
    async fn until(&self, at_most: Duration, mut holds: impl FnMut(&State) -> bool) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            if holds(&self.world.lock()) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(TICK).await;
        }
    }
}
