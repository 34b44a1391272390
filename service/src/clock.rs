//! The one place where a service asks what time it is. Decisions get the time as a parameter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidings_protocol::Timestamp;

/// This machine's clock. Asked for twice by each delivery, so without a calendar in between.
pub fn now() -> Timestamp {
    let milliseconds = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    Timestamp(match precise().duration_since(UNIX_EPOCH) {
        Ok(since) => milliseconds(since),
        Err(before) => -milliseconds(before.duration()),
    })
}

/// The same, to the nanosecond, for spans.
pub fn precise() -> SystemTime {
    SystemTime::now()
}
