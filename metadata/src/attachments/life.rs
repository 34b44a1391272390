//! For how long attachments and what belongs to them live. All by Postgres' clock.

/// Hours in which a slot that no message names wants something done with it: to be made, uploaded to, or made whole.
/// An upload over a slow link takes hours, and a person may sleep over what to write.
pub(super) const UNNAMED_HOURS: i32 = 24;
/// Days after the last message that names it: one more than an inbox keeps a message.
pub(super) const NAMED_DAYS: i32 = 31;
/// Days after which a slot that is gone is forgotten: as long as messages that name it may still be read somewhere.
pub(super) const GONE_DAYS: i32 = 31;
/// Hours after which an upload that nobody goes on with is given up: as long as its slot would live without it.
pub(super) const LEFT_HOURS: i32 = UNNAMED_HOURS;
/// Blobs begun for one slot: the tries of a bad link, and a bound on what they leave in the store until it is removed.
pub(super) const UPLOADS_MAX: i16 = 20;
