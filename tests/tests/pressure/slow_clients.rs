//! Clients that never read their socket and clients that never confirm: they cost the gateway little, nobody else
//! notices them, and nothing is lost for them.

use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{SinkExt as _, StreamExt as _};
use tidings_protocol::{ChatId, Codec, GetChat, Hello, ServerFrame, UserId};
use tidings_tests::{ExtraGateway, Identity, System, eventually};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::peer::Peer;
use crate::scale::{measured, scale};
use crate::talk::{Pair, talk};

/// Of the group, beside the one who writes.
const GROUP: usize = 24;
/// Of these, clients that do not read; the others read and do not confirm.
const DEAF: usize = 4;
/// Between two questions of a client that does not read: fast enough to fill its buffers within seconds.
const QUESTION_INTERVAL: Duration = Duration::from_millis(10);
/// More than a window.
const MESSAGES: usize = 300;
const MESSAGE_BYTES: usize = 800;
/// What a client that does not read asks, more than the sockets' buffers and the gateway's hold answers.
const QUESTIONS: u64 = 20_000;
/// What the kernel may keep for it.
const RECEIVE_BUFFER_BYTES: u32 = 4096;
/// A gateway waits 30 s for a socket that takes nothing, then 2 s to say so; a busy machine takes its time.
const CLOSED_WITHIN: Duration = Duration::from_secs(75);
/// Of the gateway for each connection that is stuck: its buffer of 512 KiB for what is written, which this cannot fill
/// with a window of 240 KB, and what a connection takes anyway.
const BYTES_MAX: u64 = 700 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_stuck_cost_little_and_lose_nothing() {
    let system = System::shared().await;
    let gateway = system.extra_gateway(&[]).await;
    let secret = system.secret();
    let groups: usize = scale("GROUPS_OF_STUCK", 1);
    let witnesses = join_all((0..2).map(|_| Pair::meet(system, &gateway.ws, &gateway.ws))).await;
    let quiet = talk(&witnesses, measured(3)).await;
    let before = resident_bytes(&gateway);

    let mut stuck = Vec::new();
    for _ in 0..groups {
        stuck.push(Stuck::connect(&gateway, &secret).await);
    }
    let began = Instant::now();
    let writing = async {
        for group in &stuck {
            group.write().await;
        }
    };
    let (during, ()) = tokio::join!(talk(&witnesses, measured(8)), writing);
    let after = resident_bytes(&gateway);
    let count = (groups * GROUP) as u64;
    let each = after.saturating_sub(before) / count;
    eprintln!(
        "{count} stuck clients: gateway {:.1} MB before, {:.1} MB with them, {each} bytes each\n  others: send to \
         delivery {}; with them {} (p99 times {:.2})",
        before as f64 / 1e6,
        after as f64 / 1e6,
        quiet.send_to_delivery,
        during.send_to_delivery,
        during.send_to_delivery.p99_ratio(&quiet.send_to_delivery),
    );
    assert!(each < BYTES_MAX, "{each} bytes each");

    for group in stuck {
        group.recover(&system.ws(0), &secret, began).await;
    }
}

/// A group of people of whom only the one who writes behaves.
struct Stuck {
    writer: Peer,
    chat_id: ChatId,
    deaf: Vec<Deaf>,
    mute: Vec<Peer>,
}

/// A client that asks and does not read the answers.
struct Deaf {
    identity: Identity,
    /// Ends when the server has closed the socket.
    asking: tokio::task::JoinHandle<()>,
}

impl Stuck {
    async fn connect(gateway: &ExtraGateway, secret: &str) -> Self {
        let writer = Peer::connect(&gateway.ws, &Identity::fresh("writer"), secret, true).await;
        let deaf: Vec<_> = (0..DEAF).map(|_| Identity::fresh("deaf")).collect();
        let mute: Vec<_> = (DEAF..GROUP).map(|_| Identity::fresh("mute")).collect();
        let ids: Vec<UserId> = deaf.iter().chain(&mute).map(|who| who.user_id.clone()).collect();
        let mute = join_all(
            mute.iter()
                .map(|who| Peer::connect(&gateway.ws, who, secret, false)),
        )
        .await;
        // Registered before the chat is made, so that everything is theirs.
        let mut sockets = Vec::new();
        for who in &deaf {
            sockets.push(Deaf::connect(&gateway.ws, who, secret).await);
        }
        let chat_id = writer.group(&ids).await;
        let deaf = deaf
            .into_iter()
            .zip(sockets)
            .map(|(identity, socket)| Deaf {
                identity,
                asking: tokio::spawn(ask(socket, chat_id)),
            })
            .collect();
        Self {
            writer,
            chat_id,
            deaf,
            mute,
        }
    }

    async fn write(&self) {
        let text = "x".repeat(MESSAGE_BYTES);
        for _ in 0..MESSAGES {
            self.writer.send(self.chat_id, &text);
        }
        eventually("the messages are accepted", async || {
            let accepted = self.writer.seen().accepted.len();
            if accepted == MESSAGES {
                Ok(())
            } else {
                Err(accepted)
            }
        })
        .await;
    }

    /// Whoever begins to confirm gets the rest; whoever was closed and comes back gets everything.
    async fn recover(self, ws: &str, secret: &str, began: Instant) {
        for peer in &self.mute {
            peer.confirm();
        }
        for deaf in self.deaf {
            let left = CLOSED_WITHIN.saturating_sub(began.elapsed());
            let closed = tokio::time::timeout(left, deaf.asking).await;
            closed
                .expect("a socket that nobody reads is closed")
                .expect("asking does not panic");
            let peer = Peer::connect(ws, &deaf.identity, secret, true).await;
            has_everything(&peer, "came back").await;
        }
        eprintln!(
            "  the deaf were closed after at most {:.1} s",
            began.elapsed().as_secs_f64()
        );
        for peer in &self.mute {
            has_everything(peer, "began to confirm").await;
        }
    }
}

async fn has_everything(peer: &Peer, who: &str) {
    eventually(&format!("one who {who} has everything"), async || {
        let seen = peer.seen();
        if seen.came.len() == MESSAGES {
            Ok(())
        } else {
            Err((seen.came.len(), seen.closed.clone()))
        }
    })
    .await;
    let seen = peer.seen();
    assert_eq!((seen.doubled, seen.out_of_order), (0, 0), "once, and in order");
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

impl Deaf {
    /// Says hello and reads the welcome, the last thing that it reads.
    async fn connect(ws: &str, identity: &Identity, secret: &str) -> Socket {
        let request = ws.into_client_request().expect("a good URL");
        let authority = request.uri().authority().expect("with a host").to_string();
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(RECEIVE_BUFFER_BYTES)
            .expect("buffers may be small");
        let address = authority.parse().expect("an address");
        let stream = socket.connect(address).await.expect("the gateway listens");
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .expect("a WebSocket");
        let hello = Hello {
            id: 1,
            token: Some(identity.token(secret)),
            name: None,
            replace: None,
        };
        socket.send(text(&hello.into())).await.expect("hello is sent");
        while let Some(message) = socket.next().await {
            let message = message.expect("the gateway answers");
            let frame = Codec::Json.decode_server(&message.into_data());
            if matches!(frame, Ok(ServerFrame::Welcome(_))) {
                return socket;
            }
        }
        panic!("{} was not welcomed", identity.user_id);
    }
}

/// Asks until the socket is closed, and reads nothing.
async fn ask(mut socket: Socket, chat_id: ChatId) {
    for id in 2..QUESTIONS {
        if socket.send(text(&GetChat { id, chat_id }.into())).await.is_err() {
            return;
        }
        tokio::time::sleep(QUESTION_INTERVAL).await;
    }
    panic!("the gateway took {QUESTIONS} questions of one who reads no answers");
}

fn text(frame: &tidings_protocol::ClientFrame) -> Message {
    match Codec::Json.encode_client(frame) {
        tidings_protocol::EncodedFrame::Text(text) => Message::Text(text.into()),
        tidings_protocol::EncodedFrame::Binary(_) => unreachable!("JSON is text"),
    }
}

/// Resident memory of the gateway.
fn resident_bytes(gateway: &ExtraGateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    1024 * kibibytes
        .and_then(|number| number.parse::<u64>().ok())
        .expect("Linux says so")
}
