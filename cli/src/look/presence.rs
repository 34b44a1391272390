//! Where clients are connected: their keys in SESSIONS, and whether the gateways named there are alive.

use std::collections::HashMap;

use anyhow::Context as _;
use serde::Serialize;
use tidings_nats::{INSTANCES, Instance, SESSIONS, SessionKey};
use tidings_protocol::{ClientId, Timestamp};

use super::{Look, TIMEOUT};
use crate::print;

/// More gateways than a system has; the server answers no more subjects at once.
const GATEWAYS_MAX: usize = 1024;

/// What a client's key in SESSIONS says.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Presence {
    /// The gateway's boot id.
    pub(crate) gateway: String,
    /// Where clients reach it.
    pub(crate) address: Option<String>,
    /// The connection, as the key names it; text, since JSON's readers round large numbers.
    pub(crate) connection: String,
    pub(crate) since: Timestamp,
    /// False: the gateway is gone and has left the key behind, which does no harm.
    pub(crate) alive: bool,
}

/// The living gateways, by boot id.
#[derive(Debug)]
pub(crate) struct Gateways(HashMap<String, Instance>);

impl Gateways {
    /// Reads the bucket INSTANCES.
    pub(crate) async fn read(look: &Look) -> anyhow::Result<Self> {
        let stream = format!("KV_{INSTANCES}");
        let filter = format!("$KV.{INSTANCES}.gateway.*");
        let keys = look
            .bus
            .last_by_filter(&stream, &filter, GATEWAYS_MAX, TIMEOUT)
            .await
            .context("cannot read the bucket INSTANCES")?;
        let gateways = keys.iter().filter_map(|key| {
            let boot_id = key.subject.rsplit_once('.')?.1.to_owned();
            // A key that was deleted has an empty value.
            Some((boot_id, serde_json::from_slice(&key.payload).ok()?))
        });
        Ok(Self(gateways.collect()))
    }

    /// Where a client is connected, if it is.
    pub(crate) async fn presence(&self, look: &Look, client: ClientId) -> anyhow::Result<Option<Presence>> {
        let key = look
            .bus
            .leader_last(
                &format!("KV_{SESSIONS}"),
                &format!("$KV.{SESSIONS}.{client}"),
                TIMEOUT,
            )
            .await
            .context("cannot read the bucket SESSIONS")?;
        let key = key.and_then(|key| SessionKey::decode(&key.payload));
        Ok(key.map(|key| {
            let gateway = self.0.get(&key.gateway);
            Presence {
                address: gateway.and_then(|gateway| gateway.address.clone()),
                alive: gateway.is_some(),
                connection: key.connection.to_string(),
                since: key.since,
                gateway: key.gateway,
            }
        }))
    }
}

impl Presence {
    /// For people.
    pub(crate) fn show(presence: Option<&Self>, look: &Look) -> String {
        match presence {
            None => "not connected".to_owned(),
            Some(presence) if !presence.alive => {
                format!("not connected: gateway {} is gone", presence.gateway)
            }
            Some(presence) => {
                let since = print::age(look.age(presence.since));
                let address = presence.address.as_deref().unwrap_or("an unknown address");
                format!("{address} ({}), connected for {since}", presence.gateway)
            }
        }
    }
}
