//! Writes histories by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidings_protocol::{
    Attachment, AttachmentId, CaughtUp, ChatId, ChatKind, ChatUpdate, ClientFrame, ClientId, CreateChat,
    Error, ErrorCode, Hello, InboxTrimmed, Limits, MessageId, ModifyChatParticipants, NewMessage, Operation,
    Participant, Received, Registration, RemoveClient, Reply, RequestId, Role, SendMessage, ServerFrame,
    Timestamp, TrimReason, UserId, Welcome, You,
};
use uuid::Uuid;

use crate::history::{Event, Fetch, Happening, Moment, Record, RecordedConnection, Run, StoredEntry, What};
use crate::judge::{Kind, Verdict, judge};

/// A history that is being written. Devices are named `user.number`; chats and messages are numbers.
#[derive(Clone, Default)]
pub(super) struct Forge {
    pub(super) run: Run,
    now: u64,
    devices: BTreeMap<String, Device>,
    next_id: u64,
}

#[derive(Clone, Default)]
struct Device {
    connection: Option<Arc<RecordedConnection>>,
    number: u32,
    delivery: u64,
}

/// A request that was sent.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) connection: Arc<RecordedConnection>,
    pub(super) id: u64,
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name.split('.').next().expect("split gives one")).expect("names are short ASCII")
}

pub(super) fn client(device: &str) -> ClientId {
    let number = device
        .bytes()
        .fold(7_u128, |number, byte| number * 257 + u128::from(byte));
    ClientId(Uuid::from_u128(number))
}

pub(super) const fn chat(number: u64) -> ChatId {
    ChatId(Uuid::from_u128(0xc_0000 + number as u128))
}

pub(super) const fn message(number: u64) -> MessageId {
    MessageId(Uuid::from_u128(0x3_0000_0000 + number as u128))
}

pub(super) const fn file(number: u64) -> AttachmentId {
    AttachmentId(Uuid::from_u128(0xf_0000 + number as u128))
}

impl Forge {
    /// Time passes.
    pub(super) fn later(&mut self, milliseconds: u64) {
        self.now += milliseconds * 1000;
    }

    pub(super) fn write(&mut self, connection: &Arc<RecordedConnection>, what: What) {
        self.now += 1000;
        self.run.records.push(Record {
            at: Moment(self.now),
            connection: Arc::clone(connection),
            what,
        });
    }

    pub(super) fn happened(&mut self, happening: Happening) {
        self.now += 1000;
        self.run.events.push(Event {
            at: Moment(self.now),
            happening,
        });
    }

    pub(super) fn connection(&self, device: &str) -> Arc<RecordedConnection> {
        let connection = self
            .devices
            .get(device)
            .and_then(|device| device.connection.clone());
        connection.unwrap_or_else(|| panic!("{device} is not connected"))
    }

    /// The device's last `delivery`.
    pub(super) fn last_delivery(&self, device: &str) -> u64 {
        self.devices[device].delivery
    }

    pub(super) fn sent(&mut self, device: &str, frame: impl Into<ClientFrame>) -> Asked {
        let connection = self.connection(device);
        let frame = frame.into();
        let id = frame.id().unwrap_or_default();
        self.write(&connection, What::Sent(Box::new(frame)));
        Asked { connection, id }
    }

    pub(super) fn got(&mut self, device: &str, frame: impl Into<ServerFrame>) {
        let connection = self.connection(device);
        self.write(&connection, What::Received(Box::new(frame.into())));
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id + 1
    }

    /// A connection with a hello that is not answered yet.
    pub(super) fn hello(&mut self, device: &str, replace: Option<&str>) {
        let known = self.devices.entry(device.to_owned()).or_default();
        known.number += 1;
        known.delivery = 0;
        let connection = Arc::new(RecordedConnection {
            device: device.to_owned(),
            user_id: user(device),
            client_id: client(device),
            number: known.number,
        });
        known.connection = Some(Arc::clone(&connection));
        let url = "ws://forged".to_owned();
        self.write(&connection, What::Opened { url });
        self.sent(
            device,
            Hello {
                id: 1,
                token: None,
                name: None,
                replace: replace.map(client),
            },
        );
    }

    pub(super) fn welcome(&mut self, device: &str, registration: Registration) {
        self.got(
            device,
            Welcome {
                id: 1,
                user_id: user(device),
                client_id: client(device),
                registration,
                server_time: Timestamp(0),
                token_expires_at: Timestamp(0),
                media_url: None,
                backlog: 0,
                limits: Limits::default(),
            },
        );
    }

    pub(super) fn caught_up(&mut self, device: &str) {
        self.got(device, CaughtUp {});
    }

    /// Connects: hello, welcome, caughtUp.
    pub(super) fn connect(&mut self, device: &str, registration: Registration) {
        self.hello(device, None);
        self.welcome(device, registration);
        self.caught_up(device);
    }

    /// A new client, caught up.
    pub(super) fn register(&mut self, device: &str) {
        self.connect(device, Registration::New);
    }

    /// A client that comes back; what it gets follows, then its caughtUp.
    pub(super) fn back(&mut self, device: &str) {
        self.hello(device, None);
        self.welcome(device, Registration::Known);
    }

    pub(super) fn close(&mut self, device: &str) {
        let connection = self.connection(device);
        self.write(
            &connection,
            What::Closed {
                code: 1006,
                reason: String::new(),
                by_client: false,
            },
        );
    }

    pub(super) fn rest(&mut self, device: &str) {
        let connection = self.connection(device);
        self.write(&connection, What::AtRest);
    }

    pub(super) fn send(&mut self, device: &str, chat_id: u64, number: u64) -> Asked {
        self.send_with(device, chat_id, number, &[])
    }

    /// Sends a message that names files.
    pub(super) fn send_with(&mut self, device: &str, chat_id: u64, number: u64, files: &[u64]) -> Asked {
        let id = self.id();
        self.sent(
            device,
            SendMessage {
                id,
                chat_id: chat(chat_id),
                message_id: message(number),
                message: format!("words {number}"),
                attachments: files.iter().map(|number| file(*number)).collect(),
            },
        )
    }

    /// Sends and is answered SUCCESS.
    pub(super) fn say(&mut self, device: &str, chat_id: u64, number: u64, seq: u64) {
        let asked = self.send(device, chat_id, number);
        self.accept(&asked, seq, false);
    }

    pub(super) fn answer(&mut self, asked: &Asked, reply: Reply) {
        self.write(&asked.connection.clone(), What::Received(Box::new(reply.into())));
    }

    pub(super) fn accept(&mut self, asked: &Asked, seq: u64, duplicate: bool) {
        let mut reply = Reply::success(asked.id);
        reply.seq = Some(seq);
        reply.duplicate = duplicate.then_some(true);
        self.answer(asked, reply);
    }

    pub(super) fn refuse(&mut self, asked: &Asked, code: ErrorCode) {
        let error = Error::new(code, "forged");
        self.answer(asked, Reply::failure(Some(asked.id), error));
    }

    pub(super) fn create(&mut self, device: &str, chat_id: u64, others: &[&str], seq: u64) {
        let id = self.id();
        let asked = self.sent(
            device,
            CreateChat {
                id,
                request_id: RequestId(Uuid::from_u128(u128::from(id))),
                participants: others.iter().map(|name| user(name)).collect(),
                name: Some("group".to_owned()),
            },
        );
        let mut reply = Reply::success(asked.id);
        reply.chat_id = Some(chat(chat_id));
        reply.seq = Some(seq);
        reply.created = Some(true);
        self.answer(&asked, reply);
    }

    pub(super) fn modify(&mut self, device: &str, chat_id: u64, whom: &str, operation: Operation) -> Asked {
        let id = self.id();
        self.sent(
            device,
            ModifyChatParticipants {
                id,
                request_id: RequestId(Uuid::from_u128(u128::from(id))),
                chat_id: chat(chat_id),
                user_id: user(whom),
                operation,
            },
        )
    }

    pub(super) fn changed(&mut self, asked: &Asked, seq: u64) {
        let mut reply = Reply::success(asked.id);
        reply.seq = Some(seq);
        reply.changed = Some(true);
        self.answer(asked, reply);
    }

    pub(super) fn remove(&mut self, device: &str, target: &str) -> Asked {
        let id = self.id();
        self.sent(
            device,
            RemoveClient {
                id,
                client_id: client(target),
            },
        )
    }

    pub(super) fn next_delivery(&mut self, device: &str) -> u64 {
        let known = self.devices.get_mut(device).expect("it has connected");
        known.delivery += 1;
        known.delivery
    }

    /// A message comes to a device.
    pub(super) fn deliver(&mut self, device: &str, chat_id: u64, seq: u64, from: &str, number: u64) {
        self.deliver_with(device, chat_id, seq, from, number, &[]);
    }

    /// A message that names files comes to a device.
    pub(super) fn deliver_with(
        &mut self,
        device: &str,
        chat_id: u64,
        seq: u64,
        from: &str,
        number: u64,
        files: &[u64],
    ) {
        let attachment = |number: &u64| Attachment {
            attachment_id: file(*number),
            size: 1,
            content_type: "text/plain".to_owned(),
            hash: String::new(),
            name: None,
        };
        let delivery = self.next_delivery(device);
        self.got(
            device,
            NewMessage {
                delivery,
                chat_id: chat(chat_id),
                seq,
                message_id: message(number),
                user_id: user(from),
                client_id: client(from),
                sent_at: Timestamp(0),
                message: format!("words {number}"),
                attachments: files.iter().map(attachment).collect(),
            },
        );
    }

    /// A device has asked for a file.
    pub(super) fn fetched(&mut self, device: &str, number: u64, outcome: Fetch) {
        let connection = self.connection(device);
        self.write(
            &connection,
            What::Fetched {
                attachment_id: file(number),
                outcome,
            },
        );
    }

    /// A change of participants comes to a device. `change` is a list of `+name` and `-name`.
    pub(super) fn update(
        &mut self,
        device: &str,
        chat_id: u64,
        (seq, version): (u64, u64),
        by: &str,
        change: &[&str],
        participants: &[&str],
    ) {
        let delivery = self.next_delivery(device);
        let named = |sign| {
            change
                .iter()
                .filter_map(|change| change.strip_prefix(sign).map(user))
                .collect::<Vec<_>>()
        };
        let (added, removed) = (named('+'), named('-'));
        let me = user(device);
        let is_in: BTreeSet<UserId> = participants.iter().map(|name| user(name)).collect();
        let admin = participants.first().map(|name| user(name));
        let you = if !is_in.contains(&me) {
            You::Removed
        } else if added.contains(&me) {
            You::Added
        } else if admin.as_ref() == Some(&me) {
            You::Admin
        } else {
            You::Member
        };
        let role = |name: &str| {
            if admin.as_ref() == Some(&user(name)) {
                Role::Admin
            } else {
                Role::Member
            }
        };
        self.got(
            device,
            ChatUpdate {
                delivery,
                chat_id: chat(chat_id),
                seq,
                version,
                at: Timestamp(0),
                by: user(by),
                kind: ChatKind::Group,
                name: Some("group".to_owned()),
                you,
                added,
                removed,
                participants: participants
                    .iter()
                    .map(|name| Participant {
                        user_id: user(name),
                        role: role(name),
                    })
                    .collect(),
            },
        );
    }

    pub(super) fn trimmed(&mut self, device: &str, chats: &[u64]) {
        let delivery = self.next_delivery(device);
        self.got(
            device,
            InboxTrimmed {
                delivery,
                reason: TrimReason::Full,
                missed: None,
                since: Timestamp(-1),
                until: Timestamp(1),
                chats: chats.iter().map(|number| chat(*number)).collect(),
            },
        );
    }

    /// Confirms everything.
    pub(super) fn confirm(&mut self, device: &str) {
        let last = self.last_delivery(device);
        self.sent(
            device,
            Received {
                delivery: None,
                through: Some(last),
            },
        );
    }

    /// Confirms one.
    pub(super) fn confirm_one(&mut self, device: &str, delivery: u64) {
        self.sent(
            device,
            Received {
                delivery: Some(delivery),
                through: None,
            },
        );
    }

    pub(super) fn stored(&mut self, device: &str, chat_id: u64, seq: u64) {
        self.run.stored.get_or_insert_default().push(StoredEntry {
            user_id: user(device),
            client_id: Some(client(device)),
            sequence: 1000 + seq,
            chat_id: chat(chat_id),
            seq,
        });
    }

    pub(super) fn judge(&self) -> Verdict {
        judge(&self.run)
    }
}

/// alice.1, bob.1 and bob.2 are registered, and alice has made chat 1 with bob at seq 1, which everybody has confirmed.
pub(super) fn alice_and_bob() -> Forge {
    let mut forge = Forge::default();
    for device in ["alice.1", "bob.1", "bob.2"] {
        forge.register(device);
    }
    forge.create("alice.1", 1, &["bob"], 1);
    for device in ["alice.1", "bob.1", "bob.2"] {
        forge.update(device, 1, (1, 1), "alice", &["+alice", "+bob"], &["alice", "bob"]);
        forge.confirm(device);
    }
    forge
}

/// Everybody comes to rest.
pub(super) fn finish(mut forge: Forge, devices: &[&str]) -> Forge {
    for device in devices {
        forge.rest(device);
    }
    forge
}

/// The verdict is exactly these kinds.
pub(super) fn expect(forge: &Forge, kinds: &[Kind]) {
    let verdict = forge.judge();
    let found: Vec<Kind> = verdict.counts.keys().copied().collect();
    let mut wanted = kinds.to_vec();
    wanted.sort_unstable();
    assert_eq!(found, wanted, "{verdict}");
    for violation in &verdict.violations {
        assert!(violation.story.len() <= 15, "{verdict}");
    }
}
