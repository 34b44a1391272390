//! What a system keeps from run to run beside its data: secrets and ports.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tidings_stack::{NatsPorts, NatsSecrets, free_ports, is_free, new_secret, write_private};

/// Secrets and ports of a system. Holds secrets: not `Debug`.
#[derive(Serialize, Deserialize)]
pub(crate) struct State {
    #[serde(skip)]
    path: PathBuf,
    /// How many nats-servers the data is spread over.
    pub(crate) nats_servers: usize,
    pub(crate) nats_secrets: NatsSecrets,
    pub(crate) postgres_password: String,
    pub(crate) jwt_secret: String,
    /// By what listens there, such as `gateway-1` or `gateway-1 admin`.
    ports: BTreeMap<String, u16>,
}

impl State {
    /// What was kept in `dir`, or a new state. `nats_servers` is how many are asked for, if anything is.
    pub(crate) fn open(dir: &Path, nats_servers: Option<usize>) -> anyhow::Result<Self> {
        let path = dir.join("state.json");
        let mut state = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is not what `tidings up` writes", path.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Self {
                path: PathBuf::new(),
                nats_servers: nats_servers.unwrap_or(1),
                nats_secrets: NatsSecrets::random(),
                postgres_password: new_secret(),
                jwt_secret: new_secret(),
                ports: BTreeMap::new(),
            },
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        state.path = path;
        match nats_servers {
            Some(asked) if asked != state.nats_servers => bail!(
                "the data in {} is on {} NATS server(s), so --nats {asked} cannot be: leave it out, or take another --dir",
                dir.display(),
                state.nats_servers
            ),
            _ => Ok(state),
        }
    }

    /// Keeps it for the next run.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self).context("the state is plain data")?;
        write_private(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The port that somebody asked for, who would not be content with another.
    pub(crate) fn asked_port(&mut self, name: &str, port: u16) -> anyhow::Result<u16> {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                bail!(
                    "port {port} of 127.0.0.1 is in use, so {name} cannot listen there: give another --port"
                )
            }
            Err(error) => return Err(error).with_context(|| format!("{name} cannot listen on port {port}")),
        }
        self.ports.insert(name.to_owned(), port);
        Ok(port)
    }

    /// The port of `name` in the last run, if nobody has taken it meanwhile, else a free one.
    pub(crate) fn port(&mut self, name: &str) -> anyhow::Result<u16> {
        if let Some(port) = self.ports.get(name).copied().filter(|port| is_free(*port)) {
            return Ok(port);
        }
        loop {
            let port = free_ports(1).context("no free port")?[0];
            if !self.ports.values().any(|other| *other == port) {
                self.ports.insert(name.to_owned(), port);
                return Ok(port);
            }
        }
    }

    /// The ports of every nats-server.
    pub(crate) fn nats_ports(&mut self) -> anyhow::Result<Vec<NatsPorts>> {
        (1..=self.nats_servers)
            .map(|number| {
                Ok(NatsPorts {
                    client: self.port(&format!("nats-{number}"))?,
                    monitoring: self.port(&format!("nats-{number} monitoring"))?,
                    cluster: self.port(&format!("nats-{number} cluster"))?,
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_ports_are_kept() {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let mut first = State::open(folder.path(), Some(3)).expect("the folder is empty");
        let port = first.port("gateway-1").expect("there are free ports");
        first.save().expect("the folder is writable");
        let mut second = State::open(folder.path(), None).expect("the state is ours");
        assert_eq!(second.nats_servers, 3);
        assert_eq!(second.jwt_secret, first.jwt_secret);
        assert_eq!(second.port("gateway-1").expect("there are free ports"), port);
        assert_ne!(second.port("gateway-2").expect("there are free ports"), port);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
        assert_ne!(second.port("gateway-1").expect("there are free ports"), port);
        let error = second
            .asked_port("gateway-1", port)
            .expect_err("the port is taken");
        assert!(error.to_string().contains("is in use"), "{error}");
        let error = State::open(folder.path(), Some(1))
            .err()
            .expect("three are not one");
        assert!(error.to_string().contains("--nats 1 cannot be"), "{error}");
    }
}
