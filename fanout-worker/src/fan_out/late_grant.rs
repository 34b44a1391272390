//! Attachments that the recipients of a message may not read yet.
//!
//! The gateway lets the chat's participants of one version read them, and then publishes the message. If the participants
//! change in between, whoever was added gets the message and could not read what it names: so what it names is granted
//! again here, to the version that the message has its place in, before any entry is stored.

use async_nats::HeaderMap;
use tidings_metadata::DatabaseError;
use tidings_nats::{Event, granted_version};
use tidings_protocol::{AttachmentId, ChatId};

use super::FanOut;
use crate::tries::Failure;

/// What is to be granted before an event is stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LateGrant {
    chat_id: ChatId,
    version: u64,
    attachments: Vec<AttachmentId>,
}

/// Whether an event, whose place is in this version of its chat, names what was granted to another one, or to none as
/// far as its headers tell.
pub(super) fn late_grant(event: &Event, headers: &HeaderMap, version: u64) -> Option<LateGrant> {
    let Event::Message(message) = event else {
        return None;
    };
    if message.attachments.is_empty() || granted_version(headers) == Some(version) {
        return None;
    }
    let attachments = message.attachments.iter();
    Some(LateGrant {
        chat_id: message.chat_id,
        version,
        attachments: attachments.map(|attachment| attachment.attachment_id).collect(),
    })
}

impl FanOut {
    /// Grants it. Done twice it is done once.
    pub(super) async fn grant(&self, late: LateGrant) -> Result<(), Failure> {
        let granted = self
            .metadata
            .grant_attachments_at(late.chat_id, late.version, &late.attachments)
            .await;
        match granted {
            Ok(()) => {
                metrics::counter!("tidings_fanout_late_grants_total").increment(1);
                tracing::debug!(chat.id = %late.chat_id, version = late.version, "attachments were granted late");
                Ok(())
            }
            Err(error @ DatabaseError::Unavailable(_)) => Err(Failure::Weather(error.to_string())),
            // The message waited for so long that nobody remembers the version. It is worth more than its files: the
            // chat must not stand still for them.
            Err(error @ DatabaseError::Defect(_)) => {
                tracing::error!(
                    chat.id = %late.chat_id,
                    version = late.version,
                    %error,
                    "attachments could not be granted to whoever was added just before their message"
                );
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidings_nats::{HEADER_GRANTED, Message};
    use tidings_protocol::{Attachment, ClientId, MessageId, Timestamp, UserId};
    use uuid::Uuid;

    fn message(attachments: u128) -> Event {
        let attachment = |id| Attachment {
            attachment_id: AttachmentId(Uuid::from_u128(id)),
            size: 1,
            content_type: "a/b".to_owned(),
            hash: "ab".repeat(32),
            name: None,
        };
        Event::Message(Message {
            chat_id: ChatId(Uuid::from_u128(1)),
            message_id: MessageId(Uuid::from_u128(2)),
            user_id: UserId::new("alice").expect("a user id"),
            client_id: ClientId(Uuid::from_u128(3)),
            sent_at: Timestamp(0),
            message: String::new(),
            attachments: (0..attachments).map(attachment).collect(),
        })
    }

    #[test]
    fn only_what_was_granted_to_another_version_is_granted_late() {
        let granted = |version: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER_GRANTED, version);
            headers
        };
        assert_eq!(late_grant(&message(0), &HeaderMap::new(), 3), None);
        assert_eq!(late_grant(&message(2), &granted("3"), 3), None);
        let late = LateGrant {
            chat_id: ChatId(Uuid::from_u128(1)),
            version: 3,
            attachments: [0, 1].map(|id| AttachmentId(Uuid::from_u128(id))).to_vec(),
        };
        for headers in [granted("2"), granted("4"), granted("three"), HeaderMap::new()] {
            assert_eq!(late_grant(&message(2), &headers, 3).as_ref(), Some(&late));
        }
    }
}
