//! Real servers, set up as `tidings setup` does.

use tidings_metadata::Metadata;
use tidings_nats::setup::{self, SetupOptions};
use tidings_nats::{Bus, Topology};
use tidings_service::{NatsConnection, NatsSettings};
use tidings_stack::{NatsServer, Postgres};

/// A NATS and a Postgres of one test.
pub(crate) struct System {
    pub(crate) nats: NatsServer,
    pub(crate) postgres: Postgres,
}

impl System {
    /// Started and empty.
    pub(crate) async fn empty() -> Self {
        tidings_service::start::install_crypto_provider();
        let (nats, postgres) = tokio::join!(NatsServer::start_temp(), Postgres::start_temp());
        Self {
            nats: nats.expect("nats-server starts"),
            postgres: postgres.expect("Postgres starts"),
        }
    }

    /// With streams and tables.
    pub(crate) async fn start() -> Self {
        let system = Self::empty().await;
        let settings = NatsSettings::parse(&system.nats.url()).expect("the URL is valid");
        let nats = NatsConnection::connect(&settings, "setup")
            .await
            .expect("nats-server answers");
        // A few shards are made faster than 64.
        let topology = Topology {
            partitions: 4,
            shards: 4,
        };
        let options = SetupOptions {
            topology,
            ..SetupOptions::default()
        };
        let bus = Bus::new(nats.client().clone());
        setup::apply(&bus, &options, false)
            .await
            .expect("streams are made");
        let metadata = Metadata::connect(system.postgres.url(), 2).expect("the URL is valid");
        metadata.migrate().await.expect("tables are made");
        metadata.close().await;
        system
    }
}
