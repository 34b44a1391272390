//! Tells a violation in a dozen lines: who sent it, who else got it, what its client did, what was done to the system.

use std::time::Duration;

use tidings_protocol::{ClientFrame, ServerFrame, UserId};

use super::chat_log::Content;
use super::index::{Connection, Index, short};
use super::reader::describe;
use super::report::Focus;
use super::weather::Weather;
use crate::history::{Moment, Record, What};

/// Lines of a story. More than a dozen would not be read.
const LINES_MAX: usize = 14;
/// How long before the event that it is about a story begins.
const BEFORE: Duration = Duration::from_secs(3);

/// A line of a story, and how much it matters: the lower, the more.
struct Line {
    at: Moment,
    rank: u8,
    text: String,
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn push(&mut self, at: Moment, rank: u8, text: String) {
        if !self.0.iter().any(|line| line.at == at && line.text == text) {
            self.0.push(Line { at, rank, text });
        }
    }

    fn told(mut self) -> Vec<String> {
        self.0.sort_by_key(|line| (line.rank, line.at));
        let left_out = self.0.len().saturating_sub(LINES_MAX);
        self.0.truncate(LINES_MAX);
        self.0.sort_by_key(|line| line.at);
        let mut told: Vec<String> = self
            .0
            .into_iter()
            .map(|line| format!("[{}] {}", line.at, line.text))
            .collect();
        if left_out > 0 {
            told.push(format!("({left_out} lines left out)"));
        }
        told
    }
}

impl Index<'_> {
    /// The story of something that showed at a moment.
    pub(super) fn story(&self, weather: &Weather, at: Moment, focus: &Focus) -> Vec<String> {
        let mut lines = Lines::default();
        for position in &focus.records {
            let record = self.record_at(*position);
            lines.push(
                record.at,
                0,
                format!("{} {}", record.connection, tell(&record.what)),
            );
        }
        let from = self.attempts(focus, &mut lines).unwrap_or(at).min(at);
        let from = from.min(self.earliest(focus).unwrap_or(from)).minus(BEFORE);
        let to = at.plus(BEFORE);
        self.elsewhere(focus, &mut lines);
        self.events(focus, &mut lines);
        if let Some(client_id) = focus.client_id
            && let Some(client) = self.clients.get(&client_id)
        {
            for number in &client.connections {
                self.connection(&self.connections[*number], focus, from, to, &mut lines);
            }
        }
        for disturbance in weather.between(from, to) {
            let text = if disturbance.to == Moment::NEVER {
                format!("FAULT {}, to the end", disturbance.what)
            } else {
                format!("FAULT {}, until {}", disturbance.what, disturbance.to)
            };
            lines.push(disturbance.from, 3, text);
        }
        lines.told()
    }

    /// When the events that it is about were first asked for or known.
    fn earliest(&self, focus: &Focus) -> Option<Moment> {
        let chat = self.chats.get(&focus.chat_id?)?;
        let events = focus.seqs.iter().filter_map(|seq| chat.events.get(seq));
        events
            .map(|event| event.requested.unwrap_or(event.known).min(event.known))
            .min()
    }

    /// How it was sent; when first.
    fn attempts(&self, focus: &Focus, lines: &mut Lines) -> Option<Moment> {
        let key = focus.key.or_else(|| {
            let event = self.chats.get(&focus.chat_id?)?.events.get(focus.seqs.first()?)?;
            match &event.content {
                Content::Message { key, .. } => Some(*key),
                Content::Update(_) => None,
            }
        })?;
        let message = self.messages.get(&key)?;
        for (index, attempt) in message.attempts.iter().enumerate() {
            let rank = if index == 0 || index + 1 == message.attempts.len() {
                1
            } else {
                4
            };
            let connection = &self.connections[attempt.connection];
            let text = format!(
                "{} sends {key} (attempt {}): {}",
                connection.id,
                index + 1,
                attempt.answer
            );
            lines.push(attempt.at, rank, text);
        }
        Some(message.attempts.first()?.at)
    }

    /// Who else got the event that it is about.
    fn elsewhere(&self, focus: &Focus, lines: &mut Lines) {
        let (Some(chat_id), Some(seq)) = (focus.chat_id, focus.seqs.first()) else {
            return;
        };
        let got: Vec<&Record> = self
            .run
            .records
            .iter()
            .filter(|record| place(&record.what) == Some((chat_id, *seq)))
            .filter(|record| Some(record.connection.client_id) != focus.client_id)
            .collect();
        match (got.first(), got.last()) {
            (Some(first), Some(last)) => lines.push(
                first.at,
                1,
                format!(
                    "seq {seq} comes to others: {} times, first {}, last {} at {}",
                    got.len(),
                    first.connection,
                    last.connection,
                    last.at
                ),
            ),
            _ => lines.push(
                self.earliest(focus).unwrap_or_default(),
                2,
                format!("seq {seq} comes to no other client"),
            ),
        }
    }

    /// The events that it is about, and the last change of the participants before.
    fn events(&self, focus: &Focus, lines: &mut Lines) {
        let Some(chat) = focus.chat_id.and_then(|chat_id| self.chats.get(&chat_id)) else {
            return;
        };
        for seq in &focus.seqs {
            if let Some(event) = chat.events.get(seq) {
                let asked = event
                    .requested
                    .map_or_else(String::new, |at| format!(", asked for at {at}"));
                lines.push(
                    event.known,
                    1,
                    format!("seq {seq} is {}{asked}", describe(&event.content)),
                );
            }
        }
        let user: Option<&UserId> = focus
            .client_id
            .and_then(|client_id| self.clients.get(&client_id))
            .map(|client| &client.user_id);
        let (Some(user), Some(first)) = (user, focus.seqs.first()) else {
            return;
        };
        let change = chat.events.range(..=*first).rev().find(|(_, event)| {
            matches!(&event.content, Content::Update(update)
                if update.added.contains(user) || update.removed.contains(user))
        });
        if let Some((seq, event)) = change
            && !focus.seqs.contains(seq)
        {
            let text = format!("seq {seq} is {}, which concerns {user}", describe(&event.content));
            lines.push(event.known, 2, text);
        }
    }

    /// What one connection of the client did meanwhile.
    fn connection(
        &self,
        connection: &Connection<'_>,
        focus: &Focus,
        from: Moment,
        to: Moment,
        lines: &mut Lines,
    ) {
        let mut numbers: Vec<u64> = Vec::new();
        let mut before: Option<&Record> = None;
        let mut next = true;
        for position in &connection.records {
            let record = self.record_at(*position);
            let id = connection.id;
            let mut say = |rank: u8, text: String| lines.push(record.at, rank, format!("{id} {text}"));
            match &record.what {
                What::Opened { .. } | What::Closed { .. } | What::AtRest | What::NotAtRest { .. }
                    if record.at >= from && record.at <= to =>
                {
                    say(2, tell(&record.what));
                }
                What::Received(frame)
                    if matches!(**frame, ServerFrame::CaughtUp(_))
                        && record.at >= from
                        && record.at <= to =>
                {
                    say(2, "hears caughtUp".to_owned());
                }
                What::Received(frame) => {
                    let Some((chat_id, seq)) = place(&record.what) else {
                        continue;
                    };
                    if Some(chat_id) != focus.chat_id {
                        continue;
                    }
                    if focus.seqs.contains(&seq) {
                        numbers.extend(delivery(frame));
                        say(1, tell(&record.what));
                    } else if focus.seqs.first().is_some_and(|first| seq < *first) {
                        before = Some(record);
                    } else if std::mem::take(&mut next) && record.at >= from {
                        say(2, format!("{} (the next of the chat)", tell(&record.what)));
                    }
                }
                What::Sent(frame) => {
                    if let ClientFrame::Received(received) = &**frame {
                        let covers = |number: &u64| {
                            received.delivery == Some(*number)
                                || received.through.is_some_and(|through| through >= *number)
                        };
                        if let Some(index) = numbers.iter().position(covers) {
                            let number = numbers.remove(index);
                            say(1, format!("confirms delivery {number}"));
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(record) = before.filter(|record| record.at >= from.minus(BEFORE)) {
            lines.push(
                record.at,
                3,
                format!(
                    "{} {} (the last of the chat before)",
                    connection.id,
                    tell(&record.what)
                ),
            );
        }
    }
}

fn place(what: &What) -> Option<(tidings_protocol::ChatId, u64)> {
    match what {
        What::Received(frame) => match &**frame {
            ServerFrame::NewMessage(message) => Some((message.chat_id, message.seq)),
            ServerFrame::ChatUpdate(update) => Some((update.chat_id, update.seq)),
            _ => None,
        },
        _ => None,
    }
}

fn delivery(frame: &ServerFrame) -> Option<u64> {
    match frame {
        ServerFrame::NewMessage(message) => Some(message.delivery),
        ServerFrame::ChatUpdate(update) => Some(update.delivery),
        _ => None,
    }
}

/// A record in a few words; no bodies.
fn tell(what: &What) -> String {
    match what {
        What::Refused { url, reason } => format!("finds nobody at {url}: {reason}"),
        What::Opened { url } => format!("opens {url}"),
        What::Sent(frame) => format!("sends {}", frame.kind()),
        What::Received(frame) => match &**frame {
            ServerFrame::NewMessage(message) => {
                format!("gets seq {} as delivery {}", message.seq, message.delivery)
            }
            ServerFrame::ChatUpdate(update) => format!(
                "gets seq {} as delivery {}, version {}, you {:?}",
                update.seq, update.delivery, update.version, update.you
            ),
            frame => format!("gets {}", frame.kind()),
        },
        What::Unknown { .. } => "gets something unknown".to_owned(),
        What::Closed {
            code,
            reason,
            by_client,
        } => {
            let by = if *by_client { "hangs up" } else { "is closed" };
            let colon = if reason.is_empty() { "" } else { ": " };
            format!("{by} with {code}{colon}{reason}")
        }
        What::Fetched {
            attachment_id,
            outcome,
        } => format!("asks for attachment {}: {outcome}", short(attachment_id.0)),
        What::AtRest => "is at rest".to_owned(),
        What::NotAtRest { reason } => format!("is not at rest: {reason}"),
    }
}
