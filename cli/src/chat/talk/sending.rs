//! One's own messages: pending, then accepted.

use futures::FutureExt as _;
use tidings_client::{Accepted, RequestError, Sending};
use tidings_protocol::{Attachment, ChatId, ClientFrame, Reply, Timestamp};

use crate::chat::history::Said;
use crate::chat::operation::sentence;
use crate::chat::screen::{LineId, Typed};
use crate::chat::talk::{Sent, Talk, messages, now};
use crate::chat::text::{brief, clean, time_of_day};

impl Talk {
    pub(super) async fn say_what_was_left(&mut self) {
        if let Ok(pending) = self.client.pending().await
            && !pending.is_empty()
        {
            let left = messages(pending.len());
            self.screen
                .status(format!("{left} of last time still to be sent"));
        }
    }

    pub(super) async fn say(&mut self, text: String, typed: Option<Typed>) {
        let Some(chat_id) = self.open else {
            self.screen
                .status("no chat is open: /list shows your chats, /open bob opens one with bob");
            return;
        };
        match self.client.send(chat_id, text.clone()).await {
            Ok(sending) => {
                let line = self.screen.own(self.own_line(None, &text, "…"), typed);
                self.await_accepted(line, chat_id, text, Vec::new(), sending);
            }
            Err(error) => self.screen.status(format!("not sent: {}", sentence(error))),
        }
    }

    /// Goes on when the server has answered.
    pub(super) fn await_accepted(
        &mut self,
        line: LineId,
        chat_id: ChatId,
        text: String,
        attachments: Vec<Attachment>,
        sending: Sending,
    ) {
        let accepted = async move {
            let result = sending.accepted().await;
            Sent {
                line,
                chat_id,
                text,
                attachments,
                result,
            }
        };
        self.sending.push(accepted.boxed());
    }

    pub(super) fn own_line(&self, at: Option<Timestamp>, text: &str, mark: &str) -> String {
        let at = time_of_day(at.unwrap_or_else(now), now(), self.offset);
        format!("{at} you: {} {mark}", clean(text))
    }

    pub(super) fn take_sent(&mut self, sent: Sent) -> anyhow::Result<()> {
        let shown = self.shelf.with_files(&sent.text, &sent.attachments);
        match sent.result {
            Ok(accepted) => {
                let text = self.own_line(accepted.sent_at, &shown, &format!("✓ {}", accepted.seq));
                self.screen.amend(sent.line, text);
                self.remember_own(sent.chat_id, accepted, sent.text, sent.attachments)
            }
            // It waits in the store for the next start.
            Err(RequestError::Stopped(_)) => Ok(()),
            Err(error) => {
                let mark = format!("✗ {}", sentence(error));
                self.screen.amend(sent.line, self.own_line(None, &shown, &mark));
                Ok(())
            }
        }
    }

    pub(super) fn remember_own(
        &mut self,
        chat_id: ChatId,
        accepted: Accepted,
        text: String,
        attachments: Vec<Attachment>,
    ) -> anyhow::Result<()> {
        let said = Said {
            at: accepted.sent_at.unwrap_or_else(now),
            by: Some(self.user.clone()),
            text,
            attachments,
        };
        self.history.add(&[(chat_id, accepted.seq, said)])
    }

    /// A request of last time has its answer.
    pub(super) fn take_settled(
        &mut self,
        request: &ClientFrame,
        result: Result<Box<Reply>, tidings_protocol::Error>,
    ) -> anyhow::Result<()> {
        let what = match request {
            ClientFrame::SendMessage(message) if message.message.is_empty() => "a file".to_owned(),
            ClientFrame::SendMessage(message) => format!("“{}”", brief(&message.message)),
            ClientFrame::CreateChat(_) => "the new chat".to_owned(),
            _ => "the change of a chat".to_owned(),
        };
        let accepted = result.map_err(RequestError::Refused);
        match (request, accepted) {
            (ClientFrame::SendMessage(message), Ok(reply)) => {
                if let Ok(accepted) = Accepted::from_reply(&reply) {
                    let label = self.book.label(message.chat_id);
                    self.screen
                        .status(format!("{what} of last time sent to {label} ✓ {}", accepted.seq));
                    // What the files are is not known any more.
                    self.remember_own(message.chat_id, accepted, message.message.clone(), Vec::new())?;
                }
            }
            (_, Ok(_)) => self.screen.status(format!("{what} of last time is done ✓")),
            (_, Err(error)) => self
                .screen
                .status(format!("{what} of last time failed ✗ {}", sentence(error))),
        }
        Ok(())
    }
}
