//! What the receiver of a signed URL is told along with the bytes.

/// Headers that a download by a signed URL answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDownload {
    /// `Content-Type`.
    pub content_type: String,
    /// `Content-Disposition`.
    pub disposition: String,
}
