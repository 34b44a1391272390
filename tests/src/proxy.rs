//! A connection's way, which can be disturbed: stands between a client and a server and passes bytes on until it is
//! told otherwise.

mod pump;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use pump::{Course, pump};

/// What happens to bytes and connections on the way.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything passes.
    #[default]
    Pass,
    /// Connections are cut, and new ones closed as soon as they come.
    Refuse,
    /// Nothing passes in either direction, and nobody is told: a cable that was pulled.
    Stall,
    /// Nothing passes from the client to the server.
    StallToServer,
    /// Nothing passes from the server to the client.
    StallToClient,
    /// Whatever passes waits so long first, 16 KiB at a time.
    Slow(Duration),
}

/// What the pumps look at.
#[derive(Copy, Clone, Debug, Default)]
struct State {
    mode: Mode,
    /// Connections that are older than this are over.
    cuts: u64,
    /// Connections that are older than this are closed towards the client, and open towards the server.
    half_closes: u64,
}

/// A way from an address of its own to a server. Dropping it ends every connection on it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Begins to listen on 127.0.0.1; bytes go to `server`, which need not answer yet.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (state, receiver) = watch::channel(State::default());
        let task = tokio::spawn(accept(listener, server, receiver));
        Ok(Self { address, state, task })
    }

    /// Where clients connect to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What happens from now on, also to connections that are there.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            if mode == Mode::Refuse {
                state.cuts += 1;
            }
        });
    }

    /// Ends every connection that is there now, as a reset does.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }

    /// Tells the client of every connection that nothing more comes, and the server nothing.
    pub fn half_close(&self) {
        self.state.send_modify(|state| state.half_closes += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of files, say; whoever wants in tries again.
                let Ok((client, _)) = accepted else { continue };
                if state.borrow().mode != Mode::Refuse {
                    connections.spawn(pass(client, server, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from its beginning to its end.
async fn pass(client: TcpStream, server: SocketAddr, state: watch::Receiver<State>) {
    let began = *state.borrow();
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    for stream in [&client, &server] {
        // Small frames must not wait for acknowledgements; that is what the mode is for.
        let _ = stream.set_nodelay(true);
    }
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let both = async {
        tokio::join!(
            pump(client_in, server_out, Course::ToServer, began, state.clone()),
            pump(server_in, client_out, Course::ToClient, began, state.clone()),
        );
    };
    let mut cuts = state.clone();
    tokio::select! {
        () = both => {}
        // Dropping the streams with bytes in hand resets them.
        _ = cuts.wait_for(|now| now.cuts > began.cuts) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    /// Long enough for loopback on a busy machine; only what must not come is waited for this long.
    const NOTHING: Duration = Duration::from_millis(200);

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn come_back(stream: &mut TcpStream, byte: u8) -> io::Result<bool> {
        stream.write_all(&[byte]).await?;
        let mut answer = [0];
        let read = timeout(NOTHING, stream.read_exact(&mut answer)).await;
        match read {
            Ok(read) => read.map(|_| answer[0] == byte),
            Err(_) => Ok(false),
        }
    }

    #[tokio::test]
    async fn bytes_pass_stall_and_pass_again() {
        let proxy = Proxy::start(echo().await).await.expect("a free port");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
        assert!(come_back(&mut stream, 1).await.expect("it passes"));
        for mode in [Mode::Stall, Mode::StallToServer, Mode::StallToClient] {
            proxy.set(mode);
            assert!(!come_back(&mut stream, 2).await.expect("it is open"), "{mode:?}");
            proxy.set(Mode::Pass);
            let mut late = [0];
            stream.read_exact(&mut late).await.expect("nothing is lost");
            assert_eq!(late, [2]);
        }
        proxy.set(Mode::Slow(Duration::from_millis(1)));
        assert!(come_back(&mut stream, 3).await.expect("it passes, slowly"));
    }

    #[tokio::test]
    async fn connections_are_cut_refused_and_half_closed() {
        let proxy = Proxy::start(echo().await).await.expect("a free port");
        let mut stream = TcpStream::connect(proxy.address()).await.expect("it listens");
        assert!(come_back(&mut stream, 1).await.expect("it passes"));
        proxy.cut();
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);

        let mut stream = TcpStream::connect(proxy.address())
            .await
            .expect("it listens again");
        assert!(come_back(&mut stream, 1).await.expect("it passes"));
        proxy.half_close();
        assert_eq!(stream.read(&mut [0]).await.expect("an end, not an error"), 0);
        stream.write_all(&[4]).await.expect("the other way is open");

        proxy.set(Mode::Refuse);
        let mut stream = TcpStream::connect(proxy.address())
            .await
            .expect("it is closed only then");
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
