//! What the servers have forbidden this process. They say so apart from the request, which is never answered then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Subjects that are remembered, the latest ones. A process that lacks a permission asks for the same few again and again.
const REMEMBERED_MAX: usize = 64;
/// For so long a request counts as forbidden after it was: longer than any waits for its answer, and soon over once
/// somebody has put the permissions right.
const REMEMBERED_FOR: Duration = Duration::from_secs(15);
/// Between two that are told. Subjects have the ids of clients in them, so there may be thousands.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// So begin the subjects of answers, whoever the user is.
const ANSWERS: &str = "_INBOX";

/// The subjects that were forbidden lately. One for each connection.
#[derive(Debug, Default)]
pub struct Denials(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    subjects: VecDeque<(String, Instant)>,
    told: Option<Instant>,
}

/// Something was forbidden.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// What.
    pub subject: String,
    /// Whether to tell people: it is new, and they have not been told of another just now.
    pub tell: bool,
}

impl Denials {
    /// Remembers what a server's error says, if it is that this process has not the permission.
    pub fn note(&self, error: &str, now: Instant) -> Option<Denial> {
        let subject = forbidden(error)?;
        let mut state = self.0.lock();
        let known = state.subjects.iter().position(|(known, _)| *known == subject);
        if let Some(known) = known {
            state.subjects.remove(known);
        } else if state.subjects.len() == REMEMBERED_MAX {
            state.subjects.pop_front();
        }
        state.subjects.push_back((subject.clone(), now));
        let quiet = state.told.is_some_and(|told| now < told + TELL_INTERVAL);
        let tell = known.is_none() && !quiet;
        if tell {
            state.told = Some(now);
        }
        Some(Denial { subject, tell })
    }

    /// A new connection asks anew for everything.
    pub fn forget(&self) {
        self.0.lock().subjects.clear();
    }

    /// What was forbidden lately of a request: to ask it, or to hear the answer. The latter is so of every request when the
    /// process has another user's login, and stays so for as long as the connection does.
    pub(crate) fn of_request(&self, subject: &str, now: Instant) -> Option<String> {
        let state = self.0.lock();
        let mut of_it = state.subjects.iter().filter(|(forbidden, at)| {
            forbidden.starts_with(ANSWERS) || forbidden == subject && now < *at + REMEMBERED_FOR
        });
        of_it.next().map(|(forbidden, _)| forbidden.clone())
    }
}

/// The subject in `Permissions Violation for Publish to "x"`, or `… for Subscription to "x"`.
fn forbidden(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("Permissions Violation for ")?;
    let (_, rest) = rest.split_once('"')?;
    let (subject, _) = rest.split_once('"')?;
    Some(subject.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_from_what_servers_say() {
        for (error, subject) in [
            (
                r#"nats: Permissions Violation for Publish to "live.x""#,
                Some("live.x"),
            ),
            (
                r#"Permissions Violation for Subscription to "a.>" using queue "b""#,
                Some("a.>"),
            ),
            ("Authorization Violation", None),
            ("Permissions Violation for", None),
        ] {
            assert_eq!(forbidden(error).as_deref(), subject, "{error}");
        }
    }

    #[test]
    fn the_latest_are_remembered_once_and_for_a_while() {
        let denials = Denials::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let note = |subject: &str, at| {
            let error = format!("Permissions Violation for Publish to \"{subject}\"");
            denials.note(&error, at).expect("it is one").tell
        };
        assert!(note("a", start), "the first is told");
        assert!(!note("a", after(60)), "it is told once");
        assert!(note("b", after(60)));
        assert!(!note("c", after(69)), "another was told just now");
        assert!(note("d", after(70)));
        assert_eq!(denials.of_request("a", after(74)).as_deref(), Some("a"));
        assert_eq!(
            denials.of_request("a", after(75)),
            None,
            "it may be allowed by now"
        );
        assert_eq!(denials.of_request("e", after(60)), None);
        for number in 0..REMEMBERED_MAX {
            note(&number.to_string(), after(71));
        }
        assert_eq!(denials.of_request("d", after(71)), None, "there are so many");
        note("_INBOX_gateway.x.*", after(71));
        let answer = denials.of_request("e", after(1_000));
        assert_eq!(answer.as_deref(), Some("_INBOX_gateway.x.*"));
        denials.forget();
        assert_eq!(denials.of_request("e", after(1_000)), None);
        assert_eq!(denials.note("Stale Connection", start), None);
    }
}
