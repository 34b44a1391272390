//! Chats that are opened, and what else operations came back with.

use tidings_client::ChatNow;
use tidings_protocol::UserId;

use crate::chat::operation::{self, Effect};
use crate::chat::talk::{HISTORY_LINES, Talk, now};
use crate::chat::text::{clean, time_of_day};

impl Talk {
    pub(super) fn take_result(&mut self, result: Result<Vec<Effect>, String>) -> anyhow::Result<()> {
        match result {
            Ok(effects) => {
                for effect in effects {
                    self.apply(effect)?;
                }
            }
            Err(error) => self.screen.status(error),
        }
        // What came early waited for the chats' names, and for the chat that was to be opened.
        if self.operation.is_none()
            && let Some(early) = self.early.take()
        {
            self.show(early)?;
        }
        Ok(())
    }

    pub(super) fn apply(&mut self, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Say(text) => self.screen.line(text),
            Effect::Note(chat) => self.book.note(chat),
            Effect::Open(now) => return self.open_chat(&now),
            Effect::List => self.show_list(),
            Effect::Find(name) => match self.book.find(&name) {
                Ok(Some(chat_id)) => self.operation = Some(operation::open(self.client.clone(), chat_id)),
                Ok(None) => self.screen.status(format!(
                    "you are in no group called {}; /create makes one, /list shows your chats",
                    clean(&name)
                )),
                Err(error) => self.screen.status(error),
            },
        }
        Ok(())
    }

    pub(super) fn open_chat(&mut self, chat: &ChatNow) -> anyhow::Result<()> {
        let chat_id = chat.chat.chat_id;
        self.open = Some(chat_id);
        self.book.read(chat_id);
        for said in self.history.last(chat_id, HISTORY_LINES)? {
            let at = time_of_day(said.at, now(), self.offset);
            let text = self.shelf.with_files(&said.text, &said.attachments);
            match said.by {
                Some(by) if by == self.user => self.screen.line(format!("{at} you: {}", clean(&text))),
                Some(by) => self.screen.line(format!("{at} {by}: {}", clean(&text))),
                None => self.screen.status(clean(&text)),
            }
        }
        let label = self.book.label(chat_id);
        self.screen
            .status(format!("this is the chat with {label}").replace("with only you", "of only you"));
        let absent: Vec<&str> = chat.not_yet_connected.iter().map(UserId::as_str).collect();
        match absent.as_slice() {
            [] => {}
            [one] => self.screen.status(format!(
                "{one} has not connected yet; what you write waits for them"
            )),
            several => {
                let several = several.join(", ");
                self.screen.status(format!(
                    "{several} have not connected yet; what you write waits for them"
                ));
            }
        }
        Ok(())
    }
}
