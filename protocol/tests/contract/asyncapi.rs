//! The `AsyncAPI` 3 document, assembled from the same schemas. One channel is the connection; it is written from
//! the server's side: what it receives, what it sends.

use serde_json::{Map, Value, json};
use tidings_protocol::{ClientFrame, Codec, FRAME_BYTES_MAX, ServerFrame};

use crate::checked_in;
use crate::schema::{self, Frames, pretty};

/// Where a reference of JSON Schema points to in this document. A description beside a reference is ignored
/// by tools of this age, so it goes around it.
fn adapt(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(adapt);
            let Some(Value::String(target)) = fields.remove("$ref") else {
                return;
            };
            let target = target.replace("#/$defs/", "#/components/schemas/");
            let reference = json!({ "$ref": target });
            if fields.is_empty() {
                *schema = reference;
            } else {
                fields.insert("allOf".into(), json!([reference]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(adapt),
        _ => {}
    }
}

/// The first sentence of a description.
fn summary(schema: &Value) -> String {
    let text = schema["description"].as_str().expect("every frame is described");
    let end = text.find(". ").map_or(text.len(), |end| end + 1);
    text[..end].replace('\n', " ")
}

fn capitalised(kind: &str) -> String {
    kind[..1].to_uppercase() + &kind[1..]
}

/// Which frames answer a request.
fn answers(kind: &str) -> &'static [&'static str] {
    match kind {
        "hello" => &["welcome", "reply"],
        "received" => &[],
        _ => &["reply"],
    }
}

fn message_of_channel(kind: &str) -> Value {
    json!({ "$ref": format!("#/channels/connection/messages/{kind}") })
}

fn receives(kind: &str, summary: &str) -> Value {
    let mut operation = json!({
        "action": "receive",
        "summary": summary,
        "channel": { "$ref": "#/channels/connection" },
        "messages": [message_of_channel(kind)],
    });
    let answers: Vec<Value> = answers(kind).iter().copied().map(message_of_channel).collect();
    if !answers.is_empty() {
        operation["reply"] = json!({
            "channel": { "$ref": "#/channels/connection" },
            "messages": answers,
        });
    }
    operation
}

fn sends(kind: &str, summary: &str) -> Value {
    json!({
        "action": "send",
        "summary": summary,
        "channel": { "$ref": "#/channels/connection" },
        "messages": [message_of_channel(kind)],
    })
}

fn document() -> Value {
    let mut schemas = Map::new();
    let mut messages = Map::new();
    let mut in_channel = Map::new();
    let mut operations = Map::new();
    let mut add = |frames: Frames, prefix: &str, operation: fn(&str, &str) -> Value| {
        schemas.extend(frames.shared);
        for (kind, payload) in frames.frames {
            let summary = summary(&payload);
            operations.insert(
                format!("{prefix}{}", capitalised(kind)),
                operation(kind, &summary),
            );
            messages.insert(
                kind.to_owned(),
                json!({
                    "name": kind,
                    "title": kind,
                    "summary": summary,
                    "contentType": "application/json",
                    "payload": { "$ref": format!("#/components/schemas/{kind}") },
                }),
            );
            in_channel.insert(
                kind.to_owned(),
                json!({ "$ref": format!("#/components/messages/{kind}") }),
            );
            schemas.insert(kind.to_owned(), payload);
        }
    };
    add(schema::client_frames(), "receive", receives);
    add(schema::server_frames(), "send", sends);
    schemas.values_mut().for_each(adapt);
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tidings",
            "version": "1",
            "description": "The WebSocket protocol of Tidings, from the server's side. `docs/PROTOCOL.md` says what \
                the frames mean and in which order they come; this document says what they look like in the \
                subprotocol tidings.v1.json. tidings.v1.postcard carries the same frames.",
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "laptop": {
                "host": "127.0.0.1:{port}",
                "protocol": "ws",
                "description": "What `tidings up` starts; it prints the port.",
                "variables": { "port": { "default": "8080" } },
            },
        },
        "channels": {
            "connection": {
                "address": "/v1/ws",
                "title": "One connection of one client",
                "description": format!(
                    "Text frames, a JSON object of at most {FRAME_BYTES_MAX} bytes each. The first is `hello`."
                ),
                "messages": in_channel,
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "headers": {
                            "type": "object",
                            "properties": {
                                "Authorization": {
                                    "type": "string",
                                    "pattern": "^Bearer .+$",
                                    "description": "The token, where it is not in `hello`.",
                                },
                                "Sec-WebSocket-Protocol": {
                                    "type": "string",
                                    "enum": Codec::ALL.map(Codec::subprotocol),
                                    "default": Codec::default().subprotocol(),
                                },
                            },
                        },
                        "bindingVersion": "0.1.0",
                    },
                },
            },
        },
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

#[test]
fn the_asyncapi_document_is_that_of_the_types() {
    checked_in::file("protocol/asyncapi.json", &pretty(&document()));
}

#[test]
fn every_frame_has_its_operation() {
    let document = document();
    for kind in ClientFrame::KINDS {
        let name = format!("receive{}", capitalised(kind));
        assert!(document["operations"][name].is_object(), "{kind}");
    }
    for kind in ServerFrame::KINDS {
        let name = format!("send{}", capitalised(kind));
        assert!(document["operations"][name].is_object(), "{kind}");
    }
}
