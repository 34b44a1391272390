//! What a server says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::absent;
use crate::error::{Error, ErrorCode};
use crate::frames::frames;
use crate::id::{AttachmentId, ChatId, ClientId, MessageId};
use crate::limits::Limits;
use crate::timestamp::Timestamp;
use crate::user_id::UserId;

frames! {
    /// A frame from a server. The numbers are the variants' numbers in postcard and never change.
    pub enum ServerFrame {
        0 Welcome(Welcome) = "welcome",
        1 Reply(Reply) = "reply",
        2 NewMessage(NewMessage) = "newMessage",
        3 ChatUpdate(ChatUpdate) = "chatUpdate",
        4 InboxTrimmed(InboxTrimmed) = "inboxTrimmed",
        5 CaughtUp(CaughtUp) = "caughtUp",
        6 Notice(Notice) = "notice",
        7 TokenExpiring(TokenExpiring) = "tokenExpiring",
        8 Closing(Closing) = "closing",
    }
}

/// How the server knew the client.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Registration {
    /// It has been here before.
    Known,
    /// It is registered with this hello.
    New,
    /// It had been away for over 30 days, its inbox was emptied, and it is registered again.
    Reactivated,
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The hello's number.
    pub id: u64,
    /// Who the token says this is.
    pub user_id: UserId,
    /// Which client the token says this is.
    pub client_id: ClientId,
    /// How the server knew it.
    pub registration: Registration,
    /// The server's clock.
    pub server_time: Timestamp,
    /// When the token expires.
    pub token_expires_at: Timestamp,
    /// Where attachments go.
    #[serde(skip_serializing_if = "absent::none")]
    pub media_url: Option<String>,
    /// About how many entries wait.
    pub backlog: u64,
    /// What this server allows.
    pub limits: Limits,
}

/// Done or not.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Status {
    /// Done, and durable.
    #[serde(rename = "SUCCESS")]
    Success,
    /// `error` says why.
    #[serde(rename = "FAILURE")]
    Failure,
}

/// The answer to a request; which optional fields it has depends on the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reply {
    /// The request's number; null where none could be read.
    pub id: Option<u64>,
    /// Done or not.
    pub status: Status,
    /// Why not.
    #[serde(skip_serializing_if = "absent::none")]
    pub error: Option<Error>,
    /// `createChat`: which chat.
    #[serde(skip_serializing_if = "absent::none")]
    pub chat_id: Option<ChatId>,
    /// `createChat`, `sendMessage`, `modifyChatParticipants`: the event's place within the chat.
    #[serde(skip_serializing_if = "absent::none")]
    pub seq: Option<u64>,
    /// `createChat`: whether this request made it.
    #[serde(skip_serializing_if = "absent::none")]
    pub created: Option<bool>,
    /// `sendMessage`: when the server accepted it.
    #[serde(skip_serializing_if = "absent::none")]
    pub sent_at: Option<Timestamp>,
    /// `sendMessage`: this `messageId` had been accepted before.
    #[serde(skip_serializing_if = "absent::none")]
    pub duplicate: Option<bool>,
    /// `modifyChatParticipants`: whether there was something to do.
    #[serde(skip_serializing_if = "absent::none")]
    pub changed: Option<bool>,
    /// `createAttachment`: its id.
    #[serde(skip_serializing_if = "absent::none")]
    pub attachment_id: Option<AttachmentId>,
    /// `createAttachment`: where to PUT the bytes.
    #[serde(skip_serializing_if = "absent::none")]
    pub upload_url: Option<String>,
    /// `createAttachment`: whether the bytes are there already.
    #[serde(skip_serializing_if = "absent::none")]
    pub uploaded: Option<bool>,
    /// `listChats`: a page.
    #[serde(skip_serializing_if = "absent::none")]
    pub chats: Option<Vec<Chat>>,
    /// `listChats`: `after` of the next page; null on the last.
    #[serde(
        default,
        skip_serializing_if = "absent::none",
        deserialize_with = "absent::null_is_present"
    )]
    pub next: Option<Option<ChatId>>,
    /// `getChat`.
    #[serde(skip_serializing_if = "absent::none")]
    pub chat: Option<Chat>,
    /// `listClients`.
    #[serde(skip_serializing_if = "absent::none")]
    pub clients: Option<Vec<ClientInfo>>,
    /// `renewToken`: when the new token expires.
    #[serde(skip_serializing_if = "absent::none")]
    pub token_expires_at: Option<Timestamp>,
    /// `ping`: the server's clock.
    #[serde(skip_serializing_if = "absent::none")]
    pub server_time: Option<Timestamp>,
    /// `getChat`: the participants who have no active client yet; what is sent waits for their first one.
    #[serde(skip_serializing_if = "absent::none")]
    pub not_yet_connected: Option<Vec<UserId>>,
}

impl Reply {
    /// SUCCESS with nothing else.
    pub const fn success(id: u64) -> Self {
        Self {
            id: Some(id),
            status: Status::Success,
            error: None,
            chat_id: None,
            seq: None,
            created: None,
            sent_at: None,
            duplicate: None,
            changed: None,
            attachment_id: None,
            upload_url: None,
            uploaded: None,
            chats: None,
            next: None,
            chat: None,
            clients: None,
            token_expires_at: None,
            server_time: None,
            not_yet_connected: None,
        }
    }

    /// FAILURE with its reason.
    pub fn failure(id: Option<u64>, error: Error) -> Self {
        Self {
            id,
            status: Status::Failure,
            error: Some(error),
            ..Self::success(0)
        }
    }
}

/// A file that a message names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Its id, for `GET /v1/attachments/<id>`.
    pub attachment_id: AttachmentId,
    /// Bytes.
    pub size: u64,
    /// MIME type, as the uploader said.
    pub content_type: String,
    /// SHA-256, hexadecimal.
    pub hash: String,
    /// File name, as the uploader said.
    #[serde(skip_serializing_if = "absent::none")]
    pub name: Option<String>,
}

/// Without the file's name, which is the user's.
impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment")
            .field("attachment_id", &self.attachment_id)
            .field("size", &self.size)
            .field("content_type", &self.content_type)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// A message for this client.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewMessage {
    /// Number of this delivery on this connection.
    pub delivery: u64,
    /// Where.
    pub chat_id: ChatId,
    /// Its place within the chat; gaps mean nothing.
    pub seq: u64,
    /// The sender's id for it.
    pub message_id: MessageId,
    /// From whom.
    pub user_id: UserId,
    /// From which of their clients.
    pub client_id: ClientId,
    /// When the server accepted it.
    pub sent_at: Timestamp,
    /// What.
    pub message: String,
    /// Files.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
}

impl std::fmt::Debug for NewMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMessage")
            .field("delivery", &self.delivery)
            .field("chat_id", &self.chat_id)
            .field("seq", &self.seq)
            .field("message_id", &self.message_id)
            .field("user_id", &self.user_id)
            .field("message_bytes", &self.message.len())
            .finish_non_exhaustive()
    }
}

/// Two or many.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ChatKind {
    /// The one chat of two people.
    Direct,
    /// Any other.
    Group,
}

/// What a participant may do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Adds and removes.
    Admin,
    /// Sends and leaves.
    Member,
}

/// A user in a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    /// Who.
    pub user_id: UserId,
    /// As what.
    pub role: Role,
}

/// A chat as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// Its id.
    pub chat_id: ChatId,
    /// Two or many.
    pub kind: ChatKind,
    /// Its name; direct chats have none.
    #[serde(skip_serializing_if = "absent::none")]
    pub name: Option<String>,
    /// Grows with each change of the participants.
    pub version: u64,
    /// Who is in it, the longest-standing first.
    pub participants: Vec<Participant>,
}

/// What a change means for the one who reads it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum You {
    /// You are in from here on.
    Added,
    /// You are out; nothing of this chat follows.
    Removed,
    /// You are still a member.
    Member,
    /// You are an admin.
    Admin,
}

/// The participants of a chat have changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatUpdate {
    /// Number of this delivery on this connection.
    pub delivery: u64,
    /// Where.
    pub chat_id: ChatId,
    /// Its place within the chat.
    pub seq: u64,
    /// A lower version than one already seen is ignored.
    pub version: u64,
    /// When.
    pub at: Timestamp,
    /// Who did it.
    pub by: UserId,
    /// Two or many.
    pub kind: ChatKind,
    /// The chat's name.
    #[serde(skip_serializing_if = "absent::none")]
    pub name: Option<String>,
    /// What it means for the reader.
    pub you: You,
    /// Who came.
    pub added: Vec<UserId>,
    /// Who went.
    pub removed: Vec<UserId>,
    /// Who is in it now.
    pub participants: Vec<Participant>,
}

/// Why entries are missing.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TrimReason {
    /// The inbox was full.
    Full,
    /// They were older than `retentionDays`.
    Expired,
    /// The client had been away for too long.
    Inactive,
}

/// Something was dropped from this inbox. Confirmed like any delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InboxTrimmed {
    /// Number of this delivery on this connection.
    pub delivery: u64,
    /// Why.
    pub reason: TrimReason,
    /// About how many; null if nobody knows.
    pub missed: Option<u64>,
    /// From about when.
    pub since: Timestamp,
    /// Until about when.
    pub until: Timestamp,
    /// In which chats, as far as known.
    pub chats: Vec<ChatId>,
}

/// Everything older has been sent. Once a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaughtUp {}

/// What a [`Notice`] is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeCode {
    /// `received` named a delivery that is not outstanding here.
    UnknownDelivery,
    /// The window has been full for 30 seconds.
    WindowFull,
}

/// Worth knowing, nothing to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// About what.
    pub code: NoticeCode,
    /// Which delivery, where it is about one.
    #[serde(skip_serializing_if = "absent::none")]
    pub delivery: Option<u64>,
}

/// The token expires within a minute: `renewToken` keeps the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenExpiring {
    /// When.
    pub expires_at: Timestamp,
}

/// The last frame before a deliberate close.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Closing {
    /// Why.
    pub code: ErrorCode,
    /// Whether to come back.
    pub reconnect: bool,
    /// When, in milliseconds from now.
    #[serde(skip_serializing_if = "absent::none")]
    pub retry_after_ms: Option<u64>,
}

/// A client of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientInfo {
    /// Its id.
    pub client_id: ClientId,
    /// What the user calls it.
    #[serde(skip_serializing_if = "absent::none")]
    pub name: Option<String>,
    /// When it was last connected, to about a minute.
    pub last_seen: Timestamp,
    /// Whether it is connected now.
    pub online: bool,
}
