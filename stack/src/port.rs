//! Free ports on this machine.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt as _;

/// Below the range from which systems take the ports of outgoing connections (32768 on Linux, 49152 elsewhere):
/// while a server is down, a client that tries to connect again and again can be given the server's very port, be
/// connected to itself, and keep the server from coming back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How many ports are tried before something else must be wrong.
const TRIES_MAX: usize = 1000;

/// `count` different ports of 127.0.0.1 that nobody listens on now. They are only taken by who binds them: another
/// process may come first, seldom enough that starting again with other ports is the answer.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut random = rand::rng();
    let mut listeners = Vec::with_capacity(count);
    let mut error = None;
    for _ in 0..TRIES_MAX {
        if listeners.len() == count {
            break;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, random.random_range(RANGE))) {
            Ok(listener) => listeners.push(listener),
            Err(refused) => error = Some(refused),
        }
    }
    if listeners.len() < count {
        return Err(error.unwrap_or_else(|| io::Error::other("no free port found")));
    }
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

/// Whether nobody listens on a port of 127.0.0.1 now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_free() {
        let ports = free_ports(20).expect("there are free ports");
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 20);
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).expect("the port is free");
        assert!(!is_free(ports[0]));
        drop(taken);
    }
}
