//! `docs/protocol/openapi.json` says what the routes say. It is checked in, so that nobody has to build the project to
//! read it.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

const HOW: &str = "UPDATE=1 cargo test -p tidings-media --test contract";

#[test]
fn the_openapi_document_is_that_of_the_routes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol/openapi.json");
    let mut wanted = serde_json::to_string_pretty(&tidings_media::openapi()).expect("plain data");
    wanted.push('\n');
    if fs::read_to_string(&path).unwrap_or_default() == wanted {
        return;
    }
    assert!(
        std::env::var_os("UPDATE").is_some(),
        "docs/protocol/openapi.json says something else than the code; rewrite it with\n    {HOW}\nand look at the difference"
    );
    fs::write(path, wanted).expect("docs can be written");
}

#[test]
fn every_operation_says_how_it_fails() {
    let document = tidings_media::openapi();
    let paths = document["paths"].as_object().expect("there are paths");
    let operations: Vec<&Value> = paths
        .values()
        .flat_map(|path| path.as_object().expect("operations").values())
        .collect();
    assert_eq!(operations.len(), 9);
    for operation in operations {
        let name = operation["operationId"].as_str().expect("a name");
        if name != "tusOptions" {
            let failure = &operation["responses"]["401"]["content"]["application/json"]["schema"]["$ref"];
            assert_eq!(failure, "#/components/schemas/Failure", "{name}");
        }
    }
}
