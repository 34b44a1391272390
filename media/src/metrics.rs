//! What media measures.

use tidings_protocol::ErrorCode;
use tidings_service::{Metric, describe_metrics};

const METRICS: &[Metric] = &[
    Metric::counter(
        "tidings_media_answers_total",
        "Answers, by method and class of status",
    )
    .as_it_happens(),
    Metric::counter("tidings_media_uploads_total", "Uploads that have ended, by how").by(
        "outcome",
        &[
            "stored",
            "part",
            "refused",
            "already_stored",
            "busy",
            "superseded",
            "stopping",
            "client_gone",
            "client_silent",
            "checksum_mismatch",
            "hash_mismatch",
            "store_full",
            "store_away",
            "defect",
            "database",
        ],
    ),
    Metric::histogram("tidings_media_upload_seconds", "Uploads that came to their end"),
    Metric::gauge("tidings_media_uploads", "Uploads under way"),
    Metric::gauge("tidings_media_downloads", "Downloads under way"),
    Metric::counter("tidings_media_upload_bytes_total", "Bytes that came in"),
    Metric::counter("tidings_media_download_bytes_total", "Bytes that went out"),
    Metric::counter(
        "tidings_media_connections_refused_total",
        "Connections beyond what one address may have",
    ),
];

/// Methods that are counted by name.
pub(crate) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Makes them known.
pub(crate) fn describe() {
    describe_metrics(METRICS);
    metrics::gauge!("tidings_media_uploads").set(0);
    metrics::gauge!("tidings_media_downloads").set(0);
    for method in METHODS {
        metrics::counter!("tidings_media_answers_total", "method" => method, "status" => "5xx").increment(0);
    }
    for code in ErrorCode::ALL {
        metrics::counter!("tidings_errors_total", "code" => code.as_str().to_owned()).increment(0);
    }
}
