//! How large a test is. Small by default; a measurement says more through the environment.

use std::str::FromStr;
use std::time::Duration;

use tokio::sync::Mutex;

/// Held by tests that load the shared system as a whole: two of them at once would measure each other.
pub(crate) static ALONE: Mutex<()> = Mutex::const_new(());

/// `TIDINGS_PRESSURE_<name>`, or what CI can afford.
pub(crate) fn scale<T: FromStr>(name: &str, ci: T) -> T {
    let variable = format!("TIDINGS_PRESSURE_{name}");
    let Ok(text) = std::env::var(&variable) else {
        return ci;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{variable} is {text:?}, not a number"))
}

/// `TIDINGS_PRESSURE_SECONDS`: for how long something is measured.
pub(crate) fn measured(ci_seconds: u64) -> Duration {
    Duration::from_secs(scale("SECONDS", ci_seconds))
}
