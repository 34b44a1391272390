//! Records as JSON lines. Frames stand in them as the JSON subprotocol writes them.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidings_protocol::{AttachmentId, ClientId, Codec, EncodedFrame, UserId};

use super::happening::Event;
use super::moment::Moment;
use super::record::{Fetch, Record, RecordedConnection, What};

/// A line of the file: a record, laid out for reading with one's eyes and with `jq`. Exactly one of the last nine.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    at: Moment,
    device: String,
    user: UserId,
    client: ClientId,
    connection: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opened: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    received: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unknown: Option<Unknown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed: Option<Closed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fetched: Option<Fetched>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_rest: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_at_rest: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    url: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Unknown {
    delivery: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Closed {
    code: u16,
    reason: String,
    by_client: bool,
}

#[derive(Serialize, Deserialize)]
struct Fetched {
    attachment: AttachmentId,
    outcome: Fetch,
}

/// What happened to the system, as a line.
pub(super) fn event_line(event: &Event) -> String {
    serde_json::to_string(event).expect("an event is numbers and texts")
}

/// A record, as a line.
pub(super) fn record_line(record: &Record) -> String {
    let connection = &record.connection;
    let mut line = Line {
        at: record.at,
        device: connection.device.clone(),
        user: connection.user_id.clone(),
        client: connection.client_id,
        connection: connection.number,
        refused: None,
        opened: None,
        sent: None,
        received: None,
        unknown: None,
        closed: None,
        fetched: None,
        at_rest: None,
        not_at_rest: None,
    };
    match record.what.clone() {
        What::Refused { url, reason } => line.refused = Some(Refused { url, reason }),
        What::Opened { url } => line.opened = Some(url),
        What::Sent(frame) => line.sent = Some(json(Codec::Json.encode_client(&frame))),
        What::Received(frame) => line.received = Some(json(Codec::Json.encode_server(&frame))),
        What::Unknown { delivery } => line.unknown = Some(Unknown { delivery }),
        What::Closed {
            code,
            reason,
            by_client,
        } => {
            line.closed = Some(Closed {
                code,
                reason,
                by_client,
            });
        }
        What::Fetched {
            attachment_id,
            outcome,
        } => {
            line.fetched = Some(Fetched {
                attachment: attachment_id,
                outcome,
            });
        }
        What::AtRest => line.at_rest = Some(true),
        What::NotAtRest { reason } => line.not_at_rest = Some(reason),
    }
    serde_json::to_string(&line).expect("a line has text keys")
}

fn json(frame: EncodedFrame) -> Box<RawValue> {
    match frame {
        EncodedFrame::Text(text) => RawValue::from_string(text).expect("the codec writes JSON"),
        EncodedFrame::Binary(_) => unreachable!("the JSON codec writes text"),
    }
}

/// Reads lines; records of one connection share what names it.
#[derive(Default)]
pub(super) struct Reader {
    connections: HashMap<RecordedConnection, Arc<RecordedConnection>>,
}

impl Reader {
    /// A line, as a record; the error is for people.
    pub(super) fn record(&mut self, line: &str) -> Result<Record, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let connection = RecordedConnection {
            device: line.device.clone(),
            user_id: line.user.clone(),
            client_id: line.client,
            number: line.connection,
        };
        let shared = self.connections.entry(connection);
        let connection = match shared {
            std::collections::hash_map::Entry::Occupied(known) => Arc::clone(known.get()),
            std::collections::hash_map::Entry::Vacant(new) => {
                let connection = Arc::new(new.key().clone());
                Arc::clone(new.insert(connection))
            }
        };
        Ok(Record {
            at: line.at,
            connection,
            what: what(line)?,
        })
    }
}

fn what(line: Line) -> Result<What, String> {
    if let Some(frame) = line.sent {
        let frame = Codec::Json.decode_client(frame.get().as_bytes());
        return Ok(What::Sent(Box::new(frame.map_err(|error| error.to_string())?)));
    }
    if let Some(frame) = line.received {
        let frame = Codec::Json.decode_server(frame.get().as_bytes());
        return Ok(What::Received(Box::new(
            frame.map_err(|error| error.to_string())?,
        )));
    }
    if let Some(Refused { url, reason }) = line.refused {
        return Ok(What::Refused { url, reason });
    }
    if let Some(url) = line.opened {
        return Ok(What::Opened { url });
    }
    if let Some(Unknown { delivery }) = line.unknown {
        return Ok(What::Unknown { delivery });
    }
    if let Some(Closed {
        code,
        reason,
        by_client,
    }) = line.closed
    {
        return Ok(What::Closed {
            code,
            reason,
            by_client,
        });
    }
    if let Some(Fetched { attachment, outcome }) = line.fetched {
        return Ok(What::Fetched {
            attachment_id: attachment,
            outcome,
        });
    }
    if line.at_rest == Some(true) {
        return Ok(What::AtRest);
    }
    match line.not_at_rest {
        Some(reason) => Ok(What::NotAtRest { reason }),
        None => Err("it says nothing that happened".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tidings_protocol::{CaughtUp, Hello};
    use uuid::Uuid;

    use super::*;
    use crate::history::{Recorder, Run, StoredEntry};
    use tidings_protocol::ChatId;

    #[test]
    fn a_run_is_read_as_it_was_written_but_for_the_token() {
        let dir = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::to_dir(dir.path()).expect("it can be written");
        let connection = recorder.connection(RecordedConnection {
            device: "alice-1".to_owned(),
            user_id: UserId::new("alice").expect("it is short"),
            client_id: ClientId(Uuid::from_u128(1)),
            number: 1,
        });
        connection.refused("ws://one", "nobody there");
        connection.opened("ws://two");
        connection.sent(
            &Hello {
                id: 1,
                token: Some("secret".to_owned()),
                name: None,
                replace: None,
            }
            .into(),
        );
        connection.received(&CaughtUp {}.into());
        connection.unknown(Some(3));
        connection.unknown(None);
        let attachment_id = AttachmentId(Uuid::from_u128(5));
        connection.fetched(attachment_id, Fetch::Whole);
        connection.fetched(attachment_id, Fetch::Refused(404));
        connection.at_rest();
        connection.not_at_rest("too slow");
        connection.closed(1012, "restart");
        recorder.happened(crate::history::Happening::begins("SIGKILL", "nats-1"));
        recorder.happened(crate::history::Happening::note("that was it"));
        let (records, events) = recorder.finish().expect("the disk has room");
        assert_eq!((records.len(), events.len()), (11, 2));
        let stored = vec![StoredEntry {
            user_id: UserId::new("alice").expect("it is short"),
            client_id: None,
            sequence: 7,
            chat_id: ChatId(Uuid::from_u128(2)),
            seq: 9,
        }];
        Run::write_stored(dir.path(), &stored).expect("the disk has room");

        let run = Run::read(dir.path()).expect("it was written so");
        assert_eq!(run.records, records);
        assert_eq!(run.events, events);
        assert_eq!(run.stored, Some(stored));
        let text = std::fs::read_to_string(dir.path().join("history.jsonl")).expect("it is there");
        assert!(!text.contains("secret"), "{text}");
    }
}
