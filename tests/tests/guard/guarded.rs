//! A system whose processes tell what they have allocated: one of each, so that it is always the same one that works.

use tempfile::TempDir;
use tidings_service::RUNTIME_THREADS;
use tidings_tests::allocations::{ALLOCATIONS_DIR, Allocations};
use tidings_tests::{System, SystemOptions};
use tokio::sync::{Mutex, MutexGuard};

/// One at a time: what loads the machine makes more go one by one.
static TURN: Mutex<()> = Mutex::const_new(());

/// See the module.
pub(crate) struct Guarded {
    _turn: MutexGuard<'static, ()>,
    pub(crate) system: System,
    sockets: TempDir,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        tidings_service::start::install_crypto_provider();
        let turn = TURN.lock().await;
        let sockets = TempDir::with_prefix("tidings-test-guard-").expect("a folder for sockets");
        let path = sockets
            .path()
            .to_str()
            .expect("folders for tests have plain names");
        let options = SystemOptions {
            gateways: 1,
            fanout_workers: 1,
            inbox_workers: 1,
            settings: vec![
                (ALLOCATIONS_DIR, path.to_owned()),
                // As many as the bounds were measured with, whatever the machine has: fewer things go together with more.
                (RUNTIME_THREADS, "2".to_owned()),
            ],
            ..SystemOptions::default()
        };
        Self {
            _turn: turn,
            system: System::start(&options).await,
            sockets,
        }
    }

    /// Of a process by its name.
    pub(crate) fn allocations(&self, name: &str) -> Allocations {
        Allocations::of(self.sockets.path(), self.system.process(name).pid)
    }

    /// How many clients the gateway says are connected.
    pub(crate) async fn sessions(&self) -> usize {
        let admin = &self.system.process("gateway-1").admin;
        let admin = admin.as_ref().expect("a service has one");
        let answer = reqwest::get(format!("{admin}/metrics"))
            .await
            .expect("it answers");
        let text = answer.text().await.expect("text");
        // With or without labels.
        let mut lines = text.lines();
        let line =
            lines.find(|line| line.starts_with("tidings_sessions{") || line.starts_with("tidings_sessions "));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0, |value| value.parse::<f64>().expect("a number") as usize)
    }
}
