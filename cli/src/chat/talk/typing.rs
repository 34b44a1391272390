//! What is typed.

use tidings_protocol::{ChatId, Operation, UserId};

use crate::chat::command::{self, Command};
use crate::chat::input::Entered;
use crate::chat::operation::{self, Running};
use crate::chat::talk::{Connection, Talk, now};
use crate::chat::text::clean;

impl Talk {
    pub(super) async fn take_entered(&mut self, entered: Entered) -> anyhow::Result<bool> {
        let (line, typed) = match entered {
            Entered::Line(line, typed) => (line, typed),
            Entered::End => {
                self.input_ended = true;
                // A person who types Ctrl-D wants to go now.
                return Ok(!self.screen.terminal().is_there());
            }
        };
        let command = match command::parse(&line) {
            Ok(command) => command,
            Err(error) => {
                self.screen.status(clean(&error));
                return Ok(true);
            }
        };
        if !self.too_many.is_empty()
            && !matches!(command, Command::Replace(_) | Command::Quit | Command::Nothing)
        {
            self.screen.status("first say which device to replace, or /quit");
            return Ok(true);
        }
        match command {
            Command::Say(text) => self.say(text, typed).await,
            Command::Send { file, text } => self.send_file(&file, text, typed).await,
            Command::Save { number, target } => self.save_file(number, target, typed),
            Command::Quit => return Ok(false),
            command => self.start(command).await,
        }
        Ok(true)
    }

    /// Begins what needs a word with the server, or does what does not.
    pub(super) async fn start(&mut self, command: Command) {
        let client = self.client.clone();
        let open = self.open;
        let in_chat = |then: &dyn Fn(ChatId) -> Running| match open {
            Some(chat_id) => Ok(then(chat_id)),
            None => Err("no chat is open".to_owned()),
        };
        let operation = match command {
            Command::Nothing
            | Command::Say(_)
            | Command::Send { .. }
            | Command::Save { .. }
            | Command::Quit => return,
            Command::Help => {
                for line in command::HELP {
                    self.screen.line(*line);
                }
                return;
            }
            Command::List => return self.show_list(),
            Command::Replace(which) => return self.replace(&which).await,
            Command::Open(which) => self.find(&which),
            Command::Create { name, users } => Ok(operation::create(client, name, users)),
            Command::Add(user) => {
                in_chat(&|chat| operation::modify(client.clone(), chat, user.clone(), Operation::Add))
            }
            Command::Remove(user) => {
                in_chat(&|chat| operation::modify(client.clone(), chat, user.clone(), Operation::Remove))
            }
            Command::Leave => {
                in_chat(&|chat| operation::modify(client.clone(), chat, self.user.clone(), Operation::Remove))
            }
            Command::Who => in_chat(&|chat| operation::who(client.clone(), chat)),
            Command::Clients => Ok(operation::clients(client, self.client_id, now(), self.offset)),
        };
        match operation {
            Ok(operation) => {
                if self.connection != Connection::Up {
                    self.screen.status("waiting for the connection; Ctrl-C gives up");
                }
                self.operation = Some(operation);
            }
            Err(error) => self.screen.status(clean(&error)),
        }
    }

    pub(super) fn show_list(&mut self) {
        let lines = self.book.lines(self.open);
        if lines.is_empty() {
            self.screen
                .status("no chats yet: /open bob begins one with bob, /create Lunch bob carol a group");
        }
        for line in lines {
            self.screen.line(line);
        }
    }

    pub(super) fn find(&self, which: &str) -> Result<Running, String> {
        match self.book.find(which)? {
            Some(chat_id) => Ok(operation::open(self.client.clone(), chat_id)),
            None => match UserId::new(which) {
                Ok(user) if user != self.user => Ok(operation::open_direct(self.client.clone(), user)),
                _ => Err(format!("there is no chat {which}; /list shows them")),
            },
        }
    }

    pub(super) async fn replace(&mut self, which: &str) {
        let index = which
            .parse::<usize>()
            .ok()
            .and_then(|number| number.checked_sub(1));
        match index.and_then(|index| self.too_many.get(index)) {
            Some(chosen) => {
                // An error here is told by the event that follows it.
                self.client.replace(chosen.client_id).await.ok();
                self.too_many.clear();
            }
            None if self.too_many.is_empty() => self.screen.status("there is nothing to replace"),
            None => self.screen.status("there is no such number"),
        }
    }
}
