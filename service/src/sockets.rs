//! Room for many connections: the limits that the system sets unless it is asked for more.

use std::io;
use std::net::SocketAddr;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that the kernel has accepted and this process has not yet. When a load balancer or another gateway dies,
/// thousands come within a second; whoever finds the queue full tries again after one, three and seven seconds. It is what
/// Linux allows unless `net.core.somaxconn` says otherwise. The library's own choice is 128.
const BACKLOG: u32 = 4096;

/// Listens for clients, with room for a crowd before the door.
pub fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    bind(address).with_context(|| format!("cannot listen on {address}"))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As tokio's own `bind` does: else a service could not be started again for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Lets this process open as many files as it may: a connection is one. Many systems begin with 1,024 for programs
/// that use `select`, and leave it to others to ask for the rest. Says how many they are.
pub fn raise_files_limit() -> anyhow::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the limit of open files")?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use super::*;

    /// More than the library's own backlog, and than the smallest that systems allow.
    const CROWD: usize = 300;
    /// A connection that finds the queue full hears nothing for a second.
    const AT_ONCE: Duration = Duration::from_millis(900);

    #[tokio::test]
    async fn a_crowd_waits_before_the_door() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let crowd: Vec<_> = (0..CROWD)
            .map(|number| {
                TcpStream::connect_timeout(&address, AT_ONCE)
                    .unwrap_or_else(|error| panic!("connection {number}: {error}"))
            })
            .collect();
        for _ in &crowd {
            listener.accept().await.expect("it waits");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let taken = listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
        let address = taken.local_addr().expect("it has an address");
        let error = listen(address).expect_err("it is taken");
        assert!(
            format!("{error:#}").starts_with(&format!("cannot listen on {address}: ")),
            "{error:#}"
        );
    }

    #[test]
    fn files_are_limited_by_the_hard_limit_alone() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard - 1), hard).expect("lower is allowed");
        assert_eq!(raise_files_limit().expect("higher is allowed"), hard);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("there is a limit");
        assert_eq!(soft, hard);
    }
}
