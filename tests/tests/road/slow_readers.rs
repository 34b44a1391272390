//! Clients that take long to read what they are sent: the gateway hears them meanwhile, and only who reads nothing at
//! all is closed.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use tidings_nats::Inbox;
use tidings_protocol::{
    ChatId, ClientFrame, Codec, EncodedFrame, Hello, MessageId, NewMessage, Ping, Received, SendMessage,
    ServerFrame, Status,
};
use tidings_tests::{Device, Identity, PATIENCE, Stored, System, eventually};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

/// The gateway's limit here: more than a busy machine keeps a client from reading, and soon over.
const STALL_SECONDS: u32 = 3;
/// Of a message: 120 of them fill a window.
const TEXT_BYTES: usize = 2048;
/// More than a window.
const MESSAGES: u64 = 200;
/// Between two frames of a slow link: 40 KB/s, so that a window takes twice the gateway's limit.
const FRAME_INTERVAL: Duration = Duration::from_millis(50);
/// How many deliveries are confirmed at once.
const CONFIRM_EVERY: u64 = 16;
/// What the kernel may keep for a client, either way.
const BUFFER_BYTES: u32 = 4096;

/// A client that reads a frame when it is told to.
struct Slow {
    socket: WebSocketStream<TcpStream>,
}

impl Slow {
    async fn welcomed(ws: &str, identity: &Identity, secret: &str) -> Self {
        let request = ws.into_client_request().expect("a good URL");
        let authority = request.uri().authority().expect("with a host").to_string();
        let socket = TcpSocket::new_v4().expect("a socket");
        for set in [TcpSocket::set_recv_buffer_size, TcpSocket::set_send_buffer_size] {
            set(&socket, BUFFER_BYTES).expect("buffers may be small");
        }
        let address = authority.parse().expect("an address");
        let stream = socket.connect(address).await.expect("the gateway listens");
        let (socket, _) = tokio_tungstenite::client_async(request, stream)
            .await
            .expect("a WebSocket");
        let mut slow = Self { socket };
        let hello = Hello {
            id: 1,
            token: Some(identity.token(secret)),
            name: None,
            replace: None,
        };
        slow.send(hello).await;
        while !matches!(slow.frame().await, ServerFrame::Welcome(_)) {}
        while !matches!(slow.frame().await, ServerFrame::CaughtUp(_)) {}
        slow
    }

    async fn try_send(&mut self, frame: impl Into<ClientFrame>) -> bool {
        let EncodedFrame::Text(text) = Codec::Json.encode_client(&frame.into()) else {
            unreachable!("JSON is text")
        };
        self.socket.send(Message::Text(text.into())).await.is_ok()
    }

    async fn send(&mut self, frame: impl Into<ClientFrame>) {
        let sent = timeout(PATIENCE, self.try_send(frame)).await;
        assert_eq!(sent, Ok(true), "the gateway reads");
    }

    async fn frame(&mut self) -> ServerFrame {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await;
            let message = message.expect("something comes").expect("the socket is open");
            let message = message.expect("the socket is open");
            if message.is_text() {
                let frame = Codec::Json.decode_server(&message.into_data());
                return frame.expect("the gateway speaks the protocol");
            }
        }
    }

    async fn confirm(&mut self, through: u64) {
        let (delivery, through) = (None, Some(through));
        self.send(Received { delivery, through }).await;
    }

    /// Reads on until so many messages came; anything else goes to `other`.
    async fn messages(&mut self, count: u64, mut other: impl FnMut(ServerFrame)) -> Vec<NewMessage> {
        let mut messages = Vec::new();
        while (messages.len() as u64) < count {
            match self.frame().await {
                ServerFrame::NewMessage(message) => {
                    if message.delivery.is_multiple_of(CONFIRM_EVERY) {
                        self.confirm(message.delivery).await;
                    }
                    messages.push(message);
                }
                frame => other(frame),
            }
        }
        messages
    }
}

/// Asserts that the messages of a chat came once each and in order.
fn assert_all(messages: &[NewMessage], count: u64) {
    let seqs: Vec<u64> = messages.iter().map(|message| message.seq).collect();
    assert!(seqs.is_sorted(), "in order: {seqs:?}");
    let ids: BTreeSet<_> = messages.iter().map(|message| message.message_id.0).collect();
    assert_eq!((ids.len() as u64, seqs.len() as u64), (count, count), "once each");
}

struct Scene {
    writer: Device,
    reader: Identity,
    slow: Slow,
    chat_id: ChatId,
    stored: Stored,
}

impl Scene {
    /// Somebody who writes, and a slow client at `ws` whose inbox is empty.
    async fn at(system: &System, ws: &str) -> Self {
        let mut writer = Device::fresh(system, "writer").await;
        let reader = Identity::fresh("slow");
        let mut slow = Slow::welcomed(ws, &reader, &system.secret()).await;
        let chat_id = writer.direct_chat(&reader.user_id).await;
        let update = loop {
            if let ServerFrame::ChatUpdate(update) = slow.frame().await {
                break update;
            }
        };
        slow.confirm(update.delivery).await;
        let stored = Stored::of(system).await;
        stored.until(&reader.user_id, reader.client_id, 0).await;
        Self {
            writer,
            reader,
            slow,
            chat_id,
            stored,
        }
    }

    /// Writes, and waits until everything is in the inbox.
    async fn write(&mut self, count: u64) {
        let text = "x".repeat(TEXT_BYTES);
        for _ in 0..count {
            self.writer.say(self.chat_id, &text).await;
        }
        let Self { stored, reader, .. } = self;
        stored.until(&reader.user_id, reader.client_id, count).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_is_heard_while_it_is_written_to_and_carries_everything_on_one_connection() {
    let system = System::shared().await;
    let stall = STALL_SECONDS.to_string();
    let gateway = system
        .extra_gateway(&[("TIDINGS_STALL_TIMEOUT", stall.as_str())])
        .await;
    let mut scene = Scene::at(system, &gateway.ws).await;
    scene.write(MESSAGES).await;
    let Scene {
        reader,
        mut slow,
        stored,
        ..
    } = scene;

    let began = Instant::now();
    let mut pace = tokio::time::interval(FRAME_INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut messages = Vec::new();
    // How many had come when the first confirmation was seen to have been heard.
    let mut heard_at = None;
    while (messages.len() as u64) < MESSAGES {
        pace.tick().await;
        messages.extend(slow.messages(1, |_| ()).await);
        let left = stored
            .entries(&reader.user_id, Inbox::Client(reader.client_id))
            .await;
        if left < MESSAGES {
            heard_at.get_or_insert(messages.len());
        }
    }
    assert!(
        began.elapsed() > 2 * Duration::from_secs(STALL_SECONDS.into()),
        "it was slow"
    );
    assert_all(&messages, MESSAGES);
    // The gateway that waits for all of a window to leave hears it after that, and a window is 120 of them.
    let heard_at = heard_at.expect("confirmations are heard");
    assert!(
        heard_at < 80,
        "the first confirmation was heard after {heard_at} messages"
    );
    slow.confirm(messages.last().expect("there are some").delivery)
        .await;
    stored.until(&reader.user_id, reader.client_id, 0).await;
}

/// Both sides would wait for the other to read if the gateway did not read while it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_write_a_megabyte_before_it_reads_what_waits_for_it() {
    const WRITTEN: u64 = 250;
    let system = System::shared().await;
    let mut scene = Scene::at(system, &system.ws(0)).await;
    scene.write(MESSAGES).await;
    let Scene {
        reader,
        mut slow,
        chat_id,
        stored,
        ..
    } = scene;

    for id in 0..WRITTEN {
        let send = SendMessage {
            id: 10 + id,
            chat_id,
            message_id: MessageId(Uuid::now_v7()),
            message: "y".repeat(2 * TEXT_BYTES),
            attachments: Vec::new(),
        };
        slow.send(send).await;
    }
    let mut answered = BTreeSet::new();
    let messages = slow
        .messages(MESSAGES, |frame| {
            if let ServerFrame::Reply(reply) = frame {
                assert_eq!(reply.status, Status::Success, "{reply:?}");
                answered.extend(reply.id);
            }
        })
        .await;
    assert_all(&messages, MESSAGES);
    while (answered.len() as u64) < WRITTEN {
        if let ServerFrame::Reply(reply) = slow.frame().await {
            answered.extend(reply.id);
        }
    }
    slow.confirm(messages.last().expect("there are some").delivery)
        .await;
    stored.until(&reader.user_id, reader.client_id, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_is_closed_however_much_it_says_and_loses_nothing() {
    let system = System::shared().await;
    let stall = STALL_SECONDS.to_string();
    let gateway = system
        .extra_gateway(&[("TIDINGS_STALL_TIMEOUT", stall.as_str())])
        .await;
    let mut scene = Scene::at(system, &gateway.ws).await;
    scene.write(MESSAGES).await;
    let Scene {
        reader,
        mut slow,
        stored,
        ..
    } = scene;
    let mut id = 10;
    eventually("a client that reads nothing is closed", async || {
        // What was not written yet is not confirmed by this, and makes no room for more.
        let confirm = Received {
            delivery: Some(MESSAGES + 1),
            through: None,
        };
        id += 1;
        let said = async { slow.try_send(confirm).await && slow.try_send(Ping { id }).await };
        // It may not be read either.
        match timeout(Duration::from_millis(100), said).await {
            Ok(false) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let entries = stored
        .entries(&reader.user_id, Inbox::Client(reader.client_id))
        .await;
    assert_eq!(entries, MESSAGES);

    // Its backlog is more than a window, so it confirms before it is caught up.
    let mut back = Device::welcomed(system, 0, &reader, Codec::Json).await;
    let mut messages = Vec::new();
    while (messages.len() as u64) < MESSAGES {
        let message = back.message().await;
        back.confirm(message.delivery).await;
        messages.push(message);
    }
    assert_all(&messages, MESSAGES);
    stored.until(&reader.user_id, reader.client_id, 0).await;
}
