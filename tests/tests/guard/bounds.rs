//! The bounds of what is counted, each with what was measured when it was set, in the profile that the tests are built with.
//!
//! Whoever passes one on purpose sets it anew here, and says in the commit what the cost is for. A new version of a library
//! or of Rust may allocate otherwise; then too.

/// How often the gateway allocates, and how many bytes, for a message of 200 bytes that is taken in and delivered to nine
/// people who confirm it. Measured: 227 and 54,168. One allocation more for each delivery is nine more, and one more copy of
/// the body 1,800 bytes.
pub(crate) const GATEWAY_A_MESSAGE: [u64; 2] = [232, 55_000];

/// The fan-out worker's, who reads the message, tells the gateway, hears nine confirmations and deletes it in a round of its
/// own. Measured: 151 and 26,496, of which ten and 3,400 are what gathers the deletions of a round, here one.
pub(crate) const FANOUT_WORKER_A_MESSAGE: [u64; 2] = [155, 27_300];

/// Of the gateway's heap, for each connection that rests. Measured: 3,000 to 3,082 bytes, tables that grow by doubling and
/// what the metrics keep included; a buffer of the WebSocket codec would be 1,024 more, and a second copy of the session
/// about as much.
pub(crate) const HEAP_BYTES_A_CONNECTION: f64 = 3_400.0;

/// The same after each has carried one message of 4 KiB both ways: measured 3,400 to 3,563, against what was held just
/// before; the difference is half of a chat, which is cached for the pair. A buffer that has grown with the message would be
/// 4,096 more.
pub(crate) const HEAP_BYTES_A_CONNECTION_USED: f64 = 4_200.0;
