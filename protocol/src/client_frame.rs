//! What a client says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::absent;
use crate::frames::frames;
use crate::id::{AttachmentId, ChatId, ClientId, MessageId, RequestId};
use crate::limits::{ATTACHMENTS_MAX, CONTENT_TYPE_BYTES_MAX, NAME_CHARS_MAX};
use crate::user_id::UserId;

frames! {
    /// A frame from a client. The numbers are the variants' numbers in postcard and never change.
    pub enum ClientFrame {
        0 Hello(Hello) = "hello",
        1 CreateChat(CreateChat) = "createChat",
        2 SendMessage(SendMessage) = "sendMessage",
        3 ModifyChatParticipants(ModifyChatParticipants) = "modifyChatParticipants",
        4 CreateAttachment(CreateAttachment) = "createAttachment",
        5 ListChats(ListChats) = "listChats",
        6 GetChat(GetChat) = "getChat",
        7 ListClients(ListClients) = "listClients",
        8 RemoveClient(RemoveClient) = "removeClient",
        9 RenewToken(RenewToken) = "renewToken",
        10 Ping(Ping) = "ping",
        11 Received(Received) = "received",
    }
}

impl ClientFrame {
    /// The request's number; `received` has none.
    pub const fn id(&self) -> Option<u64> {
        Some(match self {
            Self::Hello(Hello { id, .. })
            | Self::CreateChat(CreateChat { id, .. })
            | Self::SendMessage(SendMessage { id, .. })
            | Self::ModifyChatParticipants(ModifyChatParticipants { id, .. })
            | Self::CreateAttachment(CreateAttachment { id, .. })
            | Self::ListChats(ListChats { id, .. })
            | Self::GetChat(GetChat { id, .. })
            | Self::ListClients(ListClients { id })
            | Self::RemoveClient(RemoveClient { id, .. })
            | Self::RenewToken(RenewToken { id, .. })
            | Self::Ping(Ping { id }) => *id,
            Self::Received(_) => return None,
        })
    }
}

/// Always the first frame, within 10 seconds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The client's number for this request, echoed by its answer.
    pub id: u64,
    /// The JWT, where the upgrade carried none (browsers).
    #[serde(skip_serializing_if = "absent::none")]
    pub token: Option<String>,
    /// What the user calls this device: 1 to 100 characters.
    #[serde(skip_serializing_if = "absent::none")]
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    pub name: Option<String>,
    /// Remove this client of the same user to make room.
    #[serde(skip_serializing_if = "absent::none")]
    pub replace: Option<ClientId>,
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("id", &self.id)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("name", &self.name)
            .field("replace", &self.replace)
            .finish()
    }
}

/// Makes a chat, or finds the direct chat of two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateChat {
    /// The client's number for this request.
    pub id: u64,
    /// The same again is answered with the same chat, for 24 hours.
    pub request_id: RequestId,
    /// The others. Duplicates and the creator are folded.
    pub participants: Vec<UserId>,
    /// 1 to 100 characters. With one other participant and no name this is the direct chat of the two.
    #[serde(skip_serializing_if = "absent::none")]
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    pub name: Option<String>,
}

/// Sends a message to a chat.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendMessage {
    /// The client's number for this request.
    pub id: u64,
    /// To where.
    pub chat_id: ChatId,
    /// Unique within (client, chat); the same again is the same message.
    pub message_id: MessageId,
    /// Opaque to the server; at most 64 KiB; empty only with an attachment.
    pub message: String,
    /// What was uploaded before.
    #[serde(default, skip_serializing_if = "absent::empty")]
    #[schemars(length(max = ATTACHMENTS_MAX))]
    pub attachments: Vec<AttachmentId>,
}

impl std::fmt::Debug for SendMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendMessage")
            .field("id", &self.id)
            .field("chat_id", &self.chat_id)
            .field("message_id", &self.message_id)
            .field("message_bytes", &self.message.len())
            .field("attachments", &self.attachments)
            .finish()
    }
}

/// What to do with a participant.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Operation {
    /// Into the chat.
    #[serde(rename = "ADD")]
    Add,
    /// Out of it.
    #[serde(rename = "REMOVE")]
    Remove,
}

/// Adds or removes a participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModifyChatParticipants {
    /// The client's number for this request.
    pub id: u64,
    /// The same again does its work once, for 24 hours.
    pub request_id: RequestId,
    /// Of which chat.
    pub chat_id: ChatId,
    /// Whom.
    pub user_id: UserId,
    /// In or out.
    pub operation: Operation,
}

/// Announces an upload.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateAttachment {
    /// The client's number for this request.
    pub id: u64,
    /// SHA-256 of the bytes, 64 hexadecimal digits.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{64}$"))]
    pub hash: String,
    /// Bytes.
    pub size: u64,
    /// MIME type.
    #[schemars(length(max = CONTENT_TYPE_BYTES_MAX))]
    pub content_type: String,
    /// A file name for the recipients.
    #[serde(skip_serializing_if = "absent::none")]
    #[schemars(length(min = 1, max = NAME_CHARS_MAX))]
    pub name: Option<String>,
}

/// Without the file's name, which is the user's.
impl std::fmt::Debug for CreateAttachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateAttachment")
            .field("id", &self.id)
            .field("hash", &self.hash)
            .field("size", &self.size)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// Lists the chats the user is in, by chat id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListChats {
    /// The client's number for this request.
    pub id: u64,
    /// `next` of the page before.
    #[serde(skip_serializing_if = "absent::none")]
    pub after: Option<ChatId>,
    /// 1 to 100; 100 if absent.
    #[serde(skip_serializing_if = "absent::none")]
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
}

/// One chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GetChat {
    /// The client's number for this request.
    pub id: u64,
    /// Which.
    pub chat_id: ChatId,
}

/// The user's active clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListClients {
    /// The client's number for this request.
    pub id: u64,
}

/// Removes a client of the same user, for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoveClient {
    /// The client's number for this request.
    pub id: u64,
    /// Which.
    pub client_id: ClientId,
}

/// Replaces the connection's token before it expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenewToken {
    /// The client's number for this request.
    pub id: u64,
    /// A newer token of the same user and client.
    pub token: String,
}

impl std::fmt::Debug for RenewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RenewToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// For clients that cannot send WebSocket pings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ping {
    /// The client's number for this request.
    pub id: u64,
}

/// Confirms deliveries of this connection: exactly one of the two fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Received {
    /// This one.
    #[serde(skip_serializing_if = "absent::none")]
    pub delivery: Option<u64>,
    /// Everything up to this one, in the order of sending.
    #[serde(skip_serializing_if = "absent::none")]
    pub through: Option<u64>,
}
