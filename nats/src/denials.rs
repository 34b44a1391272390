//! What the servers have forbidden this process. They say so apart from the request, which is never answered then.

use std::collections::VecDeque;

use parking_lot::Mutex;

/// Subjects that are remembered, the latest ones. A process that lacks a permission asks for the same few again and again.
const REMEMBERED_MAX: usize = 64;

/// So begin the subjects of answers, whoever the user is.
const ANSWERS: &str = "_INBOX";

/// The subjects that were forbidden lately. One for each connection.
#[derive(Debug, Default)]
pub struct Denials(Mutex<VecDeque<String>>);

impl Denials {
    /// Remembers what a server's error says, if it is that this process has not the permission; says which subject, and
    /// whether that is new.
    pub fn note(&self, error: &str) -> Option<(String, bool)> {
        let subject = forbidden(error)?;
        let mut subjects = self.0.lock();
        let is_new = !subjects.contains(&subject);
        if is_new {
            if subjects.len() == REMEMBERED_MAX {
                subjects.pop_front();
            }
            subjects.push_back(subject.clone());
        }
        Some((subject, is_new))
    }

    /// What was forbidden lately of a request: to ask it, or to hear the answer. The latter is so of every request when the
    /// process has another user's login.
    pub(crate) fn of_request(&self, subject: &str) -> Option<String> {
        let subjects = self.0.lock();
        let of_it = |forbidden: &&String| *forbidden == subject || forbidden.starts_with(ANSWERS);
        subjects.iter().find(of_it).cloned()
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
    fn the_latest_are_remembered_once() {
        let denials = Denials::default();
        let note =
            |subject: &str| denials.note(&format!("Permissions Violation for Publish to \"{subject}\""));
        assert_eq!(note("a"), Some(("a".to_owned(), true)));
        assert_eq!(note("a"), Some(("a".to_owned(), false)));
        assert_eq!(denials.of_request("a").as_deref(), Some("a"));
        assert_eq!(denials.of_request("b"), None);
        for number in 0..REMEMBERED_MAX {
            note(&number.to_string());
        }
        assert_eq!(denials.of_request("a"), None);
        note("_INBOX_gateway.x.*");
        assert_eq!(denials.of_request("a").as_deref(), Some("_INBOX_gateway.x.*"));
        assert_eq!(denials.note("Stale Connection"), None);
    }
}
