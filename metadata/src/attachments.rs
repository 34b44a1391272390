//! Attachments: what was announced, what is stored of it, and who may read it.
//!
//! An *attachment* is a slot: an id, and what its owner said of its content. A *blob* is stored bytes, under a random
//! name that is used once. An attachment is *ready* when a stored blob of the same owner, hash and size is there, so
//! that the same content is stored once, and its removal and its next upload never touch the same object.
//!
//! Whoever changes which contents of an owner are wanted or stored holds that owner's lock
//! ([`owner_lock`]). So a blob that is not doomed has an attachment that is not gone, at every moment. The one other
//! order is that of rows: attachments by id, then a blob.

mod blob_store;
mod count_attachments;
mod create_attachment;
mod doom_unused_blobs;
mod doomed_blobs;
mod expire_attachments;
mod finish_upload;
mod grant_attachments;
mod known_blobs;
mod life;
mod open_upload;
mod owner_lock;
mod prune_attachments;
mod read_attachment;
mod record;
mod running_upload;
mod upload_standing;

pub use count_attachments::{AttachmentCounts, RemovalBacklog};
pub use create_attachment::{AttachmentLimits, CreateAttachmentError, CreatedAttachment, NewAttachment};
pub use doomed_blobs::DoomedBlob;
pub use finish_upload::FinishedUpload;
pub use grant_attachments::{Grant, GrantError, GrantRefusal};
pub use open_upload::{Attempt, OpenUpload, OpenUploadError};
pub use record::AttachmentRecord;
pub use upload_standing::UploadStanding;
