//! A system whose processes tell what they have allocated: one of each, so that it is always the same one that works.

use tempfile::TempDir;
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
                ("TOKIO_WORKER_THREADS", "2".to_owned()),
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
}
