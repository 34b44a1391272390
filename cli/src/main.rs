//! The `tidings` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tidings_cli::Allocator = tidings_cli::Allocator;

fn main() -> ExitCode {
    tidings_cli::main()
}
