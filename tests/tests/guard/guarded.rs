//! A system whose processes tell what they have allocated: one of each, so that it is always the same one that works.

use tempfile::TempDir;
use tidings_tests::allocations::{ALLOCATIONS_DIR, Allocations};
use tidings_tests::{System, SystemOptions};

/// See the module.
pub(crate) struct Guarded {
    pub(crate) system: System,
    sockets: TempDir,
}

impl Guarded {
    pub(crate) async fn start() -> Self {
        let sockets = TempDir::with_prefix("tidings-test-guard-").expect("a folder for sockets");
        let path = sockets
            .path()
            .to_str()
            .expect("folders for tests have plain names");
        let options = SystemOptions {
            gateways: 1,
            fanout_workers: 1,
            inbox_workers: 1,
            settings: vec![(ALLOCATIONS_DIR, path.to_owned())],
            ..SystemOptions::default()
        };
        Self {
            system: System::start(&options).await,
            sockets,
        }
    }

    /// Of a process by its name.
    pub(crate) fn allocations(&self, name: &str) -> Allocations {
        Allocations::of(self.sockets.path(), self.system.process(name).pid)
    }
}
