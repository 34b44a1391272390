//! `Upload-Metadata`: pairs of a key and a value in Base64, separated by commas.

use std::collections::HashMap;

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tidings_metadata::AttachmentRecord;

use super::UPLOAD_METADATA;
use crate::refusal::Refusal;

/// Keys that are looked at, besides some that nobody asked for.
const KEYS_MAX: usize = 32;

/// Reads the header. Keys that are not known here are nobody's concern.
pub(super) fn read(headers: &HeaderMap) -> Result<HashMap<String, String>, Refusal> {
    let wrong = |message: &str| Refusal::bad_request("Upload-Metadata", message);
    let Some(value) = headers.get(UPLOAD_METADATA) else {
        return Ok(HashMap::new());
    };
    let text = value.to_str().map_err(|_| wrong("ASCII is expected"))?;
    let mut metadata = HashMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = BASE64_STANDARD.decode(value.trim());
        let value = value.map_err(|_| wrong("values are in Base64"))?;
        let value = String::from_utf8(value).map_err(|_| wrong("values are UTF-8"))?;
        if metadata.insert(key.to_owned(), value).is_some() || metadata.len() > KEYS_MAX {
            return Err(wrong("a key is there twice, or there are too many"));
        }
    }
    Ok(metadata)
}

/// Says again what is known of an upload.
pub(super) fn write(record: &AttachmentRecord) -> HeaderValue {
    let mut text = format!(
        "hash {},contentType {}",
        BASE64_STANDARD.encode(record.hash.to_string()),
        BASE64_STANDARD.encode(&record.content_type)
    );
    if let Some(name) = &record.name {
        text = format!("{text},name {}", BASE64_STANDARD.encode(name));
    }
    HeaderValue::try_from(text).expect("Base64 is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Option<Vec<(String, String)>> {
        let mut headers = HeaderMap::new();
        headers.insert(UPLOAD_METADATA, HeaderValue::from_str(text).expect("ASCII"));
        let mut pairs: Vec<_> = read(&headers).ok()?.into_iter().collect();
        pairs.sort();
        Some(pairs)
    }

    #[test]
    fn pairs_are_read() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read_text("name Y2F0LnBuZw==, filetype aW1hZ2UvcG5n,empty ,flag"),
            Some(vec![
                pair("empty", ""),
                pair("filetype", "image/png"),
                pair("flag", ""),
                pair("name", "cat.png")
            ])
        );
        assert_eq!(read_text(""), Some(vec![]));
        for wrong in ["name cat.png", "name /w==", "a YQ==,a YQ=="] {
            assert_eq!(read_text(wrong), None, "{wrong}");
        }
    }
}
