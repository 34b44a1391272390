//! In which order postcard writes the fields, asked of serde itself: a deserializer that only takes note of
//! what a type wants to read.

use std::fmt::Write as _;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _, Visitor, value};
use serde_json::{Map, Value};
use tidings_protocol::{
    Attachment, CaughtUp, Chat, ChatKind, ChatUpdate, ClientFrame, ClientInfo, Closing, CreateAttachment,
    CreateChat, Error, GetChat, Hello, InboxTrimmed, Limits, ListChats, ListClients, ModifyChatParticipants,
    NewMessage, Notice, NoticeCode, Operation, Participant, Ping, Received, Registration, RemoveClient,
    RenewToken, Reply, Role, SendMessage, ServerFrame, Status, TokenExpiring, TrimReason, Welcome, You,
};

/// Takes note of the fields of a struct or the variants of an enum, and reads nothing.
struct Note<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Note<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend_from_slice(fields);
        Err(Self::Error::custom("noted"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend_from_slice(variants);
        Err(Self::Error::custom("noted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("neither a struct nor an enum"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// Names in the order in which they are numbered or written.
pub(crate) fn names<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    assert!(T::deserialize(Note(&mut names)).is_err(), "nothing was read");
    names
}

/// What a field holds, in the words of `docs/PROTOCOL.md`.
fn holds(schema: &Value, defs: &Map<String, Value>) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().expect("a path");
        let target = &defs[name];
        return match target["format"].as_str() {
            Some("uuid") => "uuid".into(),
            Some("date-time") => "moment".into(),
            _ if target["type"] == "string" && target["enum"].is_null() => "text".into(),
            _ => format!("`{name}`"),
        };
    }
    if let Some([one, null]) = schema["anyOf"].as_array().map(Vec::as_slice) {
        assert_eq!(null["type"], "null", "an option");
        return format!("option of {}", holds(one, defs));
    }
    let name = match &schema["type"] {
        Value::Array(types) => {
            assert_eq!(types[1], "null", "an option");
            let mut inner = schema.clone();
            inner["type"] = types[0].clone();
            return format!("option of {}", holds(&inner, defs));
        }
        kind => kind.as_str().expect("a type"),
    };
    match name {
        "integer" => "number".into(),
        "boolean" => "flag".into(),
        "string" => "text".into(),
        "array" => format!("list of {}", holds(&schema["items"], defs)),
        other => panic!("postcard has no {other} here"),
    }
}

/// The fields of a struct in their order.
fn fields<T: JsonSchema + DeserializeOwned>() -> String {
    let schema = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<T>();
    let schema = Value::from(schema);
    let none = Map::new();
    let defs = schema["$defs"].as_object().unwrap_or(&none);
    let mut row = String::new();
    for name in names::<T>() {
        let mut what = holds(&schema["properties"][name], defs);
        if name == "next" {
            // Absent, null or a chat: JSON Schema cannot say the first two apart.
            what = format!("option of {what}");
        }
        let comma = if row.is_empty() { "" } else { ", " };
        write!(row, "{comma}`{name}` {what}").expect("a String grows");
    }
    if row.is_empty() { "nothing".into() } else { row }
}

fn frames(kinds: &[&str], rows: &[String]) -> String {
    assert_eq!(kinds.len(), rows.len(), "every frame has a row");
    let mut table = "| number | frame | fields, in this order |\n|---|---|---|\n".to_owned();
    for (number, (kind, row)) in kinds.iter().zip(rows).enumerate() {
        writeln!(table, "| {number} | `{kind}` | {row} |").expect("a String grows");
    }
    table
}

/// What a client says.
pub(crate) fn client() -> String {
    frames(
        ClientFrame::KINDS,
        &[
            fields::<Hello>(),
            fields::<CreateChat>(),
            fields::<SendMessage>(),
            fields::<ModifyChatParticipants>(),
            fields::<CreateAttachment>(),
            fields::<ListChats>(),
            fields::<GetChat>(),
            fields::<ListClients>(),
            fields::<RemoveClient>(),
            fields::<RenewToken>(),
            fields::<Ping>(),
            fields::<Received>(),
        ],
    )
}

/// What a server says.
pub(crate) fn server() -> String {
    frames(
        ServerFrame::KINDS,
        &[
            fields::<Welcome>(),
            fields::<Reply>(),
            fields::<NewMessage>(),
            fields::<ChatUpdate>(),
            fields::<InboxTrimmed>(),
            fields::<CaughtUp>(),
            fields::<Notice>(),
            fields::<TokenExpiring>(),
            fields::<Closing>(),
        ],
    )
}

/// What stands within frames.
pub(crate) fn parts() -> String {
    let mut table = "| type | fields, in this order |\n|---|---|\n".to_owned();
    for (name, row) in [
        ("Limits", fields::<Limits>()),
        ("Error", fields::<Error>()),
        ("ClientInfo", fields::<ClientInfo>()),
        ("Chat", fields::<Chat>()),
        ("Participant", fields::<Participant>()),
        ("Attachment", fields::<Attachment>()),
    ] {
        writeln!(table, "| `{name}` | {row} |").expect("a String grows");
    }
    table.push_str("\n| enumeration | values, numbered from 0 |\n|---|---|\n");
    for (name, values) in [
        ("Operation", names::<Operation>()),
        ("Status", names::<Status>()),
        ("Registration", names::<Registration>()),
        ("ChatKind", names::<ChatKind>()),
        ("Role", names::<Role>()),
        ("You", names::<You>()),
        ("TrimReason", names::<TrimReason>()),
        ("NoticeCode", names::<NoticeCode>()),
    ] {
        let values = values
            .iter()
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>();
        writeln!(table, "| `{name}` | {} |", values.join(", ")).expect("a String grows");
    }
    table
}
