//! Who somebody is: a user, one of their devices, and the token that says so.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tidings_protocol::{ClientId, UserId};
use uuid::Uuid;

/// A user and one of their clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user_id: UserId,
    /// On which device.
    pub client_id: ClientId,
}

impl Identity {
    /// A new device of a user.
    pub fn new(user_id: &UserId) -> Self {
        Self {
            user_id: user_id.clone(),
            client_id: ClientId(Uuid::new_v4()),
        }
    }

    /// A user whom no other test knows, with a device.
    pub fn fresh(name: &str) -> Self {
        let user_id = UserId::new(&format!("{name}-{}", Uuid::new_v4().simple()));
        Self::new(&user_id.expect("a test's name and a UUID make a user id"))
    }

    /// A token that is good for an hour.
    pub fn token(&self, secret: &str) -> String {
        self.token_for(secret, 3600)
    }

    /// A token that is good for so many seconds; a negative number is one that has expired.
    pub fn token_for(&self, secret: &str, seconds: i64) -> String {
        let exp = time::OffsetDateTime::now_utc().unix_timestamp() + seconds;
        sign(
            secret,
            &json!({ "sub": self.user_id, "client": self.client_id, "exp": exp }),
        )
    }
}

/// Signs any claims with HS256.
pub fn sign(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("HS256 signs every JSON")
}
