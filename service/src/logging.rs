//! Log lines on standard error, for machines or for people. Standard output belongs to what a command answers.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for a log collector.
    Json,
    /// Text, coloured on a terminal.
    Human,
}

impl LogFormat {
    /// What suits standard error: `Human` on a terminal, else `Json`.
    pub fn suitable() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Human
        } else {
            Self::Json
        }
    }
}

/// Installs the process's subscriber and makes panics log lines too. `filter` is an `EnvFilter`, such as
/// `info,tidings_gateway=debug`. Fails when the filter cannot be read or a subscriber is there already.
pub fn install(format: Option<LogFormat>, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log: cannot read {filter:?}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match format.unwrap_or_else(LogFormat::suitable) {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .try_init(),
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("cannot install the log: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("(not a text)");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    // A person is asked to look: a panic is a defect, even where the service goes on.
    tracing::error!(
        panic.message = message,
        panic.place = place,
        thread.name = thread.name().unwrap_or_default(),
        backtrace = %std::backtrace::Backtrace::capture(),
        "a task panicked"
    );
}
