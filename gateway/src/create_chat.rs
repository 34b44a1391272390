//! `createChat`.

use tidings_metadata::{CreateChatError, NewChat};
use tidings_protocol::{CreateChat, Error, ErrorCode, Reply};

use crate::gateway::Gateway;
use crate::sessions::SessionHandle;
use crate::unavailable::{database_error, unavailable};

impl Gateway {
    /// Makes the chat, or finds the direct chat of two; SUCCESS once everybody is being told.
    pub(crate) async fn create_chat(
        &self,
        session: &SessionHandle,
        request: CreateChat,
    ) -> Result<Reply, Error> {
        self.rate_limits.check_invitation(&session.user_id)?;
        let new = NewChat {
            creator: session.user_id.clone(),
            request_id: request.request_id,
            others: request.participants,
            name: request.name,
        };
        let mut outcome = self
            .metadata
            .create_chat(new.clone())
            .await
            .map_err(|error| error_of(&error))?;
        if outcome.seq.is_none() {
            outcome.seq = self.publish_change(outcome.chat_id, outcome.version).await?;
        }
        if outcome.seq.is_none() {
            // Somebody else has published it; asked again, Postgres says where.
            outcome = self
                .metadata
                .create_chat(new)
                .await
                .map_err(|error| error_of(&error))?;
        }
        let seq = outcome
            .seq
            .ok_or_else(|| unavailable("the change is not published yet; retry with the same requestId"))?;
        Ok(Reply {
            chat_id: Some(outcome.chat_id),
            seq: Some(seq),
            created: Some(outcome.done),
            ..Reply::success(request.id)
        })
    }
}

fn error_of(error: &CreateChatError) -> Error {
    match error {
        CreateChatError::Nobody => Error::bad_request("participants", error.to_string()),
        CreateChatError::Full(_) => Error::new(ErrorCode::ChatFull, error.to_string()).at("participants"),
        CreateChatError::RequestReused => Error::bad_request("requestId", error.to_string()),
        CreateChatError::Database(error) => database_error(error),
    }
}
