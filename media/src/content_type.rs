//! What an attachment says it is. Kept as the uploader said it, never looked for in the bytes.

use axum::http::HeaderValue;
use tidings_protocol::check_content_type;

/// Where nothing was said, or nothing that can be said again.
pub(crate) const DEFAULT: &str = "application/octet-stream";

/// Types that a page may show by itself: pictures, sound and films whose formats carry no scripts. No SVG, no PDF.
const INLINE: &[&str] = &[
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/opus",
    "audio/wav",
    "audio/webm",
    "video/mp4",
    "video/ogg",
    "video/webm",
];

/// The header with it. Whoever took the attachment has checked it; what a header could not carry is not said again.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    check_content_type("contentType", text)
        .ok()
        .and_then(|()| HeaderValue::from_str(text).ok())
        .unwrap_or(HeaderValue::from_static(DEFAULT))
}

/// Whether a page may show it by itself.
pub(crate) fn is_inline(text: &str) -> bool {
    let essence = text.split(';').next().unwrap_or_default().trim();
    INLINE.iter().any(|inline| inline.eq_ignore_ascii_case(essence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_said_as_they_came_or_not_at_all() {
        for text in [
            "image/png",
            "text/html; charset=utf-8",
            "application/x-Strange+json",
            "TEXT/PLAIN",
        ] {
            assert_eq!(header_value(text), text);
        }
        for text in ["", "png", "image/png\r\nX: y", "é/x"] {
            assert_eq!(header_value(text), DEFAULT, "{text}");
        }
    }

    #[test]
    fn only_what_carries_no_scripts_is_shown() {
        for text in [
            "image/png",
            "IMAGE/PNG",
            "image/jpeg; q=1",
            "video/mp4",
            "audio/ogg; codecs=opus",
        ] {
            assert!(is_inline(text), "{text}");
        }
        for text in [
            "text/html",
            "image/svg+xml",
            "application/pdf",
            "text/plain",
            "video/mp4x",
            "",
        ] {
            assert!(!is_inline(text), "{text}");
        }
    }
}
