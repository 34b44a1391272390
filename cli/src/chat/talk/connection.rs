//! What is said about the connection.

use tidings_client::Ending;
use tidings_protocol::{ClientInfo, Welcome};

use crate::chat::book::Book;
use crate::chat::operation::{self, Effect};
use crate::chat::talk::{Connection, Talk, Target, now};
use crate::chat::text::{clean, time_of_day};

impl Talk {
    pub(super) fn take_disconnected(&mut self, ending: &Ending) {
        let why = why(ending);
        match self.connection {
            Connection::Up => self
                .screen
                .status(format!("connection lost ({why}), reconnecting")),
            Connection::Never => self
                .screen
                .status(format!("cannot connect ({why}), trying again")),
            // Said once; the next word is that it is there again.
            Connection::Lost | Connection::Failing => {}
        }
        self.connection = match self.connection {
            Connection::Never | Connection::Failing => Connection::Failing,
            Connection::Up | Connection::Lost => Connection::Lost,
        };
    }

    pub(super) fn take_connected(&mut self, welcome: Welcome) {
        self.client_id = Some(welcome.client_id);
        if welcome.user_id != self.user {
            self.screen.status(format!(
                "the token is of {}, so that is who you are",
                welcome.user_id
            ));
            self.user = welcome.user_id;
            self.book = Book::new(self.user.clone());
        }
        self.too_many.clear();
        match self.connection {
            Connection::Never | Connection::Failing => {
                self.screen.status(format!("connected as {}", self.user));
            }
            Connection::Up | Connection::Lost => self.screen.status("connected"),
        }
        let first = self.early.is_some() && self.operation.is_none();
        self.connection = Connection::Up;
        if first {
            let client = self.client.clone();
            self.operation = Some(match self.target.clone() {
                Target::With(user) => operation::begin(client, None, Some(user)),
                Target::Group(name) => operation::begin(client, Some(Effect::Find(name)), None),
                Target::Nothing => operation::begin(client, Some(Effect::List), None),
            });
        }
    }

    pub(super) fn take_too_many(&mut self, clients: Vec<ClientInfo>) {
        self.screen.status(format!(
            "{} has too many devices; this one takes the place of which?",
            self.user
        ));
        for (index, client) in clients.iter().enumerate() {
            let name = clean(client.name.as_deref().unwrap_or("no name"));
            let seen = time_of_day(client.last_seen, now(), self.offset);
            let online = if client.online {
                "online".to_owned()
            } else {
                format!("last seen {seen}")
            };
            self.screen
                .line(format!("  {} {name}: {online} ({})", index + 1, client.client_id));
        }
        self.screen
            .status("/replace 1 removes the first of them for ever; /quit changes nothing");
        self.too_many = clients;
    }
}

/// An end for people; the rest of it is for programs.
fn why(ending: &Ending) -> String {
    let Ending::Closed { closed, .. } = ending else {
        return clean(&ending.to_string());
    };
    let words = match closed.code {
        1012 => "the server restarts",
        1013 => "the server has too much to do",
        1001 | 1005 | 1006 => "it broke",
        4401 => "the token has expired",
        4408 => "the server heard nothing from here",
        _ => return clean(&closed.to_string()),
    };
    words.to_owned()
}
