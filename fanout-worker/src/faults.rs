//! Only for tests, and compiled into debug builds alone: a message whose handler panics, or kills the process.
//!
//! `TIDINGS_FAULT=panic:<text>` or `abort:<text>` and others in the environment of a worker; the message is one that holds the text.

use std::convert::Infallible;
use std::str::FromStr;
use std::time::Duration;

use tidings_nats::Event;

use crate::rounds::Bounds;

/// What befalls whom. Of an unknown kind: nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    kind: String,
    text: String,
}

impl FromStr for Faults {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let (kind, text) = text.split_once(':').unwrap_or_default();
        Ok(Self {
            kind: kind.to_owned(),
            text: text.to_owned(),
        })
    }
}

impl Faults {
    /// Does to the handler of an event what is to be done.
    pub(crate) fn strike(&self, event: &Event) {
        let Event::Message(message) = event else {
            return;
        };
        if self.text.is_empty() || !message.message.contains(&self.text) {
            return;
        }
        match self.kind.as_str() {
            "panic" => panic!("on purpose"),
            "abort" => std::process::abort(),
            "overflow" => assert!(deeper(1) > 0, "it has no end"),
            // Blocks its thread, so that whoever kills the process from outside meets it in its trial.
            "block" => std::thread::sleep(Duration::from_millis(300)),
            _ => {}
        }
    }

    /// With `long-rounds`, rounds of deletions that nothing ends by itself: whoever needs them to end must see to it.
    pub(crate) fn round(&self, usual: Bounds) -> Bounds {
        if self.kind == "long-rounds" {
            return Bounds {
                length: Duration::from_hours(24),
                most: 10_000,
                most_of_chat: 10_000,
            };
        }
        usual
    }

    /// Stays here for ever with any large event, at `stall-after-body` or `stall-before-list`, so that whoever kills the worker does
    /// it there.
    pub(crate) async fn stall(&self, place: &str) {
        if self.kind.strip_prefix("stall-") == Some(place) {
            std::future::pending::<()>().await;
        }
    }
}

/// Overflows the stack.
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == 0 {
        0
    } else {
        deeper(depth + 1) + frame[63]
    }
}
