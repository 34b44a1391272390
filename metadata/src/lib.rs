//! What Postgres keeps for Tidings: users' clients, chats and their participants, attachments and who may read
//! them, and the outbox of what must be published because of what was committed.
//!
//! Each operation is one method of [`Metadata`] in a file of its own, with the error it can return. Everything is
//! written for several gateways and workers at once under READ COMMITTED: whoever changes a user's clients holds
//! that user's row, whoever changes a chat holds the chat's. This crate does not know the bus; whoever publishes
//! what the outbox holds comes here through [`Metadata::lock_outbox`].

mod attachments;
mod cache;
mod chat;
mod chat_change;
mod clients;
mod create_chat;
mod database_error;
mod idle_client;
mod in_time;
mod inbox_sweeps;
mod lease;
mod list_chats;
mod locked_chat;
mod metadata;
mod migrate;
mod modify_participants;
mod outbox;
mod participants_at;
mod prune;
mod register_client;
mod remove_client;
mod requests;
mod stored;
mod suspend_user;
mod tell_chats_again;
mod users;

pub use attachments::{
    AttachmentCounts, AttachmentLimits, AttachmentRecord, Attempt, CreateAttachmentError, CreatedAttachment,
    DoomedBlob, FinishedUpload, Grant, GrantError, GrantRefusal, NewAttachment, OpenUpload, OpenUploadError,
    RemovalBacklog, UploadStanding,
};
pub use cache::InvalidatedCache;
pub use chat::ChatRecord;
pub use chat_change::{ChatChange, ChatOutcome};
pub use clients::{ClientRecord, ClientStanding, ClientState};
pub use create_chat::{CreateChatError, NewChat};
pub use database_error::{DatabaseError, Result};
pub use in_time::in_time;
pub use inbox_sweeps::InboxSweep;
pub use metadata::Metadata;
pub use migrate::SchemaError;
pub use modify_participants::{ModifyError, ModifyParticipants};
pub use outbox::{OutboxChange, OutboxKey, OutboxLock, OutboxRow};
pub use participants_at::ParticipantsAt;
pub use prune::{HISTORY_DAYS, Pruned, REQUEST_MEMORY_HOURS};
pub use register_client::{RegisterClient, RegisterError, Registered};
pub use remove_client::RemoveClientError;
pub use suspend_user::SuspendError;
