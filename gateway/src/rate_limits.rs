//! How much of each thing is let through. Buckets of this process: with several gateways a chat gets the rate of
//! each that its senders are connected to, and CHATS' own bound per chat is the exact one.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use tidings_protocol::{ChatId, Error, ErrorCode, UserId};
use tidings_service::Switch;

use crate::hello::HELLO_TIMEOUT;

/// How often buckets that are full again are forgotten.
pub(crate) const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);

const fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("rates are above zero")
}

/// A client: 60 messages at once, then 5 a second.
fn client_quota() -> Quota {
    Quota::per_second(number(5)).allow_burst(number(60))
}

/// All other requests of a client but pings: 60 at once, then 10 a second. Each may cost Postgres a question; a
/// client that has just come back asks for its chats page by page, of which there are a few.
fn question_quota() -> Quota {
    Quota::per_second(number(10)).allow_burst(number(60))
}

/// A chat: 100 at once, then 20 a second.
fn chat_quota() -> Quota {
    Quota::per_second(number(20)).allow_burst(number(100))
}

/// `createChat` and ADD: 60 an hour a user.
fn invitation_quota() -> Quota {
    Quota::per_hour(number(60))
}

/// Failed hellos: 60 at once, then one a second an address, so that nobody tries tokens or floods the database.
fn failed_hello_quota() -> Quota {
    Quota::per_second(number(1)).allow_burst(number(60))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RateLimits {
    on: bool,
    chats: DefaultKeyedRateLimiter<ChatId>,
    invitations: DefaultKeyedRateLimiter<UserId>,
    failed_hellos: DefaultKeyedRateLimiter<IpAddr>,
    unauthenticated: Mutex<HashMap<IpAddr, u32>>,
    unauthenticated_max: u32,
}

/// The buckets of one client, kept by its connection; none where rates are not limited.
#[derive(Debug)]
pub(crate) struct ClientLimits(Option<Buckets>);

#[derive(Debug)]
struct Buckets {
    messages: DefaultDirectRateLimiter,
    questions: DefaultDirectRateLimiter,
}

impl ClientLimits {
    /// One more message.
    pub(crate) fn check_message(&self) -> Result<(), Error> {
        let bucket = self.0.as_ref().map(|buckets| &buckets.messages);
        check_direct(bucket, "this client's messages")
    }

    /// One more request that is neither a message nor a ping.
    pub(crate) fn check_question(&self) -> Result<(), Error> {
        let bucket = self.0.as_ref().map(|buckets| &buckets.questions);
        check_direct(bucket, "this client's requests")
    }
}

fn check_direct(bucket: Option<&DefaultDirectRateLimiter>, what: &str) -> Result<(), Error> {
    let Some(bucket) = bucket else { return Ok(()) };
    bucket
        .check()
        .map_err(|until| limited(what, until.wait_time_from(DefaultClock::default().now())))
}

impl RateLimits {
    pub(crate) fn new(switch: Switch, unauthenticated_max: u32) -> Self {
        Self {
            on: switch == Switch::On,
            chats: RateLimiter::keyed(chat_quota()),
            invitations: RateLimiter::keyed(invitation_quota()),
            failed_hellos: RateLimiter::keyed(failed_hello_quota()),
            unauthenticated: Mutex::default(),
            unauthenticated_max,
        }
    }

    /// Whether rates are limited.
    pub(crate) const fn is_on(&self) -> bool {
        self.on
    }

    /// A new client's buckets.
    pub(crate) fn client(&self) -> ClientLimits {
        ClientLimits(self.on.then(|| Buckets {
            messages: RateLimiter::direct(client_quota()),
            questions: RateLimiter::direct(question_quota()),
        }))
    }

    /// One more message to a chat.
    pub(crate) fn check_chat(&self, chat_id: ChatId) -> Result<(), Error> {
        self.check(&self.chats, &chat_id, "this chat's messages")
    }

    /// One more chat or participant by a user.
    pub(crate) fn check_invitation(&self, user_id: &UserId) -> Result<(), Error> {
        self.check(
            &self.invitations,
            user_id,
            "chats and participants added by this user",
        )
    }

    /// A hello from this address has failed; says whether it may try again.
    pub(crate) fn failed_hello(&self, address: IpAddr) -> Result<(), Error> {
        self.check(&self.failed_hellos, &address, "failed hellos from this address")
    }

    /// A connection that has not said hello, unless there are too many from this address. Whoever is refused is told to
    /// come back at a moment of its own, while those who are here say hello or are closed for not having said it.
    pub(crate) fn unauthenticated(self: &Arc<Self>, address: IpAddr) -> Result<Unauthenticated, Error> {
        let mut counts = self.unauthenticated.lock();
        let count = counts.entry(address).or_default();
        if self.on && *count >= self.unauthenticated_max {
            let wait = HELLO_TIMEOUT.mul_f64(rand::random_range(0.0..1.0));
            return Err(limited("connections without hello from this address", wait));
        }
        *count += 1;
        Ok(Unauthenticated {
            limits: self.clone(),
            address,
        })
    }

    /// Forgets buckets that are full again; else every chat and user would stay for ever.
    pub(crate) fn upkeep(&self) {
        self.chats.retain_recent();
        self.chats.shrink_to_fit();
        self.invitations.retain_recent();
        self.invitations.shrink_to_fit();
        self.failed_hellos.retain_recent();
        self.failed_hellos.shrink_to_fit();
    }

    fn check<K: Clone + Hash + Eq>(
        &self,
        limiter: &DefaultKeyedRateLimiter<K>,
        key: &K,
        what: &str,
    ) -> Result<(), Error> {
        if !self.on {
            return Ok(());
        }
        limiter
            .check_key(key)
            .map_err(|until| limited(what, until.wait_time_from(DefaultClock::default().now())))
    }
}

fn limited(what: &str, wait: Duration) -> Error {
    // Rounded up, so that whoever waits as told is not told again.
    let milliseconds = wait.as_millis() as u64 + 1;
    Error::new(ErrorCode::RateLimited, format!("too many: {what}")).retry_after_ms(milliseconds)
}

/// Counts a connection until it has said hello or is gone.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    limits: Arc<RateLimits>,
    address: IpAddr,
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        let mut counts = self.limits.unauthenticated.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_says_when_to_come_back() {
        let limits = RateLimits::new(Switch::On, 2);
        let client = limits.client();
        for _ in 0..60 {
            client.check_message().expect("60 at once");
        }
        let error = client.check_message().expect_err("the 61st is too many");
        assert_eq!(error.code, ErrorCode::RateLimited);
        assert!(error.retryable);
        assert!(
            error.retry_after_ms.is_some_and(|ms| (1..=201).contains(&ms)),
            "{error:?}"
        );
    }

    #[test]
    fn off_is_off() {
        let limits = Arc::new(RateLimits::new(Switch::Off, 0));
        let client = limits.client();
        assert!((0..1_000).all(|_| client.check_message().is_ok() && client.check_question().is_ok()));
        let chat_id = ChatId(uuid::Uuid::from_u128(1));
        assert!((0..1_000).all(|_| limits.check_chat(chat_id).is_ok()));
        assert!(limits.unauthenticated(IpAddr::from([127, 0, 0, 1])).is_ok());
    }

    #[test]
    fn connections_without_hello_are_counted_while_they_last() {
        let limits = Arc::new(RateLimits::new(Switch::On, 1));
        let address = IpAddr::from([127, 0, 0, 1]);
        let first = limits.unauthenticated(address);
        assert!(first.is_ok());
        let refused = limits.unauthenticated(address).expect_err("one is there");
        assert_eq!(refused.code, ErrorCode::RateLimited);
        let after = refused.retry_after_ms.expect("it says when to come back");
        assert!((1..=10_000).contains(&after), "{after}");
        drop(first);
        assert!(limits.unauthenticated(address).is_ok());
    }

    #[test]
    fn each_thing_has_a_rate_of_its_own() {
        let limits = RateLimits::new(Switch::On, 0);
        // A bucket fills while it is emptied, on a slow machine by a good deal.
        let passed = |check: &dyn Fn() -> Result<(), Error>| (0..1_000).map_while(|_| check().ok()).count();
        let chat = || limits.check_chat(ChatId(uuid::Uuid::from_u128(1)));
        assert!((100..1_000).contains(&passed(&chat)));
        let user_id = UserId::new("alice").expect("printable");
        assert!((60..70).contains(&passed(&|| limits.check_invitation(&user_id))));
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!((60..1_000).contains(&passed(&|| limits.failed_hello(address))));
        let other = IpAddr::from([127, 0, 0, 2]);
        assert!(limits.failed_hello(other).is_ok());
        let client = limits.client();
        assert!((60..1_000).contains(&passed(&|| client.check_question())));
        assert!((60..1_000).contains(&passed(&|| client.check_message())));
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten() {
        let limits = RateLimits::new(Switch::On, 0);
        let user_id = UserId::new("alice").expect("printable");
        limits.check_invitation(&user_id).expect("the first of 60");
        limits
            .check_chat(ChatId(uuid::Uuid::from_u128(1)))
            .expect("the first of 100");
        let forgotten = (0..1_000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            limits.upkeep();
            limits.chats.is_empty()
        });
        assert!(forgotten, "it is full again after 50 ms");
    }

    #[test]
    fn whoever_waits_as_told_is_not_told_again() {
        let error = limited("of it", Duration::from_micros(7_200));
        assert_eq!(error.retry_after_ms, Some(8));
    }

    #[test]
    fn each_connection_without_hello_counts_until_it_is_gone() {
        let limits = Arc::new(RateLimits::new(Switch::On, 2));
        let address = IpAddr::from([127, 0, 0, 1]);
        let (first, second) = (limits.unauthenticated(address), limits.unauthenticated(address));
        drop(first);
        let third = limits.unauthenticated(address);
        assert!(second.is_ok() && third.is_ok());
        assert!(limits.unauthenticated(address).is_err());
        drop((second, third));
        assert!(limits.unauthenticated.lock().is_empty());
    }
}
