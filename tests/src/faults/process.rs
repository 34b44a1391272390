//! A process of the system, which is killed, frozen and started again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use nix::sys::signal::Signal;
use tidings_stack::{Server, describe};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::history::{Happening, Recorder};

/// How long a process has to end by itself after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long one start may take.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// How long it is tried again to start a process: meanwhile another fault may be in force, and what a killed Postgres
/// leaves behind has to go first.
const UP_PATIENCE: Duration = Duration::from_mins(2);
/// Between two tries.
const UP_INTERVAL: Duration = Duration::from_millis(200);

/// See the module. Clones are the same process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) name: Arc<str>,
    server: Arc<Mutex<Server>>,
    recorder: Recorder,
}

impl Process {
    pub(super) fn new(server: Server, recorder: Recorder) -> Self {
        Self {
            name: server.spec().name.as_str().into(),
            server: Arc::new(Mutex::new(server)),
            recorder,
        }
    }

    /// Starts it and waits until it answers; tries again while it does not.
    pub(super) async fn up(&self) -> anyhow::Result<()> {
        let mut server = self.server.lock().await;
        let began = Instant::now();
        loop {
            server.spawn()?;
            let pid = server.pid().expect("it was just started");
            match server.ready(START_PATIENCE).await {
                Ok(()) => {
                    let name = self.name.to_string();
                    self.recorder.happened(Happening::ProcessStarted { name, pid });
                    return Ok(());
                }
                Err(error) if began.elapsed() > UP_PATIENCE => return Err(error),
                Err(error) => self
                    .recorder
                    .happened(Happening::note(format!("{}: {error:#}", self.name))),
            }
            server.kill().await;
            sleep(UP_INTERVAL).await;
        }
    }

    /// As a crash.
    pub(super) async fn kill(&self) {
        let mut server = self.server.lock().await;
        let pid = server.pid();
        server.kill().await;
        self.ended(pid);
    }

    /// In order.
    pub(super) async fn stop(&self) {
        let mut server = self.server.lock().await;
        let pid = server.pid();
        if !server.stop(STOP_PATIENCE).await {
            let late = format!("{} was killed: it did not stop in time", self.name);
            self.recorder.happened(Happening::note(late));
        }
        self.ended(pid);
    }

    /// Stops it in order and starts it as another version, whose program this is.
    pub(super) async fn change_to(&self, program: &Path) -> anyhow::Result<()> {
        self.stop().await;
        self.server.lock().await.set_program(program);
        self.up().await
    }

    /// SIGSTOP, SIGCONT.
    pub(super) async fn signal(&self, signal: Signal) {
        self.server.lock().await.signal(signal);
    }

    /// If it has ended by itself, how; nothing while somebody else has it in hand.
    pub(super) fn ended_by_itself(&self) -> Option<String> {
        let mut server = self.server.try_lock().ok()?;
        let pid = server.pid()?;
        let status = server.exited().now_or_never()?;
        self.ended(Some(pid));
        Some(format!("{} {} by itself", self.name, describe(status)))
    }

    fn ended(&self, pid: Option<u32>) {
        if let Some(pid) = pid {
            let name = self.name.to_string();
            self.recorder.happened(Happening::ProcessEnded { name, pid });
        }
    }
}
