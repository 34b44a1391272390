//! The whole road, on real servers and processes: two gateways, two fan-out workers, two inbox workers.

mod attachments;
mod away;
mod catching_up;
mod chat_files;
mod chats;
mod client_library;
mod clients;
mod hostile;
mod large_bodies;
mod minimal_client;
mod rates;
mod retries;
mod slow_readers;
mod stopping;
mod terminal;
mod tokens;
mod two_people;
mod versions;
