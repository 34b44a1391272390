//! `modifyChatParticipants`.

use tidings_metadata::{ModifyError, ModifyParticipants};
use tidings_protocol::{Error, ErrorCode, ModifyChatParticipants, Operation, Reply};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::{database_error, unavailable};

impl Gateway {
    /// Adds or removes a participant; SUCCESS once everybody is being told.
    pub(crate) async fn modify_chat_participants(
        &self,
        session: &SessionHandle,
        request: ModifyChatParticipants,
    ) -> Result<Reply, Error> {
        if request.operation == Operation::Add {
            self.rate_limits.check_invitation(&session.user_id)?;
        }
        let asked = ModifyParticipants {
            by: session.user_id.clone(),
            request_id: request.request_id,
            chat_id: request.chat_id,
            user: request.user_id,
            operation: request.operation,
        };
        let mut outcome = self
            .metadata
            .modify_participants(asked.clone())
            .await
            .map_err(|error| error_of(&error))?;
        if outcome.seq.is_none() {
            outcome.seq = self.publish_change(outcome.chat_id, outcome.version).await?;
        }
        if outcome.seq.is_none() {
            // Somebody else has published it; asked again, Postgres says where.
            outcome = self
                .metadata
                .modify_participants(asked)
                .await
                .map_err(|error| error_of(&error))?;
        }
        let seq = outcome
            .seq
            .ok_or_else(|| unavailable("the change is not published yet; retry with the same requestId"))?;
        Ok(Reply {
            seq: Some(seq),
            changed: Some(outcome.done),
            ..Reply::success(request.id)
        })
    }
}

fn error_of(error: &ModifyError) -> Error {
    let (code, field) = match error {
        ModifyError::NotFound => (ErrorCode::NotFound, "chatId"),
        ModifyError::NotAParticipant => (ErrorCode::NotAParticipant, "chatId"),
        ModifyError::NotAdmin => (ErrorCode::NotAdmin, "chatId"),
        ModifyError::DirectChat => (ErrorCode::DirectChat, "chatId"),
        ModifyError::Closed => (ErrorCode::ChatClosed, "chatId"),
        ModifyError::Full => (ErrorCode::ChatFull, "userId"),
        ModifyError::RequestReused => (ErrorCode::BadRequest, "requestId"),
        ModifyError::Database(error) => return database_error(error),
    };
    Error::new(code, error.to_string()).at(field)
}
