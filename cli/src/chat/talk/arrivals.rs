//! What comes for this device: stored, shown, and only then let go of.

use futures::FutureExt as _;
use tidings_client::{Content, Delivery, Event};
use tidings_protocol::{InboxTrimmed, NewMessage, TrimReason, You};

use crate::chat::history::{Placed, Said};
use crate::chat::talk::{BATCH_MAX, Talk, messages, now};
use crate::chat::text::{brief, clean, time_of_day};

impl Talk {
    /// Stores what came, shows it, and only then lets go of it.
    pub(super) fn take_deliveries(&mut self, first: Delivery) -> anyhow::Result<()> {
        if let Some(early) = &mut self.early {
            early.push(first);
            return Ok(());
        }
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            match self.events.next().now_or_never().flatten() {
                Some(Event::Delivery(delivery)) => batch.push(delivery),
                Some(other) => {
                    self.ahead.push_back(other);
                    break;
                }
                None => break,
            }
        }
        self.show(batch)
    }

    pub(super) fn show(&mut self, batch: Vec<Delivery>) -> anyhow::Result<()> {
        let placed: Vec<Placed> = batch
            .iter()
            .filter_map(|delivery| self.placed(delivery.content()))
            .collect();
        self.history.add(&placed)?;
        for delivery in batch {
            match delivery.content() {
                Content::Message(message) => self.show_message(message),
                Content::Update(update) => {
                    let sentence = self.book.sentence(update);
                    self.book.update(update);
                    if self.open == Some(update.chat_id) {
                        self.screen.status(sentence);
                        if update.you == You::Removed {
                            self.open = None;
                        }
                    } else if update.you == You::Removed {
                        let name = update.name.as_deref().map_or("a chat".to_owned(), clean);
                        self.screen.status(format!("[{name}] {sentence}"));
                    } else {
                        self.screen
                            .status(format!("[{}] {sentence}", self.book.numbered(update.chat_id)));
                    }
                }
                Content::Trimmed(trimmed) => self.screen.status(trimmed_sentence(trimmed)),
            }
            delivery.confirm();
        }
        Ok(())
    }

    pub(super) fn placed(&self, content: &Content) -> Option<Placed> {
        match content {
            Content::Message(message) => {
                let said = Said {
                    at: message.sent_at,
                    by: Some(message.user_id.clone()),
                    text: message.message.clone(),
                    attachments: message.attachments.clone(),
                };
                Some((message.chat_id, message.seq, said))
            }
            Content::Update(update) => {
                let said = Said {
                    at: update.at,
                    by: None,
                    text: self.book.sentence(update),
                    attachments: Vec::new(),
                };
                Some((update.chat_id, update.seq, said))
            }
            Content::Trimmed(_) => None,
        }
    }

    pub(super) fn show_message(&mut self, message: &NewMessage) {
        let by = if message.user_id == self.user {
            "you (elsewhere)".to_owned()
        } else {
            message.user_id.to_string()
        };
        if self.open == Some(message.chat_id) {
            let at = time_of_day(message.sent_at, now(), self.offset);
            let text = self.shelf.with_files(&message.message, &message.attachments);
            self.screen.line(format!("{at} {by}: {}", clean(&text)));
        } else {
            self.book.unread(message.chat_id);
            let label = self.book.numbered(message.chat_id);
            let text = self
                .shelf
                .with_files(&brief(&message.message), &message.attachments);
            self.screen.line(format!("[{label}] {by}: {text}"));
        }
    }
}

fn trimmed_sentence(trimmed: &InboxTrimmed) -> String {
    let missed = match trimmed.missed {
        Some(missed) => format!("about {}", messages(missed as usize)),
        None => "some messages".to_owned(),
    };
    let reason = match trimmed.reason {
        TrimReason::Full => "this inbox was full",
        TrimReason::Expired => "they were too old",
        TrimReason::Inactive => "this device was away for too long",
    };
    format!("{missed} did not reach you: {reason}")
}
