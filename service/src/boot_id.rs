//! Which run of a process it is.

use std::fmt;

use uuid::Uuid;

/// A random id that a process takes at its start, written as 32 hexadecimal digits, which suits subjects, keys and
/// consumer names. A process that starts again is another one: nothing that was said to the old one reaches it.
#[derive(Copy, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId(pub Uuid);

impl BootId {
    /// A new one.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.simple(), f)
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
