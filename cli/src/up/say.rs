//! What `tidings up` tells people, on standard error.

use std::io::Write as _;

/// Says one line. A closed standard error is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
