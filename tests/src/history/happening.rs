//! What was done to the system, and what became of its processes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// Something that happened to the system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Moment,
    /// What.
    #[serde(flatten)]
    pub happening: Happening,
}

/// What happened. A target is a process as `tidings up` names it (`gateway-1`, `nats-2`, `postgres`), or what a proxy
/// stands in front of. Whatever concerns a NATS server begins with `nats`: the judge knows what its restart forgets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "happening", rename_all = "camelCase")]
pub enum Happening {
    /// A fault is in force from here on.
    FaultBegins {
        /// What it is, such as `SIGSTOP`.
        fault: String,
        /// Whom it hits.
        target: String,
    },
    /// It is over: what hit the target is gone, which need not mean that the target is well.
    FaultEnds {
        /// The same as when it began.
        fault: String,
        /// The same as when it began.
        target: String,
    },
    /// A process runs.
    ProcessStarted {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// A process is gone.
    ProcessEnded {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// Anything else worth telling in a story.
    Note {
        /// What.
        text: String,
    },
}

impl Happening {
    /// A fault in force.
    pub fn begins(fault: impl Into<String>, target: impl Into<String>) -> Self {
        Self::FaultBegins {
            fault: fault.into(),
            target: target.into(),
        }
    }

    /// The end of a fault.
    pub fn ends(fault: impl Into<String>, target: impl Into<String>) -> Self {
        Self::FaultEnds {
            fault: fault.into(),
            target: target.into(),
        }
    }

    /// A note.
    pub fn note(text: impl Into<String>) -> Self {
        Self::Note { text: text.into() }
    }

    /// Whom it concerns, where it concerns somebody.
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::FaultBegins { target, .. } | Self::FaultEnds { target, .. } => Some(target),
            Self::ProcessStarted { name, .. } | Self::ProcessEnded { name, .. } => Some(name),
            Self::Note { .. } => None,
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FaultBegins { fault, target } => write!(f, "{target}: {fault} begins"),
            Self::FaultEnds { fault, target } => write!(f, "{target}: {fault} ends"),
            Self::ProcessStarted { name, pid } => write!(f, "{name}: runs as {pid}"),
            Self::ProcessEnded { name, pid } => write!(f, "{name}: {pid} is gone"),
            Self::Note { text } => f.write_str(text),
        }
    }
}
