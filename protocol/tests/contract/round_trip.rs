//! Whatever is said is heard: encoding and decoding any frame gives the same frame, and no bytes make the
//! decoder panic.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tidings_protocol::{
    Attachment, AttachmentId, CaughtUp, Chat, ChatId, ChatKind, ChatUpdate, ClientFrame, ClientId,
    ClientInfo, Closing, Codec, CreateAttachment, CreateChat, EncodedFrame, Error, ErrorCode, GetChat, Hello,
    InboxTrimmed, Limits, ListChats, ListClients, MessageId, ModifyChatParticipants, NUMBER_MAX, NewMessage,
    Notice, NoticeCode, Operation, Participant, Ping, Received, Registration, RemoveClient, RenewToken,
    Reply, RequestId, Role, SendMessage, ServerFrame, SharedMessage, Status, Timestamp, TokenExpiring,
    TrimReason, UserId, Welcome, You,
};
use uuid::Uuid;

use crate::frames::{client_frames, server_frames};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, 0..=NUMBER_MAX]
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn chat_id() -> impl Strategy<Value = ChatId> {
    uuid().prop_map(ChatId)
}

fn client_id() -> impl Strategy<Value = ClientId> {
    uuid().prop_map(ClientId)
}

fn request_id() -> impl Strategy<Value = RequestId> {
    uuid().prop_map(RequestId)
}

fn message_id() -> impl Strategy<Value = MessageId> {
    uuid().prop_map(MessageId)
}

fn attachment_id() -> impl Strategy<Value = AttachmentId> {
    uuid().prop_map(AttachmentId)
}

/// Years 0 to 9999; JSON can write no others.
fn moment() -> impl Strategy<Value = Timestamp> {
    (-62_167_219_200_000..=253_402_300_799_999_i64).prop_map(Timestamp)
}

fn user() -> impl Strategy<Value = UserId> {
    vec(0x20..=0x7e_u8, 1..=128).prop_map(|bytes| {
        let text = String::from_utf8(bytes).expect("ASCII");
        text.parse().expect("1 to 128 printable ASCII characters")
    })
}

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn client_frame() -> impl Strategy<Value = ClientFrame> {
    prop_oneof![
        (
            number(),
            option::of(text()),
            option::of(text()),
            option::of(client_id())
        )
            .prop_map(|(id, token, name, replace)| Hello {
                id,
                token,
                name,
                replace
            }
            .into()),
        (number(), request_id(), vec(user(), 0..5), option::of(text())).prop_map(
            |(id, request_id, participants, name)| CreateChat {
                id,
                request_id,
                participants,
                name
            }
            .into()
        ),
        (
            number(),
            chat_id(),
            message_id(),
            text(),
            vec(attachment_id(), 0..3)
        )
            .prop_map(|(id, chat_id, message_id, message, attachments)| SendMessage {
                id,
                chat_id,
                message_id,
                message,
                attachments
            }
            .into()),
        (
            number(),
            request_id(),
            chat_id(),
            user(),
            prop_oneof![Just(Operation::Add), Just(Operation::Remove)]
        )
            .prop_map(|(id, request_id, chat_id, user_id, operation)| {
                ModifyChatParticipants {
                    id,
                    request_id,
                    chat_id,
                    user_id,
                    operation,
                }
                .into()
            }),
        (number(), text(), number(), text(), option::of(text())).prop_map(
            |(id, hash, size, content_type, name)| CreateAttachment {
                id,
                hash,
                size,
                content_type,
                name
            }
            .into()
        ),
        (number(), option::of(chat_id()), option::of(any::<u32>()))
            .prop_map(|(id, after, limit)| ListChats { id, after, limit }.into()),
        (number(), chat_id()).prop_map(|(id, chat_id)| GetChat { id, chat_id }.into()),
        number().prop_map(|id| ListClients { id }.into()),
        (number(), client_id()).prop_map(|(id, client_id)| RemoveClient { id, client_id }.into()),
        (number(), text()).prop_map(|(id, token)| RenewToken { id, token }.into()),
        number().prop_map(|id| Ping { id }.into()),
        (option::of(number()), option::of(number())).prop_map(|(delivery, through)| Received {
            delivery,
            through
        }
        .into()),
    ]
}

fn kind() -> impl Strategy<Value = ChatKind> {
    prop_oneof![Just(ChatKind::Direct), Just(ChatKind::Group)]
}

fn participant() -> impl Strategy<Value = Participant> {
    (user(), prop_oneof![Just(Role::Admin), Just(Role::Member)])
        .prop_map(|(user_id, role)| Participant { user_id, role })
}

fn chat() -> impl Strategy<Value = Chat> {
    (
        chat_id(),
        kind(),
        option::of(text()),
        number(),
        vec(participant(), 0..4),
    )
        .prop_map(|(chat_id, kind, name, version, participants)| Chat {
            chat_id,
            kind,
            name,
            version,
            participants,
        })
}

fn client_info() -> impl Strategy<Value = ClientInfo> {
    (client_id(), option::of(text()), moment(), any::<bool>()).prop_map(
        |(client_id, name, last_seen, online)| ClientInfo {
            client_id,
            name,
            last_seen,
            online,
        },
    )
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![
        proptest::sample::select(ErrorCode::ALL),
        text().prop_map(|text| ErrorCode::from_text(&text)),
    ]
}

fn error() -> impl Strategy<Value = Error> {
    (
        code(),
        text(),
        option::of(text()),
        any::<bool>(),
        option::of(number()),
        option::of(vec(client_info(), 0..3)),
    )
        .prop_map(
            |(code, message, field, retryable, retry_after_ms, clients)| Error {
                code,
                message,
                field,
                retryable,
                retry_after_ms,
                clients,
            },
        )
}

/// Any mixture of fields, also those that no answer has together.
fn reply() -> impl Strategy<Value = Reply> {
    let head = (
        option::of(number()),
        prop_oneof![Just(Status::Success), Just(Status::Failure)],
        option::of(error()),
        option::of(chat_id()),
        option::of(number()),
        option::of(any::<bool>()),
        option::of(moment()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    let tail = (
        option::of(attachment_id()),
        option::of(text()),
        option::of(any::<bool>()),
        option::of(vec(chat(), 0..3)),
        option::of(option::of(chat_id())),
        option::of(chat()),
        option::of(vec(client_info(), 0..3)),
        (
            option::of(moment()),
            option::of(moment()),
            option::of(vec(user(), 0..3)),
        ),
    );
    (head, tail).prop_map(|(head, tail)| {
        let (id, status, error, chat_id, seq, created, sent_at, duplicate, changed) = head;
        let (attachment_id, upload_url, uploaded, chats, next, chat, clients, last) = tail;
        let (token_expires_at, server_time, not_yet_connected) = last;
        Reply {
            id,
            status,
            error,
            chat_id,
            seq,
            created,
            sent_at,
            duplicate,
            changed,
            attachment_id,
            upload_url,
            uploaded,
            chats,
            next,
            chat,
            clients,
            token_expires_at,
            server_time,
            not_yet_connected,
        }
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    (
        number(),
        user(),
        client_id(),
        proptest::sample::select(&[Registration::Known, Registration::New, Registration::Reactivated][..]),
        moment(),
        moment(),
        option::of(text()),
        number(),
        number(),
    )
        .prop_map(
            |(
                id,
                user_id,
                client_id,
                registration,
                server_time,
                token_expires_at,
                media_url,
                backlog,
                window,
            )| {
                Welcome {
                    id,
                    user_id,
                    client_id,
                    registration,
                    server_time,
                    token_expires_at,
                    media_url,
                    backlog,
                    limits: Limits {
                        window,
                        ..Limits::default()
                    },
                }
            },
        )
}

fn file() -> impl Strategy<Value = Attachment> {
    (attachment_id(), number(), text(), text(), option::of(text())).prop_map(
        |(attachment_id, size, content_type, hash, name)| Attachment {
            attachment_id,
            size,
            content_type,
            hash,
            name,
        },
    )
}

fn new_message() -> impl Strategy<Value = NewMessage> {
    (
        number(),
        chat_id(),
        number(),
        message_id(),
        user(),
        client_id(),
        moment(),
        text(),
        vec(file(), 0..3),
    )
        .prop_map(
            |(delivery, chat_id, seq, message_id, user_id, client_id, sent_at, message, attachments)| {
                NewMessage {
                    delivery,
                    chat_id,
                    seq,
                    message_id,
                    user_id,
                    client_id,
                    sent_at,
                    message,
                    attachments,
                }
            },
        )
}

fn chat_update() -> impl Strategy<Value = ChatUpdate> {
    (
        (number(), chat(), number(), moment(), user()),
        proptest::sample::select(&[You::Added, You::Removed, You::Member, You::Admin][..]),
        vec(user(), 0..3),
        vec(user(), 0..3),
    )
        .prop_map(
            |((delivery, chat, seq, at, by), you, added, removed)| ChatUpdate {
                delivery,
                chat_id: chat.chat_id,
                seq,
                version: chat.version,
                at,
                by,
                kind: chat.kind,
                name: chat.name,
                you,
                added,
                removed,
                participants: chat.participants,
            },
        )
}

fn inbox_trimmed() -> impl Strategy<Value = InboxTrimmed> {
    (
        number(),
        proptest::sample::select(&[TrimReason::Full, TrimReason::Expired, TrimReason::Inactive][..]),
        option::of(number()),
        moment(),
        moment(),
        vec(chat_id(), 0..4),
    )
        .prop_map(|(delivery, reason, missed, since, until, chats)| InboxTrimmed {
            delivery,
            reason,
            missed,
            since,
            until,
            chats,
        })
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        welcome().prop_map(Into::into),
        reply().prop_map(Into::into),
        new_message().prop_map(Into::into),
        chat_update().prop_map(Into::into),
        inbox_trimmed().prop_map(Into::into),
        Just(CaughtUp {}.into()),
        (
            prop_oneof![Just(NoticeCode::UnknownDelivery), Just(NoticeCode::WindowFull)],
            option::of(number())
        )
            .prop_map(|(code, delivery)| Notice { code, delivery }.into()),
        moment().prop_map(|expires_at| TokenExpiring { expires_at }.into()),
        (code(), any::<bool>(), option::of(number())).prop_map(|(code, reconnect, retry_after_ms)| {
            Closing {
                code,
                reconnect,
                retry_after_ms,
            }
            .into()
        }),
    ]
}

fn bytes(frame: &EncodedFrame) -> &[u8] {
    match frame {
        EncodedFrame::Text(text) => text.as_bytes(),
        EncodedFrame::Binary(bytes) => bytes,
    }
}

proptest! {
    #[test]
    fn what_a_client_says_is_heard(frame in client_frame()) {
        for codec in Codec::ALL {
            let encoded = codec.encode_client(&frame);
            prop_assert_eq!(codec.decode_client(bytes(&encoded)), Ok(frame.clone()));
        }
    }

    #[test]
    fn what_a_server_says_is_heard(frame in server_frame()) {
        for codec in Codec::ALL {
            let encoded = codec.encode_server(&frame);
            prop_assert_eq!(codec.decode_server(bytes(&encoded)), Ok(frame.clone()));
        }
    }

    #[test]
    fn a_shared_message_is_what_each_would_be_sent_alone(message in new_message(), delivery in any::<u64>()) {
        for codec in Codec::ALL {
            let shared = SharedMessage::new(codec, message.clone());
            for delivery in [delivery, delivery % 300, 0] {
                let alone = codec.encode_server(&NewMessage { delivery, ..message.clone() }.into());
                prop_assert_eq!(shared.frame(delivery), alone);
            }
        }
    }

    #[test]
    fn the_codecs_take_turns_on_one_thread(frames in vec(server_frame(), 1..4)) {
        // JSON leaves out empty fields by a flag of the thread; it must never reach postcard.
        let alone: Vec<_> = frames.iter().map(|frame| Codec::Postcard.encode_server(frame)).collect();
        let between: Vec<_> = frames
            .iter()
            .map(|frame| {
                let _ = Codec::Json.encode_server(frame);
                Codec::Postcard.encode_server(frame)
            })
            .collect();
        prop_assert_eq!(alone, between);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        for codec in Codec::ALL {
            let _ = codec.decode_client(&bytes);
            let _ = codec.decode_server(&bytes);
            let _ = codec.delivery_of_unknown(&bytes);
        }
    }

    #[test]
    fn no_damaged_frame_makes_the_decoder_panic(
        sample in 0..1000_usize,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let (clients, servers) = (client_frames(), server_frames());
        for codec in Codec::ALL {
            let encoded = [
                codec.encode_client(&clients[sample % clients.len()].1),
                codec.encode_server(&servers[sample % servers.len()].1),
            ];
            for frame in encoded {
                let mut damaged = bytes(&frame).to_vec();
                let position = at.index(damaged.len());
                damaged[position] = byte;
                for bytes in [&damaged[..], &damaged[..keep.index(damaged.len())]] {
                    let _ = codec.decode_server(bytes);
                    if let Ok(frame) = codec.decode_client(bytes) {
                        // What was taken can be answered for: it validates or names a field.
                        let _ = frame.validate();
                        let _ = codec.encode_client(&frame);
                    }
                }
            }
        }
    }
}

#[test]
fn half_a_frame_is_never_taken() {
    // Postcard could be misled only where a field's end is open, and no field's is.
    for (name, frame) in client_frames() {
        for codec in Codec::ALL {
            let encoded = codec.encode_client(&frame);
            let whole = bytes(&encoded);
            for end in 0..whole.len() {
                assert!(codec.decode_client(&whole[..end]).is_err(), "{name}, {end} bytes");
            }
        }
    }
}
