//! The `tidings` command as the tests run it.

fn main() -> std::process::ExitCode {
    tidings_cli::main()
}
