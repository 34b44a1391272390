//! What clients and servers of Tidings say to each other: frames, their two codecs, ids, limits, error and
//! close codes. No I/O.
//!
//! The contract in words, with examples, is `docs/PROTOCOL.md`; this crate is what it is written from.

mod absent;
mod client_frame;
mod close;
mod codec;
mod content_hash;
mod error;
mod frames;
mod id;
mod limits;
mod server_frame;
mod shared_message;
mod timestamp;
mod user_id;
mod validate;

pub use client_frame::{
    ClientFrame, CreateAttachment, CreateChat, GetChat, Hello, ListChats, ListClients,
    ModifyChatParticipants, Operation, Ping, Received, RemoveClient, RenewToken, SendMessage,
};
pub use close::CloseCode;
pub use codec::{Codec, EncodedFrame};
pub use content_hash::{ContentHash, InvalidContentHash};
pub use error::{Error, ErrorCode, FrameError};
pub use id::{AttachmentId, ChatId, ClientId, InvalidId, MessageId, RequestId};
pub use limits::{
    ATTACHMENTS_MAX, CLIENTS_MAX, CONTENT_TYPE_BYTES_MAX, FRAME_BYTES_MAX, INBOX_ENTRIES_MAX, Limits,
    MESSAGE_BYTES_MAX, NAME_CHARS_MAX, NUMBER_MAX, PARTICIPANTS_MAX, PING_SECONDS, RETENTION_DAYS,
    RETRY_WINDOW_SECONDS, USER_ID_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_MAX,
};
pub use server_frame::{
    Attachment, CaughtUp, Chat, ChatKind, ChatUpdate, ClientInfo, Closing, InboxTrimmed, NewMessage, Notice,
    NoticeCode, Participant, Registration, Reply, Role, ServerFrame, Status, TokenExpiring, TrimReason,
    Welcome, You,
};
pub use shared_message::SharedMessage;
pub use timestamp::Timestamp;
pub use user_id::{InvalidUserId, UserId};
pub use validate::{check_content_type, check_name};
