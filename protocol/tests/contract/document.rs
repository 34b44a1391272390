//! `docs/PROTOCOL.md` says what the code does: its examples are parsed, its tables made from the code.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use tidings_protocol::{ClientFrame, CloseCode, Codec, EncodedFrame, ErrorCode, Limits, ServerFrame};

use crate::golden::unhex;
use crate::{checked_in, layout};

const PROTOCOL: &str = "PROTOCOL.md";

/// The texts of the fenced blocks with this name.
fn blocks(name: &str) -> Vec<String> {
    let text = checked_in::read(PROTOCOL);
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line == format!("```{name}") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(block.join("\n") + "\n");
        } else if line.starts_with("```") {
            // Some other block: to its end.
            lines.by_ref().find(|line| *line == "```");
        }
    }
    blocks
}

/// The examples: `-> ` what a client says, `<- ` what a server says; an indented line goes on with the frame
/// before it.
fn examples() -> Vec<(bool, String)> {
    let mut examples: Vec<(bool, String)> = Vec::new();
    for line in blocks("tidings").concat().lines().filter(|line| !line.is_empty()) {
        match (line.get(..3), line.get(3..)) {
            (Some("-> "), Some(frame)) => examples.push((true, frame.to_owned())),
            (Some("<- "), Some(frame)) => examples.push((false, frame.to_owned())),
            (Some("   "), Some(more)) => examples.last_mut().expect("it goes on").1.push_str(more.trim()),
            _ => panic!("an example begins with an arrow: {line}"),
        }
    }
    examples
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the codec writes for it.
fn rewritten(frame: EncodedFrame) -> Value {
    let EncodedFrame::Text(text) = frame else {
        panic!("JSON is text");
    };
    parsed(&text)
}

#[test]
fn every_example_is_a_frame_and_nothing_but() {
    let mut kinds = BTreeSet::new();
    for (from_client, text) in examples() {
        let (kind, again) = if from_client {
            let frame = Codec::Json.decode_client(text.as_bytes());
            let frame = frame.unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(frame.validate(), Ok(()), "{text}");
            (frame.kind(), rewritten(Codec::Json.encode_client(&frame)))
        } else {
            let frame = Codec::Json.decode_server(text.as_bytes());
            let frame = frame.unwrap_or_else(|error| panic!("{error}: {text}"));
            (frame.kind(), rewritten(Codec::Json.encode_server(&frame)))
        };
        // Written again it is the same: the example has no field that the code does not know.
        assert_eq!(again, parsed(&text), "{text}");
        kinds.insert(kind);
    }
    let all: BTreeSet<&str> = ClientFrame::KINDS
        .iter()
        .chain(ServerFrame::KINDS)
        .copied()
        .collect();
    assert_eq!(kinds, all, "every type has an example");
}

#[test]
fn the_table_of_errors_is_that_of_the_code() {
    let mut table =
        "| code | meaning | retryable | who can do something about it |\n|---|---|---|---|\n".to_owned();
    for code in ErrorCode::ALL {
        let retryable = if code.retryable() { "yes" } else { "no" };
        let (meaning, fixed_by) = (code.meaning(), code.fixed_by());
        writeln!(table, "| `{code}` | {meaning} | {retryable} | {fixed_by} |").expect("a String grows");
    }
    checked_in::section(PROTOCOL, "errors", &table);
}

#[test]
fn the_table_of_limits_is_that_of_the_code() {
    let limits = serde_json::to_value(Limits::default()).expect("limits are JSON");
    let schema = Value::from(schemars::schema_for!(Limits));
    let mut table = "| limit | default | what it bounds |\n|---|---|---|\n".to_owned();
    for name in layout::names::<Limits>() {
        let what = schema["properties"][name]["description"]
            .as_str()
            .expect("described");
        writeln!(
            table,
            "| `{name}` | {} | {} |",
            limits[name],
            what.trim_end_matches('.')
        )
        .expect("a String grows");
    }
    checked_in::section(PROTOCOL, "limits", &table);
}

#[test]
fn the_layout_of_postcard_is_that_of_the_code() {
    let client = layout::client();
    for row in client.lines().skip(2).filter(|row| !row.contains("`received`")) {
        assert!(
            row.contains(" | `id` number"),
            "a request begins with its id: {row}"
        );
    }
    checked_in::section(PROTOCOL, "client layout", &client);
    checked_in::section(PROTOCOL, "server layout", &layout::server());
    checked_in::section(PROTOCOL, "parts layout", &layout::parts());
}

#[test]
fn the_table_of_closes_is_that_of_the_code() {
    let text = checked_in::read(PROTOCOL);
    for code in CloseCode::ALL {
        let row = format!("| {} |", code.number());
        let row = text
            .lines()
            .find(|line| line.starts_with(&row))
            .unwrap_or_else(|| panic!("{code:?} has no row"));
        let back = row.split('|').nth(4).expect("four columns").trim();
        let says = match back.split([',', ' ']).next() {
            Some("yes") => true,
            Some("no") => false,
            _ => panic!("yes or no: {row}"),
        };
        assert_eq!(says, code.reconnect(), "{row}");
    }
}

#[test]
fn the_example_in_hexadecimal_is_the_json_above_it() {
    let blocks = blocks("hex");
    let [block] = blocks.as_slice() else {
        panic!("one example in hexadecimal");
    };
    // Two spaces and more part the bytes from what they mean.
    let digits: String = block
        .lines()
        .map(|line| line.split("  ").next().unwrap_or_default())
        .collect();
    let frame = Codec::Postcard
        .decode_client(&unhex(&digits))
        .expect("a good frame");
    let (_, json) = examples().pop().expect("there are examples");
    assert_eq!(Codec::Json.decode_client(json.as_bytes()), Ok(frame.clone()));
    assert_eq!(
        Codec::Postcard.encode_client(&frame),
        EncodedFrame::Binary(unhex(&digits))
    );
}

#[test]
fn the_minimal_client_is_the_file_that_is_run() {
    let blocks = blocks("js");
    let [block] = blocks.as_slice() else {
        panic!("one program");
    };
    assert_eq!(*block, checked_in::read("protocol/minimal-client.mjs"));
}
