//! What a client tells its application.

use std::time::Duration;

use tidings_protocol::{ClientFrame, ClientInfo, Error, Notice, Reply, Welcome};
use tokio::sync::mpsc;

use crate::delivery::Delivery;
use crate::link::{Ending, Stopped};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A connection is being made.
    Connecting {
        /// To which gateway.
        url: String,
        /// How many attempts failed before this one.
        failures: u32,
    },
    /// The server said welcome.
    Connected(Box<Welcome>),
    /// A connection, or the attempt to make one, ended. Another one follows by itself.
    Disconnected {
        /// Why.
        ending: Ending,
        /// When the next attempt begins.
        retry_in: Duration,
    },
    /// The user has too many clients. Nothing goes on until the application calls
    /// [`Client::replace`](crate::Client::replace) with one of them.
    TooManyClients(Vec<ClientInfo>),
    /// Something came for this client.
    Delivery(Delivery),
    /// Everything older than this connection has been handed over.
    CaughtUp,
    /// Worth knowing.
    Notice(Notice),
    /// The server asked to send a request again later, which happens by itself.
    Delayed {
        /// Which.
        request: Box<ClientFrame>,
        /// Why.
        error: Error,
        /// When it is sent again.
        retry_in: Duration,
    },
    /// A request that an earlier run of the application had left has its final answer.
    Settled {
        /// Which.
        request: Box<ClientFrame>,
        /// What the server said.
        result: Result<Box<Reply>, Error>,
    },
    /// The client has stopped. Nothing follows.
    Stopped(Stopped),
}

/// The events of a client, in order. They are to be read: a client whose events pile up stops reading its
/// socket. Dropping them closes the client.
#[derive(Debug)]
pub struct Events(pub(crate) mpsc::Receiver<Event>);

impl Events {
    /// The next event; None after [`Event::Stopped`]. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

impl futures::Stream for Events {
    type Item = Event;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Event>> {
        self.0.poll_recv(context)
    }
}
