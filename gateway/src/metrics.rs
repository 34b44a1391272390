//! What a gateway measures.

use std::sync::LazyLock;

use metrics::{Counter, Histogram};
use tidings_protocol::{CloseCode, ErrorCode};
use tidings_service::{Metric, describe_metrics};

use crate::delivery::Way;

// What every delivery counts is looked up once: by its name that takes ten times as long as counting.

/// `tidings_deliveries_total` by way.
static DELIVERIES: LazyLock<[Counter; 3]> = LazyLock::new(|| {
    [Way::Live, Way::Direct, Way::Scan]
        .map(|way| metrics::counter!("tidings_deliveries_total", "way" => way.as_str()))
});
/// `tidings_delivery_seconds`.
pub(crate) static DELIVERY_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| metrics::histogram!("tidings_delivery_seconds"));
/// `tidings_confirm_seconds`.
pub(crate) static CONFIRM_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| metrics::histogram!("tidings_confirm_seconds"));
/// `tidings_confirmed_total`.
pub(crate) static CONFIRMED: LazyLock<Counter> =
    LazyLock::new(|| metrics::counter!("tidings_confirmed_total"));

/// `tidings_deliveries_total` of this way.
pub(crate) fn deliveries(way: Way) -> &'static Counter {
    let [live, direct, scan] = &*DELIVERIES;
    match way {
        Way::Live => live,
        Way::Direct => direct,
        Way::Scan => scan,
    }
}

const METRICS: &[Metric] = &[
    Metric::gauge("tidings_sessions", "Clients that are connected"),
    Metric::counter("tidings_messages_accepted_total", "Messages that were accepted"),
    Metric::histogram(
        "tidings_accept_seconds",
        "From a message's frame to JetStream's publish ack",
    ),
    Metric::counter(
        "tidings_deliveries_total",
        "Deliveries written, of what a notice told and of what was read",
    )
    .by("way", &["direct", "live", "scan"]),
    Metric::histogram(
        "tidings_delivery_seconds",
        "From a message's acceptance to its writing, of what notices told",
    ),
    Metric::histogram(
        "tidings_confirm_seconds",
        "From the writing of a delivery to its confirmation, one at a time of each connection",
    ),
    Metric::counter(
        "tidings_confirmed_total",
        "Deliveries that were confirmed, and whose entries were deleted or need not be stored",
    ),
    Metric::counter(
        "tidings_direct_refusals_total",
        "Direct deliveries that could not be made, so that they are stored first",
    )
    .by(
        "cause",
        &[
            "in doubt",
            "unfenced",
            "suspected",
            "lane moved",
            "mailbox full",
            "session",
            "not here",
        ],
    ),
    Metric::counter(
        "tidings_direct_answers_dropped_total",
        "Answers about direct deliveries that there was no room for",
    ),
    Metric::histogram(
        "tidings_confirm_delete_seconds",
        "Requests to delete an entry that was confirmed",
    ),
    Metric::counter(
        "tidings_confirm_retries_total",
        "Such requests that failed and are made again",
    ),
    Metric::counter(
        "tidings_inbox_readings_total",
        "Readings of inboxes, by what they were for",
    )
    .by(
        "cause",
        &["start", "fence", "doubt", "notice", "check", "more", "room"],
    ),
    Metric::counter(
        "tidings_inbox_read_failures_total",
        "Tries to read an inbox that failed",
    ),
    Metric::counter("tidings_doubts_total", "Doubts about the notices to all sessions").by(
        "cause",
        &[
            "connection",
            "silent worker",
            "gap",
            "unreadable",
            "forgotten worker",
        ],
    ),
    Metric::counter(
        "tidings_session_doubts_total",
        "Notices that made one session read its inbox instead",
    )
    .by(
        "cause",
        &[
            "unfenced",
            "suspected",
            "lane moved",
            "stored before",
            "mailbox full",
        ],
    ),
    Metric::counter(
        "tidings_notices_lost_total",
        "Notices that workers have sent and this gateway has not got",
    ),
    Metric::counter(
        "tidings_closes_total",
        "Connections that the gateway has closed, by close code",
    )
    .as_it_happens(),
    Metric::counter(
        "tidings_hellos_sent_away_total",
        "Hellos that were told to come back later",
    ),
    Metric::counter(
        "tidings_durables_left_total",
        "Hellos that read their inbox without its durable",
    ),
    Metric::counter(
        "tidings_durable_failures_total",
        "Readings through a durable that were given up",
    ),
    Metric::counter(
        "tidings_durables_remade_total",
        "Durables that were deleted and made again",
    ),
    Metric::counter("tidings_end_checks_total", "Questions where inboxes end"),
    Metric::counter(
        "tidings_session_keys_put_again_total",
        "Keys of SESSIONS that were gone and were put again",
    ),
    Metric::counter(
        "tidings_cut_off_total",
        "Times that the gateway was cut off from the majority of NATS",
    ),
    Metric::counter(
        "tidings_unreadable_entries_total",
        "Entries that this version cannot read",
    ),
    Metric::counter(
        "tidings_bodies_fetched_total",
        "Large bodies that were fetched for readings of inboxes",
    ),
    Metric::counter(
        "tidings_body_failures_total",
        "Tries to fetch large bodies of a reading that BODIES did not answer",
    ),
    Metric::gauge(
        "tidings_body_waits",
        "Clients that have got all that comes before a large entry, and wait for that since BODIES does not answer",
    ),
    Metric::counter(
        "tidings_missing_bodies_total",
        "Entries whose large body is gone, and that were left out of a reading",
    ),
    Metric::counter(
        "tidings_attachments_created_total",
        "Attachments that were announced",
    ),
];

/// Makes them known.
pub(crate) fn describe() {
    describe_metrics(METRICS);
    for code in ErrorCode::ALL {
        metrics::counter!("tidings_errors_total", "code" => code.as_str().to_owned()).increment(0);
    }
    for code in CloseCode::ALL {
        metrics::counter!("tidings_closes_total", "code" => code.number().to_string()).increment(0);
    }
}

/// Counts a request that was refused.
pub(crate) fn count_error(code: &ErrorCode) {
    metrics::counter!("tidings_errors_total", "code" => code.as_str().to_owned()).increment(1);
}
