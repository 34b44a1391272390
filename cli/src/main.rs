//! The `tidings` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidings_cli::main()
}
