//! Frames as versions wrote them, in both codecs: `protocol/recorded/<number>.json`. Programs on phones stay in use for
//! years, so every set that was ever out stays here, and `UPDATE=1` adds one where this version says more.
//!
//! `golden.rs` holds what this version writes; this holds that it is *only more* than what any other one wrote: readers
//! of either version can read the frames of the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidings_protocol::{ClientFrame, Codec, EncodedFrame, ServerFrame};

use crate::frames::{client_frames, server_frames};
use crate::golden::{hex, unhex};

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// `client` or `server`.
    from: String,
    /// Which sample.
    name: String,
    json: Value,
    postcard: String,
}

/// A frame of either direction.
#[derive(Clone, Debug, PartialEq)]
enum Frame {
    Client(ClientFrame),
    Server(ServerFrame),
}

impl Frame {
    fn encode(&self, codec: Codec) -> EncodedFrame {
        match self {
            Self::Client(frame) => codec.encode_client(frame),
            Self::Server(frame) => codec.encode_server(frame),
        }
    }

    fn decode(from: &str, codec: Codec, bytes: &[u8]) -> Result<Self, String> {
        match from {
            "client" => codec.decode_client(bytes).map(Self::Client),
            _ => codec.decode_server(bytes).map(Self::Server),
        }
        .map_err(|error| format!("{error:?}"))
    }

    fn record(&self, name: &str) -> Record {
        let (EncodedFrame::Text(text), EncodedFrame::Binary(bytes)) =
            (self.encode(Codec::Json), self.encode(Codec::Postcard))
        else {
            panic!("JSON is text, postcard is binary");
        };
        Record {
            from: match self {
                Self::Client(_) => "client",
                Self::Server(_) => "server",
            }
            .to_owned(),
            name: name.to_owned(),
            json: serde_json::from_str(&text).expect("it is JSON"),
            postcard: hex(&bytes),
        }
    }
}

impl Record {
    fn decode(&self, codec: Codec) -> Result<Frame, String> {
        match codec {
            Codec::Json => Frame::decode(&self.from, codec, self.json.to_string().as_bytes()),
            Codec::Postcard => Frame::decode(&self.from, codec, &unhex(&self.postcard)),
        }
    }

    fn kind(&self) -> &str {
        self.json["type"].as_str().expect("a frame has a type")
    }
}

fn current() -> Vec<Record> {
    let client = client_frames()
        .into_iter()
        .map(|(name, frame)| (name, Frame::Client(frame)));
    let server = server_frames()
        .into_iter()
        .map(|(name, frame)| (name, Frame::Server(frame)));
    client
        .chain(server)
        .map(|(name, frame)| frame.record(name))
        .collect()
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded")
}

/// Every set, the newest last.
fn sets() -> Vec<Vec<Record>> {
    (1..)
        .map_while(|number| std::fs::read(dir().join(format!("{number}.json"))).ok())
        .map(|text| serde_json::from_slice(&text).expect("a list of frames"))
        .collect()
}

/// Whether `more` says all that `less` says, at every level.
fn has_all(more: &Value, less: &Value) -> bool {
    match (more, less) {
        (Value::Object(more), Value::Object(less)) => less
            .iter()
            .all(|(name, less)| more.get(name).is_some_and(|more| has_all(more, less))),
        (Value::Array(more), Value::Array(less)) => {
            more.len() == less.len() && more.iter().zip(less).all(|(more, less)| has_all(more, less))
        }
        (more, less) => more == less,
    }
}

/// With a field that nobody knows in every object.
fn with_more(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut more: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| (name.clone(), with_more(value)))
                .collect();
            more.insert("ofALaterVersion".to_owned(), json!({"a": [1, null]}));
            Value::Object(more)
        }
        Value::Array(list) => list.iter().map(with_more).collect(),
        value => value.clone(),
    }
}

/// What is wrong with a frame that another version wrote.
fn complaint(record: &Record) -> Option<String> {
    let about = |what: String| Some(format!("{}, {}: {what}", record.from, record.name));
    let (json, postcard) = match (record.decode(Codec::Json), record.decode(Codec::Postcard)) {
        (Ok(json), Ok(postcard)) => (json, postcard),
        (Err(error), _) | (_, Err(error)) => return about(error),
    };
    if json != postcard {
        return about("the codecs say different things".to_owned());
    }
    // What this version makes of it is what whoever wrote it would read.
    let now = json.record(&record.name);
    if !has_all(&now.json, &record.json) {
        return about(format!("{} has become {}", record.json, now.json));
    }
    if !now.postcard.starts_with(&record.postcard) {
        return about(format!("{} has become {}", record.postcard, now.postcard));
    }
    None
}

#[test]
fn frames_of_other_versions_are_read_and_would_be_read_there() {
    let mut sets = sets();
    let current = current();
    if std::env::var_os("UPDATE").is_some() && sets.last() != Some(&current) {
        let mut text = serde_json::to_string_pretty(&current).expect("it has string names");
        text.push('\n');
        std::fs::write(dir().join(format!("{}.json", sets.len() + 1)), text)
            .expect("the folder can be written");
        sets.push(current.clone());
    }
    for (index, set) in sets.iter().enumerate() {
        let complaints: Vec<String> = set.iter().filter_map(complaint).collect();
        assert_eq!(complaints, [""; 0], "protocol/recorded/{}.json", index + 1);
    }
    assert!(
        sets.last() == Some(&current),
        "protocol/recorded has other frames than this version: UPDATE=1 cargo test -p tidings-protocol --test contract"
    );
}

#[test]
fn every_type_is_recorded() {
    let sets = sets();
    let newest = sets.last().expect("frames are recorded");
    for (from, kinds) in [("client", ClientFrame::KINDS), ("server", ServerFrame::KINDS)] {
        let recorded: BTreeSet<&str> = newest
            .iter()
            .filter(|record| record.from == from)
            .map(Record::kind)
            .collect();
        assert_eq!(recorded, kinds.iter().copied().collect::<BTreeSet<_>>(), "{from}");
    }
}

/// By servers, and by the client library, which reads with the same code.
#[test]
fn what_a_later_version_adds_is_ignored() {
    for record in sets().into_iter().flatten() {
        let frame = record.decode(Codec::Json).expect("it is read");
        let later = with_more(&record.json).to_string();
        assert_eq!(
            Frame::decode(&record.from, Codec::Json, later.as_bytes()),
            Ok(frame.clone()),
            "{later}"
        );
        let mut later = unhex(&record.postcard);
        later.extend([1, 2, 3]);
        assert_eq!(
            Frame::decode(&record.from, Codec::Postcard, &later),
            Ok(frame),
            "{}",
            record.name
        );
    }
}

#[test]
fn a_frame_that_lost_or_moved_a_field_is_seen() {
    let find = |name: &str| {
        let found = current().into_iter().find(|record| record.name == name);
        found.expect("it is one of the samples")
    };
    let mut record = find("newMessage");
    record.json["mood"] = json!("good");
    assert!(
        complaint(&record).is_some(),
        "this version has lost what was said"
    );
    let mut record = find("tokenExpiring");
    record.postcard.push_str("00");
    assert!(complaint(&record).is_some(), "and its bytes");
    let mut record = find("modifyChatParticipants, ADD");
    // The ids of the request and of the chat, the other way round.
    let (head, rest) = record.postcard.split_at(4);
    let (request, rest) = rest.split_at(34);
    let (chat, rest) = rest.split_at(34);
    record.postcard = format!("{head}{chat}{request}{rest}");
    assert!(complaint(&record).is_some(), "the codecs differ");
    assert_eq!(complaint(&find("modifyChatParticipants, ADD")), None);
}
