//! The service on real servers and a real folder, asked by a real HTTP client.

mod connections;
mod downloads;
mod support;
mod tus;
mod tus_js;
mod uploads;
