//! Versions of servers, as the servers themselves print them.

use std::fmt;

/// Major, minor and patch. What a program does not print is 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first number with a dot in what a program printed: `nats-server: v2.15.1`,
    /// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.split(|char: char| char.is_whitespace() || char == 'v')
            .find_map(|word| {
                let mut numbers = word.split('.').map(leading_number);
                let major = numbers.next()??;
                // A lone number is a year or a count more often than a version.
                let minor = numbers.next()??;
                Some(Self(major, minor, numbers.next().flatten().unwrap_or(0)))
            })
    }
}

/// `14-rc.1` is 14; a word that does not begin with a digit is none.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text
        .find(|char: char| !char.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().ok()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)?;
        if self.2 > 0 {
            write!(f, ".{}", self.2)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_print_is_read() {
        for (text, version) in [
            ("nats-server: v2.15.1", Some(Version(2, 15, 1))),
            ("nats-server: v2.16.0-RC.1", Some(Version(2, 16, 0))),
            (
                "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)",
                Some(Version(15, 14, 0)),
            ),
            ("postgres (PostgreSQL) 18.6", Some(Version(18, 6, 0))),
            ("usage: x 3", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text:?}");
        }
        assert_eq!(Version(15, 14, 0).to_string(), "15.14");
        assert!(Version(2, 9, 25) < Version(2, 15, 0));
    }
}
