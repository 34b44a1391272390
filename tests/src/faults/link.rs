//! What a process and those it speaks to have between them.

use std::io;
use std::net::SocketAddr;

use crate::proxy::{Mode, Proxy};

/// One way for each server behind it; all of them are disturbed alike.
#[derive(Debug)]
pub(super) struct Link {
    /// `gateway-1>nats`, `people>gateway-1`: who begins connections, and to whom.
    pub(super) name: String,
    proxies: Vec<Proxy>,
}

impl Link {
    pub(super) async fn start(name: String, servers: &[SocketAddr]) -> io::Result<Self> {
        let mut proxies = Vec::new();
        for server in servers {
            proxies.push(Proxy::start(*server).await?);
        }
        Ok(Self { name, proxies })
    }

    /// Where to connect instead, in the order of the servers.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.proxies.iter().map(Proxy::address)
    }

    pub(super) fn set(&self, mode: Mode) {
        self.proxies.iter().for_each(|proxy| proxy.set(mode));
    }

    pub(super) fn cut(&self) {
        self.proxies.iter().for_each(Proxy::cut);
    }

    pub(super) fn half_close(&self) {
        self.proxies.iter().for_each(Proxy::half_close);
    }
}
