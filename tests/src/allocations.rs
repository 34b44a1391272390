//! What a process of a test has allocated, told by itself: counts, which no busy machine changes.
//!
//! The command under test counts always, and tells where the variable [`ALLOCATIONS_DIR`] names a folder. Only it: the
//! command that people run has no such allocator.

use std::alloc::System;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use stats_alloc::StatsAlloc;

/// The environment variable with the folder in which each process has a socket, named after its id.
pub const ALLOCATIONS_DIR: &str = "TIDINGS_TEST_ALLOCATIONS_DIR";

/// What a process has allocated since it was started.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Allocations {
    /// How often it has asked for memory; to be given more at the same place is asking too.
    pub count: u64,
    /// How many bytes it has asked for.
    pub bytes: u64,
    /// How many of them it has not given back.
    pub live_bytes: u64,
}

impl Allocations {
    /// Of a process that tells them in this folder.
    pub fn of(folder: &Path, pid: u32) -> Self {
        let mut told = [0; 24];
        UnixStream::connect(socket(folder, pid))
            .and_then(|mut stream| stream.read_exact(&mut told))
            .unwrap_or_else(|error| panic!("{pid} does not tell what it has allocated: {error}"));
        let (numbers, _) = told.as_chunks::<8>();
        let [count, bytes, live_bytes] = [0, 1, 2].map(|index| u64::from_le_bytes(numbers[index]));
        Self {
            count,
            bytes,
            live_bytes,
        }
    }

    /// Without an allocation, since that would count.
    fn told(self) -> [u8; 24] {
        let mut told = [0; 24];
        let numbers = [self.count, self.bytes, self.live_bytes];
        for (place, number) in told.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        told
    }

    fn counted(allocator: &StatsAlloc<System>) -> Self {
        let stats = allocator.stats();
        Self {
            count: (stats.allocations + stats.reallocations) as u64,
            bytes: stats.bytes_allocated as u64,
            live_bytes: (stats.bytes_allocated - stats.bytes_deallocated) as u64,
        }
    }
}

fn socket(folder: &Path, pid: u32) -> PathBuf {
    folder.join(pid.to_string())
}

/// Has this process tell whoever asks, to its end, where that is wanted.
pub fn tell(allocator: &'static StatsAlloc<System>) {
    let Some(folder) = std::env::var_os(ALLOCATIONS_DIR) else {
        return;
    };
    let listener = UnixListener::bind(socket(folder.as_ref(), std::process::id()));
    let listener = listener.expect("the test has made the folder");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let told = Allocations::counted(allocator).told();
            // Whoever has asked may be gone.
            let _ = stream.and_then(|mut stream| stream.write_all(&told));
        }
    });
}
