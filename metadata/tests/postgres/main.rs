//! What the crate promises, on a real Postgres.

mod attachments;
mod blob_schedules;
mod chats;
mod clients;
mod direct_chats;
mod fan_out_history;
mod given_up;
mod idle_clients;
mod inbox_sweeps;
mod leases;
mod migrations;
mod outbox;
mod participants;
mod prune;
mod recorded;
mod requests;
mod restored;
mod suspension;
mod test_database;
