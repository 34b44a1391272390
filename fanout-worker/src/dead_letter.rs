//! Puts an event aside that can never be processed, with the reason.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use tidings_nats::{Bus, HEADER_REASON, HEADER_TRIES, PublishError, dead_letter_subject};

use crate::fan_out::Incoming;

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// A sentence or two.
const REASON_CHARS_MAX: usize = 500;

/// Stores the event in `DEAD_LETTERS`. Once, however often this is tried: the id is the event's sequence.
pub(crate) async fn dead_letter(
    bus: &Bus,
    incoming: &Incoming,
    payload: Bytes,
    reason: &str,
    tries: u32,
) -> Result<(), PublishError> {
    let mut headers = kept(&incoming.headers);
    headers.insert(NATS_MESSAGE_ID, format!("dead.{}", incoming.sequence));
    // A header ends at the line's end, and the reason may quote what came from outside.
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    headers.insert(
        HEADER_REASON,
        reason.replace(|letter: char| letter.is_control(), " "),
    );
    headers.insert(HEADER_TRIES, tries.to_string());
    let subject = dead_letter_subject(&incoming.subject);
    let mut result = bus
        .publish(subject.clone(), headers.clone(), payload, PUBLISH_TIMEOUT)
        .await;
    if result == Err(PublishError::TooLarge) {
        // The reason made it larger than what CHATS took. No event of ours is as large.
        result = bus.publish(subject, headers, Bytes::new(), PUBLISH_TIMEOUT).await;
    }
    result?;
    metrics::counter!("tidings_fanout_dead_letters_total").increment(1);
    tracing::error!(
        stream.sequence = incoming.sequence,
        subject = incoming.subject,
        reason,
        tries,
        "an event cannot be processed and is a dead letter"
    );
    Ok(())
}

/// Our own headers, and not those that tell JetStream what to do.
fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for (name, values) in headers.iter() {
        if !name.to_string().starts_with("Nats-") {
            for value in values {
                kept.append(name.clone(), value.clone());
            }
        }
    }
    kept
}
