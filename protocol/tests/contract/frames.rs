//! Frames of every type, full ones and minimal ones, for the other tests.

use tidings_protocol::{
    Attachment, AttachmentId, CaughtUp, Chat, ChatId, ChatKind, ChatUpdate, ClientFrame, ClientId,
    ClientInfo, Closing, CreateAttachment, CreateChat, Error, ErrorCode, GetChat, Hello, InboxTrimmed,
    Limits, ListChats, ListClients, MessageId, ModifyChatParticipants, NewMessage, Notice, NoticeCode,
    Operation, Participant, Ping, Received, Registration, RemoveClient, RenewToken, Reply, RequestId, Role,
    SendMessage, ServerFrame, Status, Timestamp, TokenExpiring, TrimReason, UserId, Welcome, You,
};
use uuid::Uuid;

/// 2026-11-25T03:33:49.123Z.
pub(crate) const WHEN: Timestamp = Timestamp(1_795_577_629_123);

pub(crate) const fn chat() -> ChatId {
    ChatId(Uuid::from_u128(0x0199_c0de_0000_7000_8000_0000_0000_000c))
}

pub(crate) const fn client() -> ClientId {
    ClientId(Uuid::from_u128(0x0199_c0de_0000_7000_8000_0000_0000_00d1))
}

pub(crate) const fn message() -> MessageId {
    MessageId(Uuid::from_u128(0x0199_c0de_0000_7000_8000_0000_0000_0123))
}

pub(crate) const fn request() -> RequestId {
    RequestId(Uuid::from_u128(0x0199_c0de_0000_7000_8000_0000_0000_0042))
}

pub(crate) const fn attachment() -> AttachmentId {
    AttachmentId(Uuid::from_u128(0x0199_c0de_0000_4000_8000_0000_0000_00af))
}

pub(crate) fn user(name: &str) -> UserId {
    name.parse().expect("a user id of the tests")
}

fn file() -> Attachment {
    Attachment {
        attachment_id: attachment(),
        size: 300,
        content_type: "image/png".into(),
        hash: "ab".repeat(32),
        name: Some("cat.png".into()),
    }
}

fn participants() -> Vec<Participant> {
    vec![
        Participant {
            user_id: user("alice"),
            role: Role::Admin,
        },
        Participant {
            user_id: user("bob"),
            role: Role::Member,
        },
    ]
}

fn group() -> Chat {
    Chat {
        chat_id: chat(),
        kind: ChatKind::Group,
        name: Some("Lunch".into()),
        version: 7,
        participants: participants(),
    }
}

fn phone() -> ClientInfo {
    ClientInfo {
        client_id: client(),
        name: Some("Pixel".into()),
        last_seen: WHEN,
        online: false,
    }
}

/// Every type that a client says, with and without its optional fields.
#[expect(clippy::too_many_lines, reason = "a list")]
pub(crate) fn client_frames() -> Vec<(&'static str, ClientFrame)> {
    vec![
        (
            "hello, full",
            Hello {
                id: 1,
                token: Some("e.y.J".into()),
                name: Some("Pixel".into()),
                replace: Some(client()),
            }
            .into(),
        ),
        (
            "hello, minimal",
            Hello {
                id: 1,
                token: None,
                name: None,
                replace: None,
            }
            .into(),
        ),
        (
            "createChat, group",
            CreateChat {
                id: 2,
                request_id: request(),
                participants: vec![user("bob"), user("carol")],
                name: Some("Lunch".into()),
            }
            .into(),
        ),
        (
            "createChat, direct",
            CreateChat {
                id: 2,
                request_id: request(),
                participants: vec![user("bob")],
                name: None,
            }
            .into(),
        ),
        (
            "sendMessage, with a file",
            SendMessage {
                id: 300,
                chat_id: chat(),
                message_id: message(),
                message: "zoë".into(),
                attachments: vec![attachment()],
            }
            .into(),
        ),
        (
            "sendMessage",
            SendMessage {
                id: 3,
                chat_id: chat(),
                message_id: message(),
                message: "hi".into(),
                attachments: vec![],
            }
            .into(),
        ),
        (
            "modifyChatParticipants, ADD",
            ModifyChatParticipants {
                id: 4,
                request_id: request(),
                chat_id: chat(),
                user_id: user("dave"),
                operation: Operation::Add,
            }
            .into(),
        ),
        (
            "modifyChatParticipants, REMOVE",
            ModifyChatParticipants {
                id: 4,
                request_id: request(),
                chat_id: chat(),
                user_id: user("dave"),
                operation: Operation::Remove,
            }
            .into(),
        ),
        (
            "createAttachment",
            CreateAttachment {
                id: 5,
                hash: "ab".repeat(32),
                size: 300,
                content_type: "image/png".into(),
                name: Some("cat.png".into()),
            }
            .into(),
        ),
        (
            "listChats, next page",
            ListChats {
                id: 6,
                after: Some(chat()),
                limit: Some(100),
            }
            .into(),
        ),
        (
            "listChats",
            ListChats {
                id: 6,
                after: None,
                limit: None,
            }
            .into(),
        ),
        (
            "getChat",
            GetChat {
                id: 7,
                chat_id: chat(),
            }
            .into(),
        ),
        ("listClients", ListClients { id: 8 }.into()),
        (
            "removeClient",
            RemoveClient {
                id: 9,
                client_id: client(),
            }
            .into(),
        ),
        (
            "renewToken",
            RenewToken {
                id: 10,
                token: "e.y.J".into(),
            }
            .into(),
        ),
        ("ping", Ping { id: 11 }.into()),
        (
            "received, one",
            Received {
                delivery: Some(3),
                through: None,
            }
            .into(),
        ),
        (
            "received, through",
            Received {
                delivery: None,
                through: Some(300),
            }
            .into(),
        ),
    ]
}

/// Every type that a server says, and every answer to a request.
pub(crate) fn server_frames() -> Vec<(&'static str, ServerFrame)> {
    let mut frames = vec![(
        "welcome",
        Welcome {
            id: 1,
            user_id: user("alice"),
            client_id: client(),
            registration: Registration::New,
            server_time: WHEN,
            token_expires_at: WHEN,
            media_url: Some("https://m.example/".into()),
            backlog: 12,
            limits: Limits::default(),
        }
        .into(),
    )];
    frames.extend(replies().into_iter().map(|(name, reply)| (name, reply.into())));
    frames.extend(pushes());
    frames
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn replies() -> Vec<(&'static str, Reply)> {
    vec![
        ("reply, nothing else", Reply::success(9)),
        (
            "reply, failure without id",
            Reply::failure(
                None,
                Error::bad_request("participants[3]", "not a user id").retry_after_ms(250),
            ),
        ),
        (
            "reply, too many clients",
            Reply::failure(
                Some(1),
                Error {
                    clients: Some(vec![phone()]),
                    ..Error::new(ErrorCode::TooManyClients, "three already")
                },
            ),
        ),
        (
            "reply to createChat",
            Reply {
                chat_id: Some(chat()),
                seq: Some(40),
                created: Some(true),
                ..Reply::success(2)
            },
        ),
        (
            "reply to sendMessage",
            Reply {
                seq: Some(41),
                sent_at: Some(WHEN),
                duplicate: Some(true),
                ..Reply::success(3)
            },
        ),
        (
            "reply to modifyChatParticipants",
            Reply {
                seq: Some(42),
                changed: Some(false),
                ..Reply::success(4)
            },
        ),
        (
            "reply to createAttachment",
            Reply {
                attachment_id: Some(attachment()),
                upload_url: Some("https://m.example/u".into()),
                uploaded: Some(false),
                ..Reply::success(5)
            },
        ),
        (
            "reply to listChats, last page",
            Reply {
                chats: Some(vec![group()]),
                next: Some(None),
                ..Reply::success(6)
            },
        ),
        (
            "reply to listChats, more",
            Reply {
                chats: Some(vec![]),
                next: Some(Some(chat())),
                ..Reply::success(6)
            },
        ),
        (
            "reply to getChat",
            Reply {
                chat: Some(Chat {
                    kind: ChatKind::Direct,
                    name: None,
                    ..group()
                }),
                not_yet_connected: Some(vec![user("bob")]),
                ..Reply::success(7)
            },
        ),
        (
            "reply to listClients",
            Reply {
                clients: Some(vec![ClientInfo {
                    name: None,
                    online: true,
                    ..phone()
                }]),
                ..Reply::success(8)
            },
        ),
        (
            "reply to renewToken",
            Reply {
                token_expires_at: Some(WHEN),
                ..Reply::success(10)
            },
        ),
        (
            "reply to ping",
            Reply {
                status: Status::Success,
                server_time: Some(WHEN),
                ..Reply::success(11)
            },
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a list")]
fn pushes() -> Vec<(&'static str, ServerFrame)> {
    vec![
        (
            "newMessage, with a file",
            NewMessage {
                delivery: 1,
                chat_id: chat(),
                seq: 41,
                message_id: message(),
                user_id: user("alice"),
                client_id: client(),
                sent_at: WHEN,
                message: "hi".into(),
                attachments: vec![file()],
            }
            .into(),
        ),
        (
            "newMessage",
            NewMessage {
                delivery: 300,
                chat_id: chat(),
                seq: 70_000,
                message_id: message(),
                user_id: user("alice"),
                client_id: client(),
                sent_at: WHEN,
                message: "zoë \"q\"".into(),
                attachments: vec![],
            }
            .into(),
        ),
        (
            "chatUpdate, group",
            ChatUpdate {
                delivery: 2,
                chat_id: chat(),
                seq: 42,
                version: 8,
                at: WHEN,
                by: user("alice"),
                kind: ChatKind::Group,
                name: Some("Lunch".into()),
                you: You::Member,
                added: vec![user("dave")],
                removed: vec![],
                participants: participants(),
            }
            .into(),
        ),
        (
            "chatUpdate, removed",
            ChatUpdate {
                delivery: 3,
                chat_id: chat(),
                seq: 43,
                version: 9,
                at: WHEN,
                by: user("alice"),
                kind: ChatKind::Group,
                name: None,
                you: You::Removed,
                added: vec![],
                removed: vec![user("bob")],
                participants: vec![],
            }
            .into(),
        ),
        (
            "inboxTrimmed",
            InboxTrimmed {
                delivery: 3,
                reason: TrimReason::Full,
                missed: Some(118),
                since: WHEN,
                until: WHEN,
                chats: vec![chat()],
            }
            .into(),
        ),
        (
            "inboxTrimmed, about nobody knows how many",
            InboxTrimmed {
                delivery: 3,
                reason: TrimReason::Inactive,
                missed: None,
                since: WHEN,
                until: WHEN,
                chats: vec![],
            }
            .into(),
        ),
        ("caughtUp", CaughtUp {}.into()),
        (
            "notice, unknown delivery",
            Notice {
                code: NoticeCode::UnknownDelivery,
                delivery: Some(9),
            }
            .into(),
        ),
        (
            "notice, window full",
            Notice {
                code: NoticeCode::WindowFull,
                delivery: None,
            }
            .into(),
        ),
        ("tokenExpiring", TokenExpiring { expires_at: WHEN }.into()),
        (
            "closing, come back",
            Closing {
                code: ErrorCode::Unavailable,
                reconnect: true,
                retry_after_ms: Some(1200),
            }
            .into(),
        ),
        (
            "closing, for good",
            Closing {
                code: ErrorCode::ClientRemoved,
                reconnect: false,
                retry_after_ms: None,
            }
            .into(),
        ),
    ]
}

#[test]
fn every_type_has_a_sample() {
    for kind in ClientFrame::KINDS {
        assert!(
            client_frames().iter().any(|(_, frame)| frame.kind() == *kind),
            "{kind}"
        );
    }
    for kind in ServerFrame::KINDS {
        assert!(
            server_frames().iter().any(|(_, frame)| frame.kind() == *kind),
            "{kind}"
        );
    }
}
