//! The `OpenAPI` document, made from the routes. `docs/protocol/openapi.json` is what it says; a test compares them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidings_protocol::Error;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, OpenApi};

use crate::attachments::{__path_get, __path_head, __path_post, __path_put, Uploaded};
use crate::tus::{__path_create, __path_options, __path_patch, __path_standing, __path_terminate};

/// Where errors are described.
const ERROR: &str = "#/components/schemas/Failure";

#[derive(OpenApi)]
#[openapi(
    paths(post, put, get, head, options, create, standing, patch, terminate),
    components(schemas(Uploaded)),
    tags(
        (name = "attachments", description = "Whole uploads, and downloads."),
        (name = "uploads", description = "Uploads that go on after an interruption: tus 1.0, <https://tus.io>.")
    )
)]
struct Document;

type Responses = BTreeMap<String, RefOr<Response>>;

fn failures(statuses: &[(u16, &str)]) -> Responses {
    let response = |description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::new(ERROR))).build();
        let response = ResponseBuilder::new().description(description);
        RefOr::T(response.content("application/json", content).build())
    };
    let statuses = statuses.iter();
    statuses
        .map(|(status, description)| (status.to_string(), response(description)))
        .collect()
}

/// Of everything that needs a token.
const OF_ALL: &[(u16, &str)] = &[
    (401, "`unauthorized`, `token_expired`: another token is needed"),
    (403, "`client_removed`, `suspended`"),
    (
        404,
        "`not_found`: no such attachment, as far as this user may know",
    ),
    (410, "`attachment_gone`: it has expired"),
    (500, "`internal`: a defect of the server"),
    (503, "`unavailable`: come again after `Retry-After`"),
];
/// Of everything that takes bytes.
const OF_UPLOADS: &[(u16, &str)] = &[
    (400, "`bad_request`: `field` says which header or parameter"),
    (408, "`unavailable`: nothing was sent for 30 s"),
    (
        413,
        "`bad_request`: larger than an attachment may be, or than was announced",
    ),
    (422, "`hash_mismatch`: nothing was stored"),
    (
        429,
        "`rate_limited`: too many an hour or at once, or the user's budget is spent",
    ),
    (507, "`unavailable`: the store is full"),
];

/// Why a download fails.
pub(crate) struct DownloadFailures;
/// Why a whole upload fails.
pub(crate) struct UploadFailures;
/// Why something of tus fails.
pub(crate) struct TusFailures;

impl IntoResponses for DownloadFailures {
    fn responses() -> Responses {
        let own = [(409, "`attachment_not_ready`: its bytes are not there yet")];
        failures(&[OF_ALL, &own].concat())
    }
}

impl IntoResponses for UploadFailures {
    fn responses() -> Responses {
        let own = [
            (409, "`unavailable`: the same upload is under way elsewhere"),
            (411, "`bad_request`: `Content-Length` is needed"),
        ];
        failures(&[OF_ALL, OF_UPLOADS, &own].concat())
    }
}

impl IntoResponses for TusFailures {
    fn responses() -> Responses {
        let own = [
            (409, "`bad_request`: `Upload-Offset` is not where the upload is"),
            (
                412,
                "`bad_request`: another version of tus; `Tus-Version` says which are spoken",
            ),
            (
                415,
                "`bad_request`: the body's type is not application/offset+octet-stream",
            ),
            (423, "`unavailable`: the same upload is under way elsewhere"),
            (
                460,
                "`hash_mismatch`: the body does not have the checksum it says, and was not taken",
            ),
        ];
        failures(&[OF_ALL, OF_UPLOADS, &own].concat())
    }
}

/// The document.
pub fn openapi() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).expect("the document has string names");
    document["info"] = json!({
        "title": "Tidings: attachments",
        "version": "1",
        "description": "The HTTP side of Tidings. `docs/PROTOCOL.md` says how attachments come into messages.",
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    });
    document["servers"] = json!([{
        "url": "http://127.0.0.1:{port}",
        "description": "What `tidings up` starts; `mediaUrl` of `welcome` says where it is.",
        "variables": { "port": { "default": "8081" } },
    }]);
    document["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of `hello`." },
    });
    // Errors are those of the WebSocket, and so is their schema.
    let mut error = schemars::schema_for!(Error).to_value();
    adapt(&mut error);
    let fields = error.as_object_mut().expect("an error is an object");
    fields.remove("$schema");
    let shared = fields.remove("$defs").unwrap_or_default();
    let schemas = document["components"]["schemas"]
        .as_object_mut()
        .expect("there are schemas");
    schemas.extend(shared.as_object().cloned().unwrap_or_default());
    schemas.insert("Error".to_owned(), error);
    schemas.insert(
        "Failure".to_owned(),
        json!({
            "type": "object",
            "description": "Why a request was not served.",
            "required": ["error"],
            "properties": { "error": { "$ref": "#/components/schemas/Error" } },
        }),
    );
    document
}

/// References point into this document.
fn adapt(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref") {
                *target = target.replace("#/$defs/", "#/components/schemas/");
            }
            fields.values_mut().for_each(adapt);
        }
        Value::Array(items) => items.iter_mut().for_each(adapt),
        _ => {}
    }
}
