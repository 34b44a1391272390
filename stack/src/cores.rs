//! How many of the machine's cores a program uses that shares it with others.

use std::ffi::OsString;

/// `variable` with half of the cores, for the environment of a program, where nobody has said a number there: on this
/// machine there are other servers and clients, too, and what wakes threads for each other that then wait costs more than
/// they do at once (docs/PERFORMANCE.md).
pub fn half_of_the_cores(variable: &str) -> Option<(OsString, OsString)> {
    if std::env::var_os(variable).is_some() {
        return None;
    }
    let cores = std::thread::available_parallelism().ok()?.get();
    Some((variable.into(), (cores / 2).max(1).to_string().into()))
}
