//! Direct delivery, the gateways' side: what they tell a fan-out worker over core NATS, on `direct.<worker>` (adr/0021).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidings_protocol::ClientId;

use crate::wire::{self, WireError};

/// What becomes of direct delivery to a client.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectAnswer {
    /// From now on the worker may tell this connection of events before it stores them.
    Granted {
        /// Which client.
        client_id: ClientId,
        /// On which of its connections.
        connection: u64,
        /// Which grant of this connection; each ends with the first event that is refused, for all workers.
        grant: u32,
    },
    /// The client has confirmed the event: it need not be stored for it.
    Confirmed {
        /// Its sequence in CHATS.
        event: u64,
        /// Who.
        client_id: ClientId,
    },
    /// It will not be delivered unless it is stored, or not again.
    Refused {
        /// Its sequence in CHATS.
        event: u64,
        /// To whom.
        client_id: ClientId,
    },
}

/// Several answers, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectAnswers(pub Vec<DirectAnswer>);

impl DirectAnswers {
    /// So many are sent in one message: 32 bytes each, so 16 KiB.
    pub const MAX: usize = 512;

    /// For `direct.<worker>`.
    pub fn encode(answers: &[DirectAnswer]) -> Bytes {
        wire::encode(&answers)
    }

    /// From `direct.<worker>`.
    pub fn decode(payload: &[u8]) -> Result<Self, WireError> {
        wire::decode(payload)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_format_is_held() {
        let client_id = ClientId(Uuid::from_u128(3));
        let id = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
        let answers = DirectAnswers(vec![
            DirectAnswer::Granted {
                client_id,
                connection: 4,
                grant: 300,
            },
            DirectAnswer::Confirmed { event: 5, client_id },
            DirectAnswer::Refused { event: 6, client_id },
        ]);
        let golden = [
            &[wire::FORMAT, 3, 0, 16][..],
            &id,
            &[4, 0xac, 2, 1, 5, 16],
            &id,
            &[2, 6, 16],
            &id,
        ]
        .concat();
        assert_eq!(DirectAnswers::encode(&answers.0), golden);
        assert_eq!(DirectAnswers::decode(&golden), Ok(answers));
    }
}
