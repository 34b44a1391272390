//! Frames that are not as they should be, and the answer to each.

use tidings_protocol::{ClientFrame, Codec, Error, ErrorCode, FrameError, NUMBER_MAX, Ping, ServerFrame};

use crate::golden::unhex;

const CHAT: &str = "0199c0de-0000-7000-8000-00000000000c";

fn refused(text: &str) -> FrameError {
    match Codec::Json.decode_client(text.as_bytes()) {
        Ok(frame) => panic!("taken as {frame:?}: {text:.200}"),
        Err(refused) => refused,
    }
}

/// (frame, id of the answer, code, field)
#[track_caller]
fn check(text: &str, id: Option<u64>, code: &ErrorCode, field: Option<&str>) {
    let refused = refused(text);
    let Error {
        code: found,
        field: named,
        message,
        ..
    } = &refused.error;
    assert_eq!(
        (refused.id, found, named.as_deref()),
        (id, code, field),
        "{text:.200}: {message}"
    );
    assert!(message.chars().count() < 260, "{message}");
}

#[test]
fn what_is_no_frame_is_bad_frame() {
    for text in [
        "",
        " ",
        "hello",
        "null",
        "5",
        "\"hello\"",
        "[]",
        r#"["ping",1]"#,
        r#"[{"type":"ping","id":1}]"#,
        "{",
        r#"{"type":"ping","id":1"#,
        r#"{"type":"ping","id":1}}"#,
        r#"{"type":"ping","id":1} {"type":"ping","id":2}"#,
        r#"{"type":"ping","type":"ping","id":1}"#,
        r#"{"type":"ping","id":1,"id":2}"#,
        r"{'type':'ping','id':1}",
        "{\"type\":\"ping\",\"id\":1,\"note\":\"a\nb\"}",
        "\u{feff}{\"type\":\"ping\",\"id\":1}",
    ] {
        check(text, None, &ErrorCode::BadFrame, None);
    }
    for text in [
        r#"{"id":1}"#,
        r#"{"id":1,"type":null}"#,
        r#"{"id":1,"type":5}"#,
        r#"{"id":1,"type":["ping"]}"#,
        r#"{"id":1,"type":"\ud800"}"#,
    ] {
        check(text, Some(1), &ErrorCode::BadFrame, Some("type"));
    }
    let refused = Codec::Json.decode_client(b"{\"type\":\"ping\",\"id\":1,\"a\":\"\xff\"}");
    let refused = refused.expect_err("not UTF-8");
    assert_eq!((refused.id, refused.error.code), (None, ErrorCode::BadFrame));
}

#[test]
fn an_unknown_type_is_answered_under_its_id() {
    check(
        r#"{"type":"wave","id":7}"#,
        Some(7),
        &ErrorCode::UnknownType,
        Some("type"),
    );
    check(
        r#"{"type":"Ping","id":7}"#,
        Some(7),
        &ErrorCode::UnknownType,
        Some("type"),
    );
    check(
        r#"{"type":"welcome"}"#,
        None,
        &ErrorCode::UnknownType,
        Some("type"),
    );
    let long = format!(r#"{{"type":"{}","id":7}}"#, "x".repeat(100_000));
    check(&long, Some(7), &ErrorCode::UnknownType, Some("type"));
}

#[test]
fn unknown_fields_are_ignored_however_deep() {
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    for more in [
        r#""later":{"a":[1,2,{"b":null}]}"#.to_owned(),
        r#""later":1e400"#.to_owned(),
        r#""later":99999999999999999999999999"#.to_owned(),
        r#""later":1,"later":2"#.to_owned(),
        format!(r#""later":{deep}"#),
    ] {
        let text = format!(r#"{{{more},"type":"ping",{more},"id":1}}"#);
        let frame = Codec::Json.decode_client(text.as_bytes());
        assert_eq!(frame, Ok(ClientFrame::Ping(Ping { id: 1 })), "{text:.200}");
    }
}

#[test]
fn deep_nesting_in_a_known_field_is_only_a_wrong_type() {
    for nest in ["[", "{\"a\":"] {
        let text = format!(
            r#"{{"type":"createChat","id":1,"participants":{}"#,
            nest.repeat(20_000)
        );
        check(&text, None, &ErrorCode::BadFrame, None);
    }
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    let text = format!(r#"{{"type":"createChat","id":1,"participants":{deep}}}"#);
    check(&text, Some(1), &ErrorCode::BadRequest, Some("participants[0]"));
    let text = format!(r#"{{"type":{deep},"id":1}}"#);
    check(&text, Some(1), &ErrorCode::BadFrame, Some("type"));
    let text = format!(r#"{{"type":"ping","id":{deep}}}"#);
    check(&text, None, &ErrorCode::BadRequest, Some("id"));
}

#[test]
fn the_field_at_fault_is_named() {
    let bad = |text: &str, id: Option<u64>, field: &str| check(text, id, &ErrorCode::BadRequest, Some(field));
    // Missing.
    bad(r#"{"type":"ping"}"#, None, "id");
    bad(r#"{"type":"ping","id":null}"#, None, "id");
    bad(r#"{"type":"getChat","id":1}"#, Some(1), "chatId");
    bad(
        &format!(r#"{{"type":"sendMessage","id":1,"chatId":"{CHAT}","messageId":"{CHAT}"}}"#),
        Some(1),
        "message",
    );
    bad(
        r#"{"type":"createChat","id":1,"participants":[]}"#,
        Some(1),
        "requestId",
    );
    // Of a wrong type.
    bad(r#"{"type":"ping","id":"1"}"#, None, "id");
    bad(r#"{"type":"ping","id":1.0}"#, None, "id");
    bad(r#"{"type":"ping","id":-1}"#, None, "id");
    bad(r#"{"type":"ping","id":true}"#, None, "id");
    bad(r#"{"type":"ping","id":{}}"#, None, "id");
    bad(r#"{"type":"getChat","id":1,"chatId":5}"#, Some(1), "chatId");
    bad(r#"{"type":"getChat","id":1,"chatId":"lunch"}"#, Some(1), "chatId");
    bad(r#"{"type":"hello","id":1,"replace":"phone"}"#, Some(1), "replace");
    bad(r#"{"type":"hello","id":1,"token":[]}"#, Some(1), "token");
    bad(r#"{"type":"listChats","id":1,"limit":-1}"#, Some(1), "limit");
    bad(
        r#"{"type":"listChats","id":1,"limit":4294967296}"#,
        Some(1),
        "limit",
    );
    bad(
        &format!(
            r#"{{"type":"modifyChatParticipants","id":1,"requestId":"{CHAT}","chatId":"{CHAT}","userId":"dave","operation":"BAN"}}"#
        ),
        Some(1),
        "operation",
    );
    // Nested.
    let create = |participants: &str| {
        format!(r#"{{"type":"createChat","id":1,"requestId":"{CHAT}","participants":{participants}}}"#)
    };
    bad(&create(r#"["a","b","c",4]"#), Some(1), "participants[3]");
    bad(&create(r#"["a","b","c",""]"#), Some(1), "participants[3]");
    bad(&create(r#"["a","zoë"]"#), Some(1), "participants[1]");
    bad(&create(r#""bob""#), Some(1), "participants");
    bad(&create("null"), Some(1), "participants");
    bad(
        &format!(
            r#"{{"type":"sendMessage","id":1,"chatId":"{CHAT}","messageId":"{CHAT}","message":"","attachments":["{CHAT}","x"]}}"#
        ),
        Some(1),
        "attachments[1]",
    );
    // Twice.
    bad(
        &format!(r#"{{"type":"getChat","id":1,"chatId":"{CHAT}","chatId":"{CHAT}"}}"#),
        Some(1),
        "chatId",
    );
}

#[test]
fn the_field_is_named_within_what_a_server_says_too() {
    let text = format!(
        r#"{{"type":"reply","id":1,"status":"SUCCESS","chat":{{"chatId":"{CHAT}","kind":"group","version":1,"participants":[{{"userId":"a","role":"admin"}},{{"userId":"b"}}]}}}}"#
    );
    let refused = Codec::Json.decode_server(text.as_bytes()).expect_err("no role");
    assert_eq!(refused.error.field.as_deref(), Some("chat.participants[1].role"));
}

#[test]
fn numbers_above_what_javascript_reads_are_refused() {
    let over = NUMBER_MAX + 1;
    let bad =
        |text: String, id: Option<u64>, field: &str| check(&text, id, &ErrorCode::BadRequest, Some(field));
    bad(format!(r#"{{"type":"ping","id":{over}}}"#), None, "id");
    bad(format!(r#"{{"type":"getChat","id":{over}}}"#), None, "chatId");
    bad(format!(r#"{{"type":"ping","id":{}}}"#, u64::MAX), None, "id");
    bad(r#"{"type":"ping","id":18446744073709551616}"#.into(), None, "id");
    bad(r#"{"type":"ping","id":1e999}"#.into(), None, "id");
    bad(
        format!(r#"{{"type":"received","delivery":{over}}}"#),
        None,
        "delivery",
    );
    bad(
        format!(r#"{{"type":"received","through":{over}}}"#),
        None,
        "through",
    );
    let hash = "ab".repeat(32);
    bad(
        format!(r#"{{"type":"createAttachment","id":1,"hash":"{hash}","size":{over},"contentType":"a/b"}}"#),
        Some(1),
        "size",
    );
    let text = format!(r#"{{"type":"ping","id":{NUMBER_MAX}}}"#);
    assert!(Codec::Json.decode_client(text.as_bytes()).is_ok());
}

#[test]
fn the_answer_never_quotes_a_token_or_a_message() {
    let secret = "s3cr3t";
    for text in [
        format!(r#"{{"type":"ping","id":"{secret}"}}"#),
        format!(r#"{{"type":"listChats","id":1,"limit":"{secret}, expected or not"}}"#),
        format!(r#"{{"type":"getChat","id":1,"chatId":"{secret}"}}"#),
        format!(r#"{{"type":"createChat","id":1,"participants":"{secret}"}}"#),
        format!(r#""{secret}""#),
        format!(r#"{{"type":"sendMessage","id":1,"message":"{secret}","attachments":"{secret}"}}"#),
    ] {
        let refused = refused(&text);
        assert!(!refused.to_string().contains(secret), "{refused}");
    }
}

#[test]
fn debug_hides_tokens_messages_and_names_of_files() {
    for text in [
        r#"{"type":"hello","id":1,"token":"s3cr3t"}"#.to_owned(),
        r#"{"type":"renewToken","id":1,"token":"s3cr3t"}"#.to_owned(),
        format!(
            r#"{{"type":"sendMessage","id":1,"chatId":"{CHAT}","messageId":"{CHAT}","message":"s3cr3t"}}"#
        ),
        format!(
            r#"{{"type":"createAttachment","id":1,"hash":"{}","size":1,"contentType":"a/b","name":"s3cr3t"}}"#,
            "ab".repeat(32)
        ),
    ] {
        let frame = Codec::Json.decode_client(text.as_bytes()).expect("a good frame");
        assert!(!format!("{frame:?}").contains("s3cr3t"));
    }
    let text = format!(
        r#"{{"type":"newMessage","delivery":1,"chatId":"{CHAT}","seq":1,"messageId":"{CHAT}","userId":"a","clientId":"{CHAT}","sentAt":"2026-11-25T03:33:49Z","message":"s3cr3t"}}"#
    );
    let frame = Codec::Json.decode_server(text.as_bytes()).expect("a good frame");
    assert!(matches!(frame, ServerFrame::NewMessage(_)));
    assert!(!format!("{frame:?}").contains("s3cr3t"));
}

#[test]
fn postcard_is_answered_under_the_id_that_can_be_read() {
    let refused = |digits: &str| {
        let FrameError { id, error } = Codec::Postcard
            .decode_client(&unhex(digits))
            .expect_err("not a good frame");
        (id, error.code)
    };
    assert_eq!(refused(""), (None, ErrorCode::BadFrame));
    assert_eq!(refused("80"), (None, ErrorCode::BadFrame), "half a number");
    assert_eq!(
        refused("ffffffffff7f"),
        (None, ErrorCode::BadFrame),
        "over 32 bits"
    );
    assert_eq!(refused("02"), (None, ErrorCode::BadRequest), "no id");
    assert_eq!(
        refused("02ac02"),
        (Some(300), ErrorCode::BadRequest),
        "nothing after the id"
    );
    assert_eq!(
        refused("0607107f"),
        (Some(7), ErrorCode::BadRequest),
        "half a UUID"
    );
    assert_eq!(
        refused("060705aabbccddee"),
        (Some(7), ErrorCode::BadRequest),
        "5 bytes of UUID"
    );
    assert_eq!(
        refused("0b02"),
        (None, ErrorCode::BadRequest),
        "received has no id"
    );
    assert_eq!(refused("6307"), (Some(7), ErrorCode::UnknownType));
    assert_eq!(refused("63"), (None, ErrorCode::UnknownType));
    // 2^53 as id, and as a delivery.
    assert_eq!(refused("0a8080808080808010"), (None, ErrorCode::BadRequest));
    assert_eq!(refused("0b01808080808080801000"), (None, ErrorCode::BadRequest));
    // An option that is neither 0 nor 1; a text that is not UTF-8; a list of 2^63 users.
    assert_eq!(refused("0001020000"), (Some(1), ErrorCode::BadRequest));
    assert_eq!(refused("090a02c328"), (Some(10), ErrorCode::BadRequest));
    let list = "0102100199c0de00007000800000000000004280808080808080808001";
    assert_eq!(refused(list), (Some(2), ErrorCode::BadRequest));
}

#[test]
fn bytes_after_a_postcard_frame_are_fields_of_a_later_version() {
    let frame = Codec::Postcard.decode_client(&unhex("0a0b ffff"));
    assert_eq!(frame, Ok(ClientFrame::Ping(Ping { id: 11 })));
    let frame = Codec::Postcard.decode_server(&unhex("05 01"));
    assert!(matches!(frame, Ok(ServerFrame::CaughtUp(_))));
}

#[test]
fn a_client_can_confirm_what_it_does_not_know() {
    let text = br#"{"type":"reaction","delivery":17,"emoji":{"id":1}}"#;
    let refused = Codec::Json.decode_server(text).expect_err("not in this version");
    assert_eq!(refused.error.code, ErrorCode::UnknownType);
    assert_eq!(Codec::Json.delivery_of_unknown(text), Some(17));
    assert_eq!(Codec::Json.delivery_of_unknown(br#"{"type":"mood"}"#), None);
}

#[test]
fn a_newer_servers_error_code_is_read() {
    let text = r#"{"type":"reply","id":1,"status":"FAILURE","error":{"code":"quota","message":"m","retryable":true}}"#;
    let Ok(ServerFrame::Reply(reply)) = Codec::Json.decode_server(text.as_bytes()) else {
        panic!("a reply");
    };
    let error = reply.error.expect("it failed");
    assert_eq!(error.code, ErrorCode::Unknown("quota".into()));
    assert!(error.retryable);
}
