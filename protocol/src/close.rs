//! Why a connection was closed, and whether to come back.

/// The close codes that Tidings sends, with what a client does about each.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// This gateway restarts: come back after `retryAfterMs`.
    Restart = 1012,
    /// Overloaded: come back with back-off and full jitter.
    Overloaded = 1013,
    /// Not a Tidings frame.
    NotTidings = 4400,
    /// The token is missing, forged or expired: get a new one, then come back.
    Unauthorized = 4401,
    /// The client was removed or the user suspended.
    Forbidden = 4403,
    /// No hello, no pong, or a socket that nobody reads.
    Timeout = 4408,
    /// This client connected elsewhere.
    Replaced = 4409,
    /// A frame over `frameBytes`.
    FrameTooLarge = 4413,
}

impl CloseCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 8] = [
        Self::Restart,
        Self::Overloaded,
        Self::NotTidings,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Timeout,
        Self::Replaced,
        Self::FrameTooLarge,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code that a received number means, if Tidings sends it.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether the client comes back by itself. After [`Self::Unauthorized`] it needs a new token first.
    pub const fn reconnect(self) -> bool {
        matches!(
            self,
            Self::Restart | Self::Overloaded | Self::Unauthorized | Self::Timeout
        )
    }
}
