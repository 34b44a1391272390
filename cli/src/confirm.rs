//! A question at the terminal, before something is done for good.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::bail;

/// Asks whether `action` is to be done, such as `drop 2 dead letters for good`; anything but yes is an error. Without a
/// terminal there is nobody to say yes, and the error says how to do it without being asked.
pub(crate) fn confirm(action: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("this would {action}; --yes does it without asking");
    }
    eprint!("Really {action}? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}
