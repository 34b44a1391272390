//! Free ports on this machine.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which systems take the ports of outgoing connections (32768 on Linux, 49152 elsewhere):
/// while a server is down, a client that tries to connect again and again can be given the server's very port, be
/// connected to itself, and keep the server from coming back.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How far apart processes with neighbouring ids begin to look. The golden section of the range keeps many of them
/// apart: processes that start at the same time would else take what another has found and not yet bound.
const STRIDE: u32 = 4583;

/// How many ports this process has looked at.
static LOOKED_AT: AtomicU32 = AtomicU32::new(0);

/// `count` different ports of 127.0.0.1 that nobody listens on now. They are only taken by who binds them: another
/// process may come first, seldom enough that starting again with other ports is the answer.
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let length = u32::from(RANGE.end - RANGE.start);
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..length {
        if listeners.len() == count {
            break;
        }
        let number = LOOKED_AT.fetch_add(1, Ordering::Relaxed);
        let offset = std::process::id().wrapping_mul(STRIDE).wrapping_add(number) % length;
        let port = RANGE.start + u16::try_from(offset).expect("the range is one of ports");
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listeners.push(listener);
        }
    }
    if listeners.len() < count {
        return Err(io::Error::other(format!(
            "127.0.0.1 has no {count} free ports in {RANGE:?}"
        )));
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
