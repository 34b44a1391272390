//! The attachments that a message names: whoever is in the chat may read them before the message is published.

use tidings_metadata::{Grant, GrantError, GrantRefusal};
use tidings_protocol::{Error, ErrorCode, SendMessage, UserId};

use crate::gateway::Gateway;
use crate::unavailable::{database_error, in_time};

impl Gateway {
    /// Lets the chat's participants read what the message names. Committed when it returns: whoever receives the
    /// message may download at once. Should the message then not be accepted, its retry grants the same again.
    pub(crate) async fn grant(&self, user_id: &UserId, request: &SendMessage) -> Result<Grant, Error> {
        in_time(async {
            let granted = self
                .metadata
                .grant_attachments(request.chat_id, user_id, &request.attachments)
                .await;
            granted.map_err(|error| error_of(&error))
        })
        .await
    }
}

fn error_of(error: &GrantError) -> Error {
    match error {
        GrantError::Refused { index, why } => {
            let (code, message) = match why {
                GrantRefusal::NotReady => (
                    ErrorCode::AttachmentNotReady,
                    "the attachment's bytes are not uploaded yet",
                ),
                GrantRefusal::Gone => (ErrorCode::AttachmentGone, "the attachment has expired"),
                GrantRefusal::Forbidden => (ErrorCode::AttachmentForbidden, "there is no such attachment"),
            };
            Error::new(code, message).at(format!("attachments[{index}]"))
        }
        GrantError::NoChat => Error::new(ErrorCode::NotFound, "there is no such chat").at("chatId"),
        GrantError::Database(error) => database_error(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_attachment() {
        for (why, code, retryable) in [
            (GrantRefusal::NotReady, ErrorCode::AttachmentNotReady, true),
            (GrantRefusal::Gone, ErrorCode::AttachmentGone, false),
            (GrantRefusal::Forbidden, ErrorCode::AttachmentForbidden, false),
        ] {
            let error = error_of(&GrantError::Refused { index: 3, why });
            assert_eq!(
                (error.code, error.field.as_deref(), error.retryable),
                (code, Some("attachments[3]"), retryable)
            );
        }
    }
}
