//! The chats a user is in, and how to name them.

use std::collections::HashMap;

use tidings_protocol::{Chat, ChatId, ChatKind, ChatUpdate, Participant, UserId, You};

use crate::chat::text::clean;

/// The chats, each with the number it has on this screen.
#[derive(Debug)]
pub(crate) struct Book {
    me: UserId,
    chats: HashMap<ChatId, Entry>,
    /// In the order of their numbers; chats that were left keep theirs.
    order: Vec<ChatId>,
}

#[derive(Debug)]
struct Entry {
    chat: Chat,
    unread: usize,
}

impl Book {
    pub(crate) fn new(me: UserId) -> Self {
        Self {
            me,
            chats: HashMap::new(),
            order: Vec::new(),
        }
    }

    /// Notes a chat as it is; an older version than what is known changes nothing.
    pub(crate) fn note(&mut self, chat: Chat) {
        if !self.order.contains(&chat.chat_id) {
            self.order.push(chat.chat_id);
        }
        match self.chats.get_mut(&chat.chat_id) {
            Some(entry) if entry.chat.version > chat.version => {}
            Some(entry) => entry.chat = chat,
            None => {
                self.chats.insert(chat.chat_id, Entry { chat, unread: 0 });
            }
        }
    }

    /// Notes what an update says.
    pub(crate) fn update(&mut self, update: &ChatUpdate) {
        if update.you == You::Removed {
            self.chats.remove(&update.chat_id);
            return;
        }
        self.note(Chat {
            chat_id: update.chat_id,
            kind: update.kind,
            name: update.name.clone(),
            version: update.version,
            participants: update.participants.clone(),
        });
    }

    /// A chat the user is in.
    pub(crate) fn get(&self, chat_id: ChatId) -> Option<&Chat> {
        Some(&self.chats.get(&chat_id)?.chat)
    }

    /// One more message that was not shown in full.
    pub(crate) fn unread(&mut self, chat_id: ChatId) {
        if let Some(entry) = self.chats.get_mut(&chat_id) {
            entry.unread += 1;
        }
    }

    /// All of it is shown.
    pub(crate) fn read(&mut self, chat_id: ChatId) {
        if let Some(entry) = self.chats.get_mut(&chat_id) {
            entry.unread = 0;
        }
    }

    /// What a chat is called: by its name, or by who else is in it.
    pub(crate) fn label(&self, chat_id: ChatId) -> String {
        let Some(chat) = self.get(chat_id) else {
            return "a chat".to_owned();
        };
        if let Some(name) = &chat.name {
            return clean(name);
        }
        let others: Vec<&str> = self.others(chat).map(UserId::as_str).collect();
        match (chat.kind, others.as_slice()) {
            (_, []) => "only you".to_owned(),
            (ChatKind::Direct, _) => others.join(", "),
            (ChatKind::Group, few) if few.len() <= 3 => few.join(", "),
            (ChatKind::Group, many) => {
                format!("{} and {} more", many[..2].join(", "), many.len() - 2)
            }
        }
    }

    /// `2 Lunch`, as it stands in `/list`.
    pub(crate) fn numbered(&self, chat_id: ChatId) -> String {
        match self.order.iter().position(|other| *other == chat_id) {
            Some(index) => format!("{} {}", index + 1, self.label(chat_id)),
            None => self.label(chat_id),
        }
    }

    /// The lines of `/list`; `open` is marked.
    pub(crate) fn lines(&self, open: Option<ChatId>) -> Vec<String> {
        let line = |(index, chat_id): (usize, &ChatId)| {
            let Entry { chat, unread } = self.chats.get(chat_id)?;
            let mark = if open == Some(*chat_id) { '*' } else { ' ' };
            let people = match chat.kind {
                ChatKind::Direct => String::new(),
                ChatKind::Group => format!(" ({} people)", chat.participants.len()),
            };
            let unread = match unread {
                0 => String::new(),
                unread => format!(", {unread} new"),
            };
            Some(format!(
                "{mark}{:>3} {}{people}{unread}",
                index + 1,
                self.label(*chat_id)
            ))
        };
        self.order.iter().enumerate().filter_map(line).collect()
    }

    /// The chat with this number or this name. An error if several have the name.
    pub(crate) fn find(&self, which: &str) -> Result<Option<ChatId>, String> {
        if let Ok(number) = which.parse::<usize>() {
            let found = number.checked_sub(1).and_then(|index| self.order.get(index));
            return match found.filter(|chat_id| self.chats.contains_key(chat_id)) {
                Some(chat_id) => Ok(Some(*chat_id)),
                None => Err(format!("there is no chat {number}; /list shows them")),
            };
        }
        let named = |chat: &Chat| match chat.kind {
            ChatKind::Group => chat.name.as_deref() == Some(which),
            ChatKind::Direct => self.others(chat).any(|user| user.as_str() == which),
        };
        let is_found = |chat_id: &&ChatId| self.get(**chat_id).is_some_and(named);
        let found: Vec<ChatId> = self.order.iter().filter(is_found).copied().collect();
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            several => {
                let several: Vec<String> = several.iter().map(|chat| self.numbered(*chat)).collect();
                let several = several.join(" | ");
                Err(format!(
                    "several chats are called so, /open one by its number: {several}"
                ))
            }
        }
    }

    /// What an update changed, as a sentence.
    pub(crate) fn sentence(&self, update: &ChatUpdate) -> String {
        let name = |user: &UserId| {
            let mine = *user == self.me;
            if mine { "you".to_owned() } else { user.to_string() }
        };
        let names = |users: &[UserId]| users.iter().map(&name).collect::<Vec<_>>().join(", ");
        let by = name(&update.by);
        let mut parts = Vec::new();
        if update.version <= 1 {
            let others: Vec<UserId> = update
                .participants
                .iter()
                .map(|Participant { user_id, .. }| user_id.clone())
                .filter(|user| *user != update.by)
                .collect();
            parts.push(format!("{by} began this chat with {}", names(&others)));
        } else {
            let left = update.removed.contains(&update.by);
            let removed: Vec<UserId> = update
                .removed
                .iter()
                .filter(|user| **user != update.by)
                .cloned()
                .collect();
            if left {
                parts.push(format!("{by} left"));
            }
            if !removed.is_empty() {
                parts.push(format!("{by} removed {}", names(&removed)));
            }
            if !update.added.is_empty() {
                parts.push(format!("{by} added {}", names(&update.added)));
            }
        }
        if parts.is_empty() {
            parts.push(format!("{by} changed this chat"));
        }
        parts.join("; ")
    }

    fn others<'a>(&'a self, chat: &'a Chat) -> impl Iterator<Item = &'a UserId> {
        chat.participants
            .iter()
            .map(|Participant { user_id, .. }| user_id)
            .filter(|user| **user != self.me)
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::{Role, Timestamp};
    use uuid::Uuid;

    use super::*;

    fn user(id: &str) -> UserId {
        UserId::new(id).expect("printable")
    }

    fn chat(number: u128, name: Option<&str>, users: &[&str]) -> Chat {
        let participant = |id: &&str| Participant {
            user_id: user(id),
            role: Role::Member,
        };
        Chat {
            chat_id: ChatId(Uuid::from_u128(number)),
            kind: if users.len() == 2 && name.is_none() {
                ChatKind::Direct
            } else {
                ChatKind::Group
            },
            name: name.map(str::to_owned),
            version: 1,
            participants: users.iter().map(participant).collect(),
        }
    }

    fn book() -> Book {
        let mut book = Book::new(user("alice"));
        book.note(chat(1, None, &["alice", "bob"]));
        book.note(chat(2, Some("Lunch"), &["alice", "bob", "carol"]));
        book.note(chat(3, Some("Lunch"), &["alice", "dave"]));
        book.note(chat(4, None, &["alice", "bob", "carol", "dave", "eve"]));
        book
    }

    #[test]
    fn chats_are_found_by_number_name_and_person() {
        let book = book();
        let found = |which| book.find(which).map(|found| found.map(|chat| chat.0.as_u128()));
        assert_eq!(found("2"), Ok(Some(2)));
        assert_eq!(found("bob"), Ok(Some(1)));
        assert_eq!(found("zoe"), Ok(None));
        assert!(
            found("Lunch")
                .expect_err("two of them")
                .contains("2 Lunch | 3 Lunch")
        );
        assert!(found("9").is_err() && found("0").is_err());
    }

    #[test]
    fn the_list_marks_what_is_open_and_what_is_new() {
        let mut book = book();
        book.unread(ChatId(Uuid::from_u128(1)));
        assert_eq!(
            book.lines(Some(ChatId(Uuid::from_u128(2)))),
            [
                "   1 bob, 1 new",
                "*  2 Lunch (3 people)",
                "   3 Lunch (2 people)",
                "   4 bob, carol and 2 more (5 people)",
            ]
        );
    }

    #[test]
    fn changes_are_told_as_sentences() {
        let update = |version, by: &str, added: &[&str], removed: &[&str]| ChatUpdate {
            delivery: 1,
            chat_id: ChatId(Uuid::from_u128(2)),
            seq: 1,
            version,
            at: Timestamp(0),
            by: user(by),
            kind: ChatKind::Group,
            name: None,
            you: You::Member,
            added: added.iter().map(|id| user(id)).collect(),
            removed: removed.iter().map(|id| user(id)).collect(),
            participants: chat(2, None, &["bob", "alice"]).participants,
        };
        let book = book();
        assert_eq!(
            book.sentence(&update(1, "bob", &[], &[])),
            "bob began this chat with you"
        );
        assert_eq!(book.sentence(&update(2, "bob", &["dave"], &[])), "bob added dave");
        assert_eq!(
            book.sentence(&update(3, "bob", &[], &["alice"])),
            "bob removed you"
        );
        assert_eq!(book.sentence(&update(4, "bob", &[], &["bob"])), "bob left");
    }

    #[test]
    fn an_old_version_changes_nothing_and_a_removal_takes_the_chat_away() {
        let mut book = book();
        let mut newer = chat(2, Some("Dinner"), &["alice", "bob"]);
        newer.version = 3;
        book.note(newer);
        book.note(chat(2, Some("Lunch"), &["alice", "bob", "carol"]));
        assert_eq!(book.label(ChatId(Uuid::from_u128(2))), "Dinner");
    }
}
