//! The one place where a service asks what time it is. Decisions get the time as a parameter.

use std::time::SystemTime;

use tidings_protocol::Timestamp;
use time::OffsetDateTime;

/// This machine's clock.
pub fn now() -> Timestamp {
    OffsetDateTime::now_utc().into()
}

/// The same, to the nanosecond, for spans.
pub fn precise() -> SystemTime {
    SystemTime::now()
}
