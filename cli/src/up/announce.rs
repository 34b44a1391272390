//! What is said once everything runs: to the program that started us, and to people.

use std::io::Write as _;
use std::time::Duration;

use tidings_service::Switch;

use super::UpArgs;
use super::say::say;

/// Says that it is ready, where people and where programs look, and what to try.
pub(crate) fn announce(ws: &[String], args: &UpArgs, took: Duration) {
    let program = std::env::args_os().next().unwrap_or_else(|| "tidings".into());
    let program = program.to_string_lossy();
    let dir = match args.dir.given() {
        Some(dir) => format!(" --dir {}", dir.display()),
        None => String::new(),
    };
    say(&format!(
        "everything runs after {:.1} s. In two other terminals, try:\n  \
         {program} chat{dir} --user alice --with bob\n  \
         {program} chat{dir} --user bob --with alice\n\
         There, /send FILE sends a file.\n\
         A token for your own client: {program} token{dir} --user alice\n\
         Ctrl-C stops everything.",
        took.as_secs_f64()
    ));
    if args.rate_limits == Switch::Off {
        say("rate limits are off");
    }
    let url = ws.first().map_or("", String::as_str);
    // Whoever started us may have closed its end; that is no reason to stop.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready {url}").and_then(|()| out.flush());
}
