//! Private NATS and Postgres servers for `tidings up` and the tests: finds or installs the real programs, starts
//! and stops them. Nothing here knows what the servers are used for.

mod account;
mod cores;
mod find;
mod folders;
mod guard;
mod identity;
mod install;
mod nats;
mod port;
mod postgres;
mod probe;
mod seaweed;
mod secret;
mod server;
mod timer_slack;
mod version;

pub use cores::half_of_the_cores;
pub use find::{Finder, NatsProgram, PostgresPrograms, SeaweedProgram};
pub use folders::{check_way_of_postgres, default_cache_dir, default_data_dir, let_postgres_through};
pub use identity::{started, stop_leftover};
pub use nats::{NatsCluster, NatsOptions, NatsPorts, NatsSecrets, NatsServer};
pub use port::{free_ports, is_free};
pub use postgres::{Postgres, PostgresOptions};
pub use probe::Probe;
pub use seaweed::Seaweed;
pub use secret::{new_secret, write_private};
pub use server::{Orphaned, Server, Spec, describe};
pub use version::Version;
