//! The inbox worker's settings.

use std::time::Duration;

use tidings_blobs::BlobStoreConfig;
use tidings_service::CommonConfig;

/// The most that `--retention` may be: a day less than the `max_age` of the inboxes' streams, which deletes without a
/// mark.
const RETENTION_MAX: Duration = Duration::from_hours(30 * 24);
/// The most that `--idle-after` may be: ten years.
const IDLE_AFTER_MAX: Duration = Duration::from_hours(3_650 * 24);

/// Settings of `tidings inbox-worker`.
#[derive(Clone, Debug, clap::Args)]
pub struct InboxWorkerConfig {
    /// Every service's settings.
    #[command(flatten)]
    pub common: CommonConfig,

    /// Where attachments' bytes are removed from.
    #[command(flatten)]
    pub store: BlobStoreConfig,

    /// How long an inbox keeps what its client has not confirmed: `30d` at most; `12h`, `30m`, `90s`.
    ///
    /// What is older is deleted, and its client told. Clients are told of 30 days in `welcome`; give all inbox workers
    /// the same. The streams themselves keep nothing longer than 31 days.
    #[arg(long, env = "TIDINGS_RETENTION", default_value = "30d", value_name = "AGE", value_parser = retention)]
    pub retention: Duration,

    /// After how long without a connection a client is idle, such as `30d`: its inbox is emptied, its place among the
    /// user's three is free, and it registers anew when it is back.
    #[arg(long, env = "TIDINGS_IDLE_AFTER", default_value = "30d", value_name = "AGE", value_parser = idle_after)]
    pub idle_after: Duration,

    /// For tests: this many seconds are added to what this machine's clock says.
    #[arg(
        long,
        env = "TIDINGS_CLOCK_OFFSET",
        default_value_t = 0,
        value_name = "SECONDS",
        hide = true,
        allow_negative_numbers = true
    )]
    pub clock_offset: i64,
}

fn retention(text: &str) -> Result<Duration, String> {
    age(text, RETENTION_MAX)
}

fn idle_after(text: &str) -> Result<Duration, String> {
    age(text, IDLE_AFTER_MAX)
}

/// Reads `30d`, `12h`, `30m` or `90s`, from a second to `max`.
fn age(text: &str, max: Duration) -> Result<Duration, String> {
    let expected = || "an age is expected, such as 30d, 12h, 30m or 90s".to_owned();
    let unit = text.chars().last().ok_or_else(expected)?;
    let count: u64 = text[..text.len() - unit.len_utf8()]
        .parse()
        .map_err(|_| expected())?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(expected()),
    };
    let age = Duration::from_secs(count.checked_mul(seconds).ok_or_else(expected)?);
    if age < Duration::from_secs(1) || age > max {
        return Err(format!("between 1s and {}d are expected", max.as_secs() / 86_400));
    }
    Ok(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit_and_bounds() {
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("30m", 1_800), ("1s", 1)] {
            assert_eq!(retention(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "30",
            "d",
            "0s",
            "-1d",
            "31d",
            "1.5h",
            "3 d",
            "99999999999999999999d",
            "1€",
        ] {
            assert!(retention(text).is_err(), "{text}");
        }
        assert!(idle_after("60d").is_ok());
    }
}
