//! `Content-Disposition` (RFC 6266): whether a page may show it, and under which name it is saved.

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::content_type;

/// What stays in `filename*`: `attr-char` of RFC 8187.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The header for an attachment of this type and name.
pub(crate) fn header_value(content_type: &str, name: Option<&str>) -> HeaderValue {
    let kind = if content_type::is_inline(content_type) {
        "inline"
    } else {
        "attachment"
    };
    let text = match name {
        Some(name) => with_name(kind, name),
        None => kind.to_owned(),
    };
    HeaderValue::try_from(text).expect("it has printable ASCII alone")
}

/// The name twice: for programs that know UTF-8 exactly, for others as well as ASCII can.
fn with_name(kind: &str, name: &str) -> String {
    // A path is nobody's name; a dot in front would hide the file.
    let name = name.replace(['/', '\\'], "_");
    let name = name.trim_start_matches('.');
    let name = if name.is_empty() { "_" } else { name };
    // A percent sign would be taken for an encoding by some.
    let plain = |character: char| match character {
        '"' | '%' => '_',
        ' '..='~' => character,
        _ => '_',
    };
    let ascii: String = name.chars().map(plain).collect();
    if ascii == name {
        return format!("{kind}; filename=\"{ascii}\"");
    }
    let encoded = utf8_percent_encode(name, ENCODED);
    format!("{kind}; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        for (name, expected) in [
            ("cat.png", r#"attachment; filename="cat.png""#),
            ("a b.txt", r#"attachment; filename="a b.txt""#),
            (
                "Zoë.txt",
                "attachment; filename=\"Zo_.txt\"; filename*=UTF-8''Zo%C3%AB.txt",
            ),
            (
                "x\"; filename=\"evil.exe",
                "attachment; filename=\"x_; filename=_evil.exe\"; filename*=UTF-8''x%22%3B%20filename%3D%22evil.exe",
            ),
            ("../../etc/passwd", "attachment; filename=\"_.._etc_passwd\""),
            (
                "a\r\nSet-Cookie: b",
                "attachment; filename=\"a__Set-Cookie: b\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20b",
            ),
            (
                "50%.txt",
                "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt",
            ),
            ("...", "attachment; filename=\"_\""),
            ("", "attachment; filename=\"_\""),
        ] {
            assert_eq!(header_value("text/html", Some(name)), expected, "{name:?}");
        }
        assert_eq!(header_value("image/png", None), "inline");
    }
}
