//! `createAttachment`: room for a file, whose bytes go to the media service.

use std::time::Duration;

use tidings_metadata::{CreateAttachmentError, NewAttachment};
use tidings_protocol::{CreateAttachment, Error, ErrorCode, Reply};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::database_error;

/// How soon a user whose budget is spent may try again. Something may be gone by then: what was never sent goes after a
/// day, what was sent 31 days after the last message that named it.
const BUDGET_RETRY: Duration = Duration::from_hours(1);

impl Gateway {
    /// Makes a slot for a file and says where its bytes go, or finds the slot that the same request made before.
    pub(crate) async fn create_attachment(
        &self,
        session: &SessionHandle,
        request: CreateAttachment,
    ) -> Result<Reply, Error> {
        let media_url = self.media_url()?;
        let bytes_max = self.attachments.attachment_bytes_max;
        if request.size > bytes_max {
            let message = format!(
                "an attachment has at most {bytes_max} bytes, this one {}",
                request.size
            );
            return Err(Error::bad_request("size", message));
        }
        let hash = request
            .hash
            .parse()
            .map_err(|_| Error::bad_request("hash", "the SHA-256 as 64 hexadecimal digits"))?;
        let new = NewAttachment {
            owner: session.user_id.clone(),
            hash,
            size: request.size,
            content_type: request.content_type,
            name: request.name,
        };
        let created = self
            .metadata
            .create_attachment(&new, self.attachment_limits())
            .await
            .map_err(|error| error_of(&error))?;
        metrics::counter!("tidings_attachments_created_total").increment(1);
        let id = created.attachment_id;
        Ok(Reply {
            attachment_id: Some(id),
            upload_url: Some(format!("{media_url}/v1/attachments/{id}")),
            uploaded: Some(created.uploaded),
            ..Reply::success(request.id)
        })
    }

    /// Where attachments are. Without it nobody can have any; not retryable, since this gateway will not learn it.
    pub(crate) fn media_url(&self) -> Result<&str, Error> {
        self.media_url
            .as_deref()
            .ok_or_else(|| Error::new(ErrorCode::UnknownType, "attachments are not served here").at("type"))
    }
}

fn error_of(error: &CreateAttachmentError) -> Error {
    let wait = match error {
        CreateAttachmentError::TooMany { retry_after } => *retry_after,
        CreateAttachmentError::BudgetSpent { .. } => BUDGET_RETRY,
        CreateAttachmentError::Database(error) => return database_error(error),
    };
    // Rounded up, so that whoever waits as told is not told again.
    let milliseconds = wait.as_millis() as u64 + 1;
    Error::new(ErrorCode::RateLimited, error.to_string()).retry_after_ms(milliseconds)
}
