//! What operators see: the real `nats` command, the commands that look inside, and the guide that tells of both.

mod attachment_requests;
mod backup;
mod dead_letters;
mod explain;
mod guide;
mod hands;
mod inboxes;
mod look;
mod monitoring;
mod nats_command;
mod nats_users;
mod scene;
mod settings;
mod shell;
mod top;
mod traces;
