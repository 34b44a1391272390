//! The client against a scripted gateway on a real socket.

mod connecting;
mod letting_in;
mod receiving;
mod sending;
mod starting_again;
mod support;
