//! The settings of services that make room for attachments: gateway and media. Give all of them the same.

use tidings_protocol::NUMBER_MAX;

/// How large an attachment may be, and how much of them a user may have, for `#[command(flatten)]`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Attachments")]
pub struct AttachmentConfig {
    /// The most bytes that one attachment may have, such as `1GiB`, `200MiB` or a plain number of bytes.
    ///
    /// Clients are told in `welcome`. Give all gateways and media services the same.
    #[arg(
        long,
        env = "TIDINGS_ATTACHMENT_BYTES_MAX",
        default_value = "1GiB",
        value_name = "BYTES",
        value_parser = bytes
    )]
    pub attachment_bytes_max: u64,

    /// How many attachments a user may announce or upload in an hour, counted over all processes.
    #[arg(
        long,
        env = "TIDINGS_ATTACHMENTS_PER_HOUR",
        default_value_t = 60,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub attachments_per_hour: u32,

    /// How many bytes a user's attachments may take that are not gone yet, the same bytes counted once.
    ///
    /// An attachment is gone 31 days after the last message that named it, or after a day when none did.
    #[arg(
        long,
        env = "TIDINGS_ATTACHMENT_BUDGET",
        default_value = "10GiB",
        value_name = "BYTES",
        value_parser = bytes
    )]
    pub attachment_budget: u64,
}

/// Reads `1GiB`, `200MiB`, `64KiB` or a plain number of bytes; at least one, and no more than JavaScript counts exactly.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(
        text.find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err("bytes are expected, such as 1GiB, 200MiB, 64KiB or a plain number".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "a number of bytes is expected, such as 1GiB".to_owned())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| (1..=NUMBER_MAX).contains(bytes))
        .ok_or_else(|| format!("between 1 and {NUMBER_MAX} bytes are expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::check_settings;
    use clap::{CommandFactory as _, Parser};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        attachments: AttachmentConfig,
    }

    #[test]
    fn every_setting_has_its_environment_variable_and_is_explained() {
        check_settings(&Command::command());
    }

    #[test]
    fn defaults_are_what_the_protocol_says() {
        let config = Command::parse_from(["service"]).attachments;
        assert_eq!(config.attachment_bytes_max, 1 << 30);
        assert_eq!(config.attachments_per_hour, 60);
        assert_eq!(config.attachment_budget, 10 << 30);
    }

    #[test]
    fn bytes_have_units_and_bounds() {
        for (text, expected) in [
            ("1", 1),
            ("64KiB", 65_536),
            ("200MiB", 200 << 20),
            ("8TiB", 8 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "0",
            "0GiB",
            "-1",
            "1.5GiB",
            "1GB",
            "GiB",
            "1 GiB",
            "9007199254740992",
            "9999999TiB",
            "1€",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
