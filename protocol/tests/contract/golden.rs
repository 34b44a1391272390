//! What every frame looks like on the wire, as literals. postcard writes no names, so the order of the fields
//! *is* the format: a change that makes this test fail breaks every client that exists. New optional fields
//! are appended to a frame, and that appends to its bytes here.

use tidings_protocol::{ClientFrame, Codec, EncodedFrame, ServerFrame};

use crate::frames::{client_frames, server_frames};

/// Name of the sample, JSON, postcard in hexadecimal.
type Golden = (&'static str, &'static str, &'static str);

const CLIENT: &[Golden] = &[
    (
        "hello, full",
        r#"{"type":"hello","id":1,"token":"e.y.J","name":"Pixel","replace":"0199c0de-0000-7000-8000-0000000000d1"}"#,
        "00010105652e792e4a0105506978656c01100199c0de0000700080000000000000d1",
    ),
    ("hello, minimal", r#"{"type":"hello","id":1}"#, "0001000000"),
    (
        "createChat, group",
        r#"{"type":"createChat","id":2,"requestId":"0199c0de-0000-7000-8000-000000000042","participants":["bob","carol"],"name":"Lunch"}"#,
        "0102100199c0de0000700080000000000000420203626f62056361726f6c01054c756e6368",
    ),
    (
        "createChat, direct",
        r#"{"type":"createChat","id":2,"requestId":"0199c0de-0000-7000-8000-000000000042","participants":["bob"]}"#,
        "0102100199c0de0000700080000000000000420103626f6200",
    ),
    (
        "sendMessage, with a file",
        r#"{"type":"sendMessage","id":300,"chatId":"0199c0de-0000-7000-8000-00000000000c","messageId":"0199c0de-0000-7000-8000-000000000123","message":"zoë","attachments":["0199c0de-0000-4000-8000-0000000000af"]}"#,
        "02ac02100199c0de00007000800000000000000c100199c0de000070008000000000000123047a6fc3ab01100199c0de0000400080000000000000af",
    ),
    (
        "sendMessage",
        r#"{"type":"sendMessage","id":3,"chatId":"0199c0de-0000-7000-8000-00000000000c","messageId":"0199c0de-0000-7000-8000-000000000123","message":"hi"}"#,
        "0203100199c0de00007000800000000000000c100199c0de00007000800000000000012302686900",
    ),
    (
        "modifyChatParticipants, ADD",
        r#"{"type":"modifyChatParticipants","id":4,"requestId":"0199c0de-0000-7000-8000-000000000042","chatId":"0199c0de-0000-7000-8000-00000000000c","userId":"dave","operation":"ADD"}"#,
        "0304100199c0de000070008000000000000042100199c0de00007000800000000000000c046461766500",
    ),
    (
        "modifyChatParticipants, REMOVE",
        r#"{"type":"modifyChatParticipants","id":4,"requestId":"0199c0de-0000-7000-8000-000000000042","chatId":"0199c0de-0000-7000-8000-00000000000c","userId":"dave","operation":"REMOVE"}"#,
        "0304100199c0de000070008000000000000042100199c0de00007000800000000000000c046461766501",
    ),
    (
        "createAttachment",
        r#"{"type":"createAttachment","id":5,"hash":"abababababababababababababababababababababababababababababababab","size":300,"contentType":"image/png","name":"cat.png"}"#,
        "04054061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162ac0209696d6167652f706e6701076361742e706e67",
    ),
    (
        "listChats, next page",
        r#"{"type":"listChats","id":6,"after":"0199c0de-0000-7000-8000-00000000000c","limit":100}"#,
        "050601100199c0de00007000800000000000000c0164",
    ),
    ("listChats", r#"{"type":"listChats","id":6}"#, "05060000"),
    (
        "getChat",
        r#"{"type":"getChat","id":7,"chatId":"0199c0de-0000-7000-8000-00000000000c"}"#,
        "0607100199c0de00007000800000000000000c",
    ),
    ("listClients", r#"{"type":"listClients","id":8}"#, "0708"),
    (
        "removeClient",
        r#"{"type":"removeClient","id":9,"clientId":"0199c0de-0000-7000-8000-0000000000d1"}"#,
        "0809100199c0de0000700080000000000000d1",
    ),
    (
        "renewToken",
        r#"{"type":"renewToken","id":10,"token":"e.y.J"}"#,
        "090a05652e792e4a",
    ),
    ("ping", r#"{"type":"ping","id":11}"#, "0a0b"),
    ("received, one", r#"{"type":"received","delivery":3}"#, "0b010300"),
    (
        "received, through",
        r#"{"type":"received","through":300}"#,
        "0b0001ac02",
    ),
];

const SERVER: &[Golden] = &[
    (
        "welcome",
        r#"{"type":"welcome","id":1,"userId":"alice","clientId":"0199c0de-0000-7000-8000-0000000000d1","registration":"new","serverTime":"2026-11-25T03:33:49.123Z","tokenExpiresAt":"2026-11-25T03:33:49.123Z","mediaUrl":"https://m.example/","backlog":12,"limits":{"messageBytes":65536,"frameBytes":131072,"attachments":10,"attachmentBytes":1073741824,"participants":100,"clients":3,"window":256,"windowBytes":262144,"retryWindowSeconds":600,"pingSeconds":30,"retentionDays":30}}"#,
        "000105616c696365100199c0de0000700080000000000000d10186a7a28cc26886a7a28cc268011268747470733a2f2f6d2e6578616d706c652f0c8080048080080a808080800464038002808010d8041e1e",
    ),
    (
        "reply, nothing else",
        r#"{"type":"reply","id":9,"status":"SUCCESS"}"#,
        "010109000000000000000000000000000000000000",
    ),
    (
        "reply, failure without id",
        r#"{"type":"reply","id":null,"status":"FAILURE","error":{"code":"bad_request","message":"not a user id","field":"participants[3]","retryable":false,"retryAfterMs":250}}"#,
        "010001010b6261645f726571756573740d6e6f7420612075736572206964010f7061727469636970616e74735b335d0001fa010000000000000000000000000000000000",
    ),
    (
        "reply, too many clients",
        r#"{"type":"reply","id":1,"status":"FAILURE","error":{"code":"too_many_clients","message":"three already","retryable":false,"clients":[{"clientId":"0199c0de-0000-7000-8000-0000000000d1","name":"Pixel","lastSeen":"2026-11-25T03:33:49.123Z","online":false}]}}"#,
        "010101010110746f6f5f6d616e795f636c69656e74730d746872656520616c72656164790000000101100199c0de0000700080000000000000d10105506978656c86a7a28cc2680000000000000000000000000000000000",
    ),
    (
        "reply to createChat",
        r#"{"type":"reply","id":2,"status":"SUCCESS","chatId":"0199c0de-0000-7000-8000-00000000000c","seq":40,"created":true}"#,
        "010102000001100199c0de00007000800000000000000c0128010100000000000000000000000000",
    ),
    (
        "reply to sendMessage",
        r#"{"type":"reply","id":3,"status":"SUCCESS","seq":41,"sentAt":"2026-11-25T03:33:49.123Z","duplicate":true}"#,
        "0101030000000129000186a7a28cc26801010000000000000000000000",
    ),
    (
        "reply to modifyChatParticipants",
        r#"{"type":"reply","id":4,"status":"SUCCESS","seq":42,"changed":false}"#,
        "010104000000012a000000010000000000000000000000",
    ),
    (
        "reply to createAttachment",
        r#"{"type":"reply","id":5,"status":"SUCCESS","attachmentId":"0199c0de-0000-4000-8000-0000000000af","uploadUrl":"https://m.example/u","uploaded":false}"#,
        "010105000000000000000001100199c0de0000400080000000000000af011368747470733a2f2f6d2e6578616d706c652f75010000000000000000",
    ),
    (
        "reply to listChats, last page",
        r#"{"type":"reply","id":6,"status":"SUCCESS","chats":[{"chatId":"0199c0de-0000-7000-8000-00000000000c","kind":"group","name":"Lunch","version":7,"participants":[{"userId":"alice","role":"admin"},{"userId":"bob","role":"member"}]}],"next":null}"#,
        "01010600000000000000000000000101100199c0de00007000800000000000000c0101054c756e6368070205616c6963650003626f620101000000000000",
    ),
    (
        "reply to listChats, more",
        r#"{"type":"reply","id":6,"status":"SUCCESS","chats":[],"next":"0199c0de-0000-7000-8000-00000000000c"}"#,
        "010106000000000000000000000001000101100199c0de00007000800000000000000c0000000000",
    ),
    (
        "reply to getChat",
        r#"{"type":"reply","id":7,"status":"SUCCESS","chat":{"chatId":"0199c0de-0000-7000-8000-00000000000c","kind":"direct","version":7,"participants":[{"userId":"alice","role":"admin"},{"userId":"bob","role":"member"}]},"notYetConnected":["bob"]}"#,
        "0101070000000000000000000000000001100199c0de00007000800000000000000c0000070205616c6963650003626f6201000000010103626f62",
    ),
    (
        "reply to listClients",
        r#"{"type":"reply","id":8,"status":"SUCCESS","clients":[{"clientId":"0199c0de-0000-7000-8000-0000000000d1","lastSeen":"2026-11-25T03:33:49.123Z","online":true}]}"#,
        "01010800000000000000000000000000000101100199c0de0000700080000000000000d10086a7a28cc26801000000",
    ),
    (
        "reply to renewToken",
        r#"{"type":"reply","id":10,"status":"SUCCESS","tokenExpiresAt":"2026-11-25T03:33:49.123Z"}"#,
        "01010a0000000000000000000000000000000186a7a28cc2680000",
    ),
    (
        "reply to ping",
        r#"{"type":"reply","id":11,"status":"SUCCESS","serverTime":"2026-11-25T03:33:49.123Z"}"#,
        "01010b000000000000000000000000000000000186a7a28cc26800",
    ),
    (
        "newMessage, with a file",
        r#"{"type":"newMessage","delivery":1,"chatId":"0199c0de-0000-7000-8000-00000000000c","seq":41,"messageId":"0199c0de-0000-7000-8000-000000000123","userId":"alice","clientId":"0199c0de-0000-7000-8000-0000000000d1","sentAt":"2026-11-25T03:33:49.123Z","message":"hi","attachments":[{"attachmentId":"0199c0de-0000-4000-8000-0000000000af","size":300,"contentType":"image/png","hash":"abababababababababababababababababababababababababababababababab","name":"cat.png"}]}"#,
        "0201100199c0de00007000800000000000000c29100199c0de00007000800000000000012305616c696365100199c0de0000700080000000000000d186a7a28cc26802686901100199c0de0000400080000000000000afac0209696d6167652f706e67406162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616201076361742e706e67",
    ),
    (
        "newMessage",
        r#"{"type":"newMessage","delivery":300,"chatId":"0199c0de-0000-7000-8000-00000000000c","seq":70000,"messageId":"0199c0de-0000-7000-8000-000000000123","userId":"alice","clientId":"0199c0de-0000-7000-8000-0000000000d1","sentAt":"2026-11-25T03:33:49.123Z","message":"zoë \"q\"","attachments":[]}"#,
        "02ac02100199c0de00007000800000000000000cf0a204100199c0de00007000800000000000012305616c696365100199c0de0000700080000000000000d186a7a28cc268087a6fc3ab2022712200",
    ),
    (
        "chatUpdate, group",
        r#"{"type":"chatUpdate","delivery":2,"chatId":"0199c0de-0000-7000-8000-00000000000c","seq":42,"version":8,"at":"2026-11-25T03:33:49.123Z","by":"alice","kind":"group","name":"Lunch","you":"member","added":["dave"],"removed":[],"participants":[{"userId":"alice","role":"admin"},{"userId":"bob","role":"member"}]}"#,
        "0302100199c0de00007000800000000000000c2a0886a7a28cc26805616c6963650101054c756e636802010464617665000205616c6963650003626f6201",
    ),
    (
        "chatUpdate, removed",
        r#"{"type":"chatUpdate","delivery":3,"chatId":"0199c0de-0000-7000-8000-00000000000c","seq":43,"version":9,"at":"2026-11-25T03:33:49.123Z","by":"alice","kind":"group","you":"removed","added":[],"removed":["bob"],"participants":[]}"#,
        "0303100199c0de00007000800000000000000c2b0986a7a28cc26805616c696365010001000103626f6200",
    ),
    (
        "inboxTrimmed",
        r#"{"type":"inboxTrimmed","delivery":3,"reason":"full","missed":118,"since":"2026-11-25T03:33:49.123Z","until":"2026-11-25T03:33:49.123Z","chats":["0199c0de-0000-7000-8000-00000000000c"]}"#,
        "040300017686a7a28cc26886a7a28cc26801100199c0de00007000800000000000000c",
    ),
    (
        "inboxTrimmed, about nobody knows how many",
        r#"{"type":"inboxTrimmed","delivery":3,"reason":"inactive","missed":null,"since":"2026-11-25T03:33:49.123Z","until":"2026-11-25T03:33:49.123Z","chats":[]}"#,
        "0403020086a7a28cc26886a7a28cc26800",
    ),
    ("caughtUp", r#"{"type":"caughtUp"}"#, "05"),
    (
        "notice, unknown delivery",
        r#"{"type":"notice","code":"unknown_delivery","delivery":9}"#,
        "06000109",
    ),
    (
        "notice, window full",
        r#"{"type":"notice","code":"window_full"}"#,
        "060100",
    ),
    (
        "tokenExpiring",
        r#"{"type":"tokenExpiring","expiresAt":"2026-11-25T03:33:49.123Z"}"#,
        "0786a7a28cc268",
    ),
    (
        "closing, come back",
        r#"{"type":"closing","code":"unavailable","reconnect":true,"retryAfterMs":1200}"#,
        "080b756e617661696c61626c650101b009",
    ),
    (
        "closing, for good",
        r#"{"type":"closing","code":"client_removed","reconnect":false}"#,
        "080e636c69656e745f72656d6f7665640000",
    ),
];

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

pub(crate) fn unhex(digits: &str) -> Vec<u8> {
    let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair: String = pair.iter().collect();
            u8::from_str_radix(&pair, 16).expect("two hexadecimal digits")
        })
        .collect()
}

/// Encodes, compares with the literals, decodes the literals, compares with the frame.
fn check<F: PartialEq + std::fmt::Debug>(
    frames: Vec<(&'static str, F)>,
    golden: &[Golden],
    encode: impl Fn(Codec, &F) -> EncodedFrame,
    decode: impl Fn(Codec, &[u8]) -> F,
) {
    assert_eq!(frames.len(), golden.len(), "one literal for each sample");
    for ((name, frame), (golden_name, json, postcard)) in frames.into_iter().zip(golden) {
        assert_eq!(&name, golden_name, "samples and literals stand in the same order");
        let EncodedFrame::Text(text) = encode(Codec::Json, &frame) else {
            panic!("JSON is text");
        };
        assert_eq!(&text, json, "{name}");
        let EncodedFrame::Binary(bytes) = encode(Codec::Postcard, &frame) else {
            panic!("postcard is binary");
        };
        assert_eq!(&hex(&bytes), postcard, "{name}");
        assert_eq!(decode(Codec::Json, json.as_bytes()), frame, "{name}");
        assert_eq!(decode(Codec::Postcard, &unhex(postcard)), frame, "{name}");
    }
}

#[test]
fn client_frames_look_like_this() {
    check(client_frames(), CLIENT, Codec::encode_client, |codec, bytes| {
        codec.decode_client(bytes).expect("a good frame")
    });
}

#[test]
fn server_frames_look_like_this() {
    check(server_frames(), SERVER, Codec::encode_server, |codec, bytes| {
        codec.decode_server(bytes).expect("a good frame")
    });
}

#[test]
fn numbers_and_types_never_change() {
    assert_eq!(
        ClientFrame::KINDS,
        [
            "hello",
            "createChat",
            "sendMessage",
            "modifyChatParticipants",
            "createAttachment",
            "listChats",
            "getChat",
            "listClients",
            "removeClient",
            "renewToken",
            "ping",
            "received",
        ]
    );
    assert_eq!(
        ServerFrame::KINDS,
        [
            "welcome",
            "reply",
            "newMessage",
            "chatUpdate",
            "inboxTrimmed",
            "caughtUp",
            "notice",
            "tokenExpiring",
            "closing",
        ]
    );
    for (name, frame) in client_frames() {
        let EncodedFrame::Binary(bytes) = Codec::Postcard.encode_client(&frame) else {
            panic!("postcard is binary");
        };
        assert_eq!(ClientFrame::KINDS[usize::from(bytes[0])], frame.kind(), "{name}");
    }
    for (name, frame) in server_frames() {
        let EncodedFrame::Binary(bytes) = Codec::Postcard.encode_server(&frame) else {
            panic!("postcard is binary");
        };
        assert_eq!(ServerFrame::KINDS[usize::from(bytes[0])], frame.kind(), "{name}");
    }
}
