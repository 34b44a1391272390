//! A gateway that says what the test says. It is the peer of the client under test, on a real socket.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tidings_client::protocol::{
    ChatId, ClientFrame, ClientId, Codec, EncodedFrame, Error, Hello, Limits, MessageId, NewMessage,
    Received, Registration, Reply, SendMessage, ServerFrame, Timestamp, UserId, Welcome,
};
use tidings_client::tungstenite::Message;
use tidings_client::tungstenite::handshake::server::{Request, Response};
use tidings_client::tungstenite::protocol::CloseFrame;
use tidings_client::{Client, Delivery, Event, Events, Options, Tokens};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use uuid::Uuid;

/// Whatever takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A scripted gateway.
pub(crate) struct Gateway {
    /// Where it listens.
    pub(crate) url: String,
    listener: TcpListener,
}

/// One connection of the client under test.
pub(crate) struct Session {
    socket: WebSocketStream<TcpStream>,
    codec: Codec,
    /// What the upgrade said in `Authorization`.
    pub(crate) bearer: String,
    limits: Limits,
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("ws://{}", listener.local_addr().expect("a bound address"));
        Self { url, listener }
    }

    /// The client's next connection.
    pub(crate) async fn accept(&self) -> Session {
        let accepted = timeout(PATIENCE, self.listener.accept()).await;
        let (tcp, _) = accepted.expect("the client connects").expect("accepted");
        let mut bearer = String::new();
        let mut codec = None;
        #[expect(clippy::result_large_err, reason = "tungstenite's callback type")]
        let callback = |request: &Request, mut response: Response| {
            let header = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .expect("sent")
                    .to_str()
                    .expect("ASCII")
            };
            header("authorization").clone_into(&mut bearer);
            let subprotocol = header("sec-websocket-protocol");
            codec = Codec::from_subprotocol(subprotocol);
            let name = subprotocol.parse().expect("a header value");
            response.headers_mut().insert("sec-websocket-protocol", name);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(tcp, callback)
            .await
            .expect("a handshake");
        Session {
            socket,
            codec: codec.expect("one of ours"),
            bearer,
            limits: Limits::default(),
        }
    }

    /// The client's next connection, welcomed as alice's phone.
    pub(crate) async fn welcome(&self) -> Session {
        let mut session = self.accept().await;
        session.greet().await;
        session
    }

    /// A client of this gateway.
    pub(crate) fn connect(&self) -> (Client, Events) {
        Client::connect(self.options()).expect("a memory that works")
    }

    pub(crate) fn options(&self) -> Options {
        Options::new(&self.url, Tokens::fixed("token"))
    }
}

impl Session {
    /// The next frame of the client.
    pub(crate) async fn next(&mut self) -> ClientFrame {
        loop {
            let next = timeout(PATIENCE, self.socket.next())
                .await
                .expect("the client says something");
            match next.expect("not ended").expect("not broken") {
                message @ (Message::Text(_) | Message::Binary(_)) => {
                    let bytes = message.into_data();
                    return self.codec.decode_client(&bytes).expect("a frame of the protocol");
                }
                Message::Close(_) => panic!("the client has closed"),
                _ => {}
            }
        }
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.next().await {
            ClientFrame::Hello(hello) => hello,
            other => panic!("{other:?} instead of hello"),
        }
    }

    pub(crate) async fn message(&mut self) -> SendMessage {
        match self.next().await {
            ClientFrame::SendMessage(message) => message,
            other => panic!("{other:?} instead of sendMessage"),
        }
    }

    pub(crate) async fn received(&mut self) -> Received {
        match self.next().await {
            ClientFrame::Received(received) => received,
            other => panic!("{other:?} instead of received"),
        }
    }

    /// Waits for the hello and answers it.
    pub(crate) async fn greet(&mut self) -> Hello {
        let hello = self.hello().await;
        self.say(welcome(hello.id, self.limits.clone())).await;
        hello
    }

    /// The same, with pings after so many seconds.
    pub(crate) async fn greet_with_pings(&mut self, seconds: u64) {
        self.limits.ping_seconds = seconds;
        self.greet().await;
    }

    pub(crate) async fn say(&mut self, frame: impl Into<ServerFrame>) {
        let message = match self.codec.encode_server(&frame.into()) {
            EncodedFrame::Text(text) => Message::text(text),
            EncodedFrame::Binary(bytes) => Message::binary(bytes),
        };
        self.send(message).await;
    }

    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("sent");
    }

    /// Answers a sendMessage with SUCCESS.
    pub(crate) async fn accept(&mut self, message: &SendMessage, seq: u64) {
        self.say(Reply {
            seq: Some(seq),
            sent_at: Some(Timestamp(1)),
            ..Reply::success(message.id)
        })
        .await;
    }

    /// Closes with a code and waits for the client's half.
    pub(crate) async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "".into(),
        };
        self.socket.close(Some(frame)).await.expect("closed");
        timeout(PATIENCE, async {
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await
        .expect("the client's half");
    }

    /// Reads until the client closes; its frames before that.
    pub(crate) async fn ended(mut self) -> Vec<ClientFrame> {
        let mut frames = Vec::new();
        loop {
            match timeout(PATIENCE, self.socket.next())
                .await
                .expect("the client closes")
            {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    frames.push(self.codec.decode_client(&message.into_data()).expect("a frame"));
                }
                Some(Ok(Message::Close(_))) => {
                    // Our half is written by reading on.
                    while let Some(Ok(_)) = self.socket.next().await {}
                    return frames;
                }
                Some(Ok(_)) => {}
                other => panic!("{other:?} instead of a closing handshake"),
            }
        }
    }

    /// The raw message, pings included.
    pub(crate) async fn raw(&mut self) -> Message {
        let next = timeout(PATIENCE, self.socket.next())
            .await
            .expect("the client says something");
        next.expect("not ended").expect("not broken")
    }
}

pub(crate) fn welcome(id: u64, limits: Limits) -> Welcome {
    Welcome {
        id,
        user_id: user("alice"),
        client_id: phone(),
        registration: Registration::Known,
        server_time: Timestamp(0),
        token_expires_at: Timestamp(3_600_000),
        media_url: None,
        backlog: 0,
        limits,
    }
}

pub(crate) fn user(id: &str) -> UserId {
    UserId::new(id).expect("printable")
}

pub(crate) fn phone() -> ClientId {
    ClientId(Uuid::from_u128(100))
}

pub(crate) fn lunch() -> ChatId {
    ChatId(Uuid::from_u128(1))
}

/// Bob's message of this number in the chat about lunch.
pub(crate) fn message(delivery: u64, number: u64) -> NewMessage {
    NewMessage {
        delivery,
        chat_id: lunch(),
        seq: number,
        message_id: MessageId(Uuid::from_u128(number.into())),
        user_id: user("bob"),
        client_id: ClientId(Uuid::from_u128(200)),
        sent_at: Timestamp(1),
        message: format!("message {number}"),
        attachments: Vec::new(),
    }
}

pub(crate) fn through(number: u64) -> Received {
    Received {
        delivery: None,
        through: Some(number),
    }
}

/// The next event that `wanted` takes; others are dropped.
pub(crate) async fn event<T>(events: &mut Events, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let find = async {
        loop {
            let event = events.next().await.expect("not stopped");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    timeout(PATIENCE, find).await.expect("the event comes")
}

/// The next delivery. Other events are dropped.
pub(crate) async fn delivery(events: &mut Events) -> Delivery {
    let is_delivery = |event| match event {
        Event::Delivery(delivery) => Some(delivery),
        _ => None,
    };
    event(events, is_delivery).await
}

/// The `seq` of a delivered message.
pub(crate) fn seq(delivery: &Delivery) -> u64 {
    match delivery.content() {
        tidings_client::Content::Message(message) => message.seq,
        other => panic!("{other:?} instead of a message"),
    }
}

/// FAILURE.
pub(crate) fn failure(id: u64, error: Error) -> Reply {
    Reply::failure(Some(id), error)
}
