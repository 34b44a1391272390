//! `tidings token`: signs what a login service would, for a system that `tidings up` runs.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use tidings_protocol::{ClientId, UserId};
use uuid::Uuid;

use crate::{DataDir, UpFile};

/// The names (user, device) live here as version 5 UUIDs. Never changes, or every device would be a new one.
const DEVICES: Uuid = Uuid::from_u128(0x3b0e_4c6f_9a52_4d0b_8f6e_54d1_c9a7_e213);
/// A token that lives longer says that something is misunderstood.
const LIFETIME_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// Prints a token for a user of a system that `tidings up` runs.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenArgs {
    /// Whose.
    #[arg(long)]
    user: UserId,
    /// A name for the device. The client id is made from user and device: the same again is the same client.
    #[arg(long, default_value = "default", conflicts_with = "client")]
    device: String,
    /// The client id itself.
    #[arg(long, value_name = "UUID")]
    client: Option<ClientId>,
    /// How long it is good for: seconds, or a number with s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Duration,
    #[command(flatten)]
    dir: DataDir,
}

pub(crate) fn main(args: TokenArgs) -> ExitCode {
    crate::block_on(async move {
        let up = UpFile::read(&args.dir.path()?)?;
        let client = args.client.unwrap_or_else(|| client_id(&args.user, &args.device));
        println!("{}", sign(&up.jwt_secret, &args.user, client, args.ttl)?);
        Ok(())
    })
}

/// The client that a user's device is.
pub(crate) fn client_id(user: &UserId, device: &str) -> ClientId {
    // User ids are printable, so that no other pair has this name.
    ClientId(Uuid::new_v5(&DEVICES, format!("{user}\n{device}").as_bytes()))
}

/// A token of `user` for `client`, good from now for `lifetime`.
pub(crate) fn sign(
    secret: &str,
    user: &UserId,
    client: ClientId,
    lifetime: Duration,
) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Claims<'a> {
        sub: &'a UserId,
        client: ClientId,
        exp: u64,
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    let claims = Claims {
        sub: user,
        client,
        exp: (now + lifetime).as_secs(),
    };
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("cannot sign a token")
}

fn lifetime(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        unit => bail!("{unit:?} is not one of s, m, h and d"),
    };
    let number: u64 = digits.parse().context("not a whole number")?;
    let lifetime = Duration::from_secs(number.saturating_mul(seconds));
    ensure!(lifetime <= LIFETIME_MAX, "at most ten years");
    Ok(lifetime)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("printable")
    }

    #[test]
    fn the_client_of_a_device_never_changes() {
        assert_eq!(
            client_id(&user("alice"), "phone").to_string(),
            "051890b8-373f-5b35-bc1d-9dfbf241772f"
        );
        assert_ne!(
            client_id(&user("alice"), "phone"),
            client_id(&user("alice"), "laptop")
        );
        assert_ne!(
            client_id(&user("alice"), "phone"),
            client_id(&user("bob"), "phone")
        );
    }

    #[test]
    fn a_token_says_who_it_is_for() {
        tidings_service::start::install_crypto_provider();
        let client = client_id(&user("auth0|alice"), "phone");
        let lifetime = Duration::from_mins(5);
        let token = sign("a secret", &user("auth0|alice"), client, lifetime).expect("signed");
        let key = DecodingKey::from_secret(b"a secret");
        let claims = jsonwebtoken::decode::<Value>(&token, &key, &Validation::default());
        let claims = claims.expect("a good token").claims;
        assert_eq!(claims["sub"], "auth0|alice");
        assert_eq!(claims["client"], client.to_string());
    }

    #[test]
    fn lifetimes_have_units() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("15m", 900),
            ("2h", 7_200),
            ("1d", 86_400),
        ] {
            assert_eq!(lifetime(text).expect("understood"), Duration::from_secs(seconds));
        }
        for text in ["", "h", "1w", "-1", "1.5h", "999999d"] {
            assert!(lifetime(text).is_err(), "{text:?}");
        }
    }
}
