//! Sessions of clients that are not active any more, or whose user is suspended, are closed. Looked at when
//! INVALIDATIONS says that a user's clients have changed, until Postgres has answered.

use std::sync::Arc;
use std::time::Duration;

use tidings_metadata::{ClientStanding, ClientState};
use tidings_nats::CloseReason;
use tidings_protocol::{ClientId, Error, UserId};

use crate::gateway::Gateway;
use crate::mailbox::Ending;
use crate::unavailable::{database_error, in_time};

/// Clients of one question to Postgres.
const CLIENTS_AT_ONCE: usize = 500;
/// While Postgres does not answer. A removed client gets nothing new meanwhile: no worker knows of it.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Gateway {
    /// Closes, in the background, those of these users' sessions that may not go on.
    pub(crate) fn close_inactive(self: &Arc<Self>, users: &[UserId]) {
        let sessions = users.iter().flat_map(|user_id| self.sessions.of_user(user_id));
        let clients: Vec<ClientId> = sessions.map(|session| session.client_id).collect();
        if clients.is_empty() {
            return;
        }
        let gateway = self.clone();
        self.tasks.spawn(async move {
            for clients in clients.chunks(CLIENTS_AT_ONCE) {
                let closing = gateway.close_inactive_of(clients);
                if gateway.stopping.run_until_cancelled(closing).await.is_none() {
                    return;
                }
            }
        });
    }

    async fn close_inactive_of(&self, clients: &[ClientId]) {
        let standings = until_answered(|| async {
            let standings = self.metadata.standings(clients).await;
            standings.map_err(|error| database_error(&error))
        })
        .await;
        for client_id in clients {
            let reason = match standings.get(client_id) {
                Some(standing) => reason_to_close(*standing),
                None => Some(CloseReason::Removed),
            };
            if let (Some(reason), Some(session)) = (reason, self.sessions.get(*client_id)) {
                session.mailbox.close(Ending::Asked(reason));
            }
        }
    }
}

/// Asks Postgres until it answers. A question may stay without any answer, not even an error, where the machine is gone
/// or its process stands still: then another connection, to whoever has taken its place, has it.
async fn until_answered<T, A: Future<Output = Result<T, Error>>>(ask: impl Fn() -> A) -> T {
    loop {
        match in_time(ask()).await {
            Ok(answer) => return answer,
            Err(error) => {
                let error = error.message;
                tracing::warn!(
                    error,
                    "users' clients have changed, and cannot be looked up; again in a second"
                );
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

const fn reason_to_close(standing: ClientStanding) -> Option<CloseReason> {
    match standing.state {
        ClientState::Removed => Some(CloseReason::Removed),
        _ if standing.suspended => Some(CloseReason::Suspended),
        // It registers anew at its next hello.
        ClientState::Idle => Some(CloseReason::Kicked),
        ClientState::Active => None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::pending;

    use super::*;
    use crate::unavailable::unavailable;

    #[tokio::test(start_paused = true)]
    async fn a_question_that_nobody_answers_is_put_again() {
        let asked = Cell::new(0);
        let answer = until_answered(|| async {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 => pending().await,
                2 => Err(unavailable("the database does not answer")),
                _ => Ok("active"),
            }
        });
        let answer = tokio::time::timeout(Duration::from_mins(1), answer).await;
        assert_eq!((answer, asked.get()), (Ok("active"), 3));
    }
}
