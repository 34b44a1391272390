//! The contract with clients: what the frames look like on the wire, what becomes of bad ones, and that
//! `docs/PROTOCOL.md` and `docs/protocol/` say the same as the code.

mod asyncapi;
mod checked_in;
mod document;
mod frames;
mod golden;
mod hostile;
mod layout;
mod recorded;
mod round_trip;
mod schema;
mod validate;
