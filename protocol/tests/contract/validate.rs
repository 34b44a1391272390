//! What is refused of a frame that can be read, with its code and field.

use tidings_protocol::{
    ATTACHMENTS_MAX, AttachmentId, CONTENT_TYPE_BYTES_MAX, ClientFrame, CreateAttachment, CreateChat,
    ErrorCode, Hello, ListChats, MESSAGE_BYTES_MAX, NAME_CHARS_MAX, Received, SendMessage,
};

use uuid::Uuid;

use crate::frames::{chat, client_frames, message, request, user};

#[track_caller]
fn check(frame: impl Into<ClientFrame>, expected: Option<(&ErrorCode, &str)>) {
    let found = frame.into().validate();
    let found = found
        .as_ref()
        .err()
        .map(|error| (&error.code, error.field.as_deref().unwrap_or_default()));
    assert_eq!(found, expected);
}

fn named(name: Option<&str>) -> CreateChat {
    CreateChat {
        id: 1,
        request_id: request(),
        participants: vec![user("bob")],
        name: name.map(str::to_owned),
    }
}

fn saying(text: &str, attachments: usize) -> SendMessage {
    SendMessage {
        id: 1,
        chat_id: chat(),
        message_id: message(),
        message: text.to_owned(),
        attachments: (0..attachments).map(|id| attachment(id as u128)).collect(),
    }
}

fn attachment(id: u128) -> AttachmentId {
    AttachmentId(Uuid::from_u128(id))
}

#[test]
fn the_samples_are_fine() {
    for (name, frame) in client_frames() {
        assert_eq!(frame.validate(), Ok(()), "{name}");
    }
}

#[test]
fn names_have_1_to_100_characters_none_of_them_control() {
    let bad = Some((&ErrorCode::BadRequest, "name"));
    check(named(None), None);
    check(named(Some("a")), None);
    check(named(Some(&"😀".repeat(NAME_CHARS_MAX))), None);
    check(named(Some(&"a".repeat(NAME_CHARS_MAX + 1))), bad);
    check(named(Some("")), bad);
    check(named(Some("a\nb")), bad);
    let hello = |name: &str| Hello {
        id: 1,
        token: None,
        name: Some(name.to_owned()),
        replace: None,
    };
    check(hello("Pixel"), None);
    check(hello(""), bad);
}

#[test]
fn a_message_counts_bytes_and_may_be_empty_only_with_an_attachment() {
    check(saying(&"é".repeat(MESSAGE_BYTES_MAX / 2), 0), None);
    check(
        saying(&"a".repeat(MESSAGE_BYTES_MAX + 1), 0),
        Some((&ErrorCode::MessageTooLarge, "message")),
    );
    check(saying("", 0), Some((&ErrorCode::BadRequest, "message")));
    check(saying("", 1), None);
    check(saying("a", ATTACHMENTS_MAX), None);
    check(
        saying("a", ATTACHMENTS_MAX + 1),
        Some((&ErrorCode::TooManyAttachments, "attachments")),
    );
}

#[test]
fn a_page_has_1_to_100_chats() {
    let page = |limit| ListChats {
        id: 1,
        after: None,
        limit,
    };
    let bad = Some((&ErrorCode::BadRequest, "limit"));
    for (limit, expected) in [
        (None, None),
        (Some(1), None),
        (Some(100), None),
        (Some(0), bad),
        (Some(101), bad),
    ] {
        check(page(limit), expected);
    }
}

#[test]
fn a_confirmation_says_exactly_one_of_two_things() {
    let received = |delivery, through| Received { delivery, through };
    let bad = Some((&ErrorCode::BadRequest, "delivery"));
    check(received(Some(1), None), None);
    check(received(None, Some(1)), None);
    check(received(None, None), bad);
    check(received(Some(1), Some(1)), bad);
}

#[test]
fn a_hash_is_64_hexadecimal_digits() {
    let upload = |hash: &str| CreateAttachment {
        id: 1,
        hash: hash.to_owned(),
        size: 1,
        content_type: "image/png".to_owned(),
        name: None,
    };
    let bad = Some((&ErrorCode::BadRequest, "hash"));
    check(upload(&"aB".repeat(32)), None);
    check(upload(&"ab".repeat(31)), bad);
    check(upload(&"xy".repeat(32)), bad);
}

#[test]
fn a_message_names_an_attachment_once() {
    let naming = |ids: &[u128]| SendMessage {
        attachments: ids.iter().copied().map(attachment).collect(),
        ..saying("", 0)
    };
    check(naming(&[1, 2, 3]), None);
    check(
        naming(&[1, 2, 1, 2]),
        Some((&ErrorCode::BadRequest, "attachments[2]")),
    );
}

#[test]
fn a_content_type_is_a_mime_type_of_bounded_length() {
    let upload = |content_type: &str| CreateAttachment {
        id: 1,
        hash: "ab".repeat(32),
        size: 1,
        content_type: content_type.to_owned(),
        name: None,
    };
    let long = format!("a/{}", "b".repeat(CONTENT_TYPE_BYTES_MAX - 2));
    for good in [
        "image/png",
        "application/vnd.oasis.opendocument.text",
        "text/plain;charset=utf-8",
        "text/plain; charset=utf-8 ; format=flowed",
        r#"text/plain; title="a \"quoted\"; text"; a=b"#,
        "a/b",
        &long,
    ] {
        check(upload(good), None);
    }
    for bad in [
        "",
        "image",
        "image/",
        "/png",
        "image/png/x",
        "image /png",
        " image/png",
        "image/png\n",
        "image/png\r\nX-Evil: 1",
        "image/pñg",
        "image/png,text/html",
        "image/png;",
        "image/png; charset",
        "image/png; =x",
        "image/png; a=",
        "image/png; a=b c=d",
        r#"text/plain; a="open"#,
        r#"text/plain; a="open\"#,
        r#"text/plain; a="b"c"#,
        "text/plain; a=\"\r\n\"",
        "text/plain; a=\"ñ\"",
        &format!("{long}b"),
    ] {
        check(upload(bad), Some((&ErrorCode::BadRequest, "contentType")));
    }
}
