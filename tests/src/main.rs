//! The `tidings` command as the tests run it: it counts what it allocates.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> std::process::ExitCode {
    tidings_tests::allocations::tell(ALLOCATOR);
    tidings_cli::main()
}
