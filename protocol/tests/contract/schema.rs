//! JSON Schema of the frames, made from the Rust types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tidings_protocol::{ClientFrame, NUMBER_MAX, ServerFrame};

use crate::checked_in;

/// The frames of one direction: a schema for each `type`, and those that they refer to.
pub(crate) struct Frames {
    /// By `type`, in the order of their numbers.
    pub(crate) frames: Vec<(&'static str, Value)>,
    /// By name.
    pub(crate) shared: Map<String, Value>,
}

/// What a server reads.
pub(crate) fn client_frames() -> Frames {
    frames::<ClientFrame>(
        SchemaSettings::draft2020_12().for_deserialize(),
        ClientFrame::KINDS,
    )
}

/// What a server writes.
pub(crate) fn server_frames() -> Frames {
    frames::<ServerFrame>(SchemaSettings::draft2020_12().for_serialize(), ServerFrame::KINDS)
}

fn frames<F: JsonSchema>(settings: SchemaSettings, kinds: &[&'static str]) -> Frames {
    let mut root = Value::from(settings.into_generator().into_root_schema_for::<F>());
    within_javascript(&mut root);
    let mut shared = root["$defs"].as_object().expect("frames share types").clone();
    let variants = root["oneOf"].as_array().expect("an enum of frames");
    let frames = variants
        .iter()
        .zip(kinds)
        .map(|(variant, kind)| {
            assert_eq!(
                variant["properties"]["type"]["const"], *kind,
                "variants stand in the order of KINDS"
            );
            (*kind, merge(variant, &mut shared))
        })
        .collect();
    Frames { frames, shared }
}

/// The payload's schema with the `type` in it, which serde writes beside.
fn merge(variant: &Value, shared: &mut Map<String, Value>) -> Value {
    let name = variant["$ref"].as_str().expect("a payload of its own");
    let name = name.rsplit('/').next().expect("a path");
    let mut payload = shared.remove(name).expect("each payload is used once");
    payload["properties"]["type"] = variant["properties"]["type"].clone();
    let mut required = vec![json!("type")];
    if let Some(fields) = payload["required"].as_array() {
        required.extend_from_slice(fields);
    }
    payload["required"] = required.into();
    payload
}

/// Numbers stay below 2^53; `format: uint64` is Rust's.
fn within_javascript(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            match fields.get("format").and_then(Value::as_str) {
                Some("uint64") => {
                    fields.insert("maximum".into(), NUMBER_MAX.into());
                    fields.remove("format");
                }
                Some("uint32") => {
                    fields.entry("maximum").or_insert(u32::MAX.into());
                    fields.remove("format");
                }
                _ => {}
            }
            fields.values_mut().for_each(within_javascript);
        }
        Value::Array(items) => items.iter_mut().for_each(within_javascript),
        _ => {}
    }
}

fn document(title: &str, description: &str, frames: Frames) -> String {
    let mut defs = frames.shared;
    let mut one_of = Vec::new();
    for (kind, schema) in frames.frames {
        one_of.push(json!({ "$ref": format!("#/$defs/{kind}") }));
        assert!(defs.insert(kind.to_owned(), schema).is_none(), "{kind} is taken");
    }
    pretty(&json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "oneOf": one_of,
        "$defs": defs,
    }))
}

/// Keys in alphabetical order, also when another crate of the workspace has `serde_json` keep theirs.
pub(crate) fn pretty(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    serde_json::to_string_pretty(&value).expect("a Value can be written") + "\n"
}

#[test]
fn the_schemas_are_those_of_the_types() {
    checked_in::file(
        "protocol/client-frames.schema.json",
        &document(
            "Tidings: what a client says",
            "One text frame of the subprotocol tidings.v1.json, as a server reads it. Unknown fields are ignored.",
            client_frames(),
        ),
    );
    checked_in::file(
        "protocol/server-frames.schema.json",
        &document(
            "Tidings: what a server says",
            "One text frame of the subprotocol tidings.v1.json, as a server writes it. A later server may say more \
             types, fields and error codes; a client ignores what it does not know.",
            server_frames(),
        ),
    );
}
