//! What a client does on a connection: hello, frames in, confirmations and requests out.

use std::time::Duration;

use tidings_protocol::{
    ClientFrame, ClientId, ErrorCode, Hello, NewMessage, RenewToken, Reply, ServerFrame, Timestamp,
    TokenExpiring, Welcome,
};
use tokio::time::{Instant, timeout};

use crate::client::State;
use crate::connection::{Closed, Incoming};
use crate::delivery::{Content, Delivery};
use crate::driver::phase::{Failure, Fresh, GREETING_TIMEOUT, Online, Phase};
use crate::driver::{Driver, EVENTS_MAX, Token};
use crate::event::Event;
use crate::inbox::{Arrival, Key};
use crate::link::{Ending, Stopped};
use crate::outbox::Answer;
use crate::request::RequestError;
use crate::store::{Change, Known, Owner, StoreError};
use crate::tokens::TokenReason;

/// A socket that takes nothing for so long is lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A token is not presented in the last minute of its life.
const TOKEN_MARGIN: Duration = Duration::from_mins(1);
/// After a provider has failed at a renewal.
const RENEW_AGAIN: Duration = Duration::from_secs(5);

impl Driver {
    pub(super) async fn take_connected(
        &mut self,
        connected: Result<Box<Fresh>, Failure>,
    ) -> Result<(), Stopped> {
        match connected {
            Ok(fresh) => {
                let Fresh { connection, token } = *fresh;
                let good_until = self
                    .token
                    .take()
                    .filter(|known| known.text == token)
                    .and_then(|known| known.good_until);
                self.token = Some(Token {
                    text: token,
                    good_until,
                });
                self.phase = Phase::Choosing {
                    connection: Box::new(connection),
                };
                self.say_hello(None).await
            }
            Err(Failure::Ending(ending)) => self.end(ending).await,
            Err(Failure::NoOtherToken) => Err(Failure::no_other_token()),
        }
    }

    /// Says hello on the connection at hand; without one, the next one begins so.
    async fn say_hello(&mut self, replace: Option<ClientId>) -> Result<(), Stopped> {
        let phase = std::mem::replace(&mut self.phase, Phase::Resting { until: None });
        let Some(mut connection) = phase.into_connection() else {
            self.replace = replace;
            return self.start_connecting();
        };
        let hello_id = self.next_id();
        let hello = Hello {
            id: hello_id,
            token: None,
            name: self.name.clone(),
            replace,
        };
        let sent = timeout(SEND_TIMEOUT, connection.send(&hello.into())).await;
        self.phase = Phase::Greeting {
            connection: Box::new(connection),
            hello_id,
            deadline: Instant::now() + GREETING_TIMEOUT,
            closing: None,
        };
        match sent {
            // What the server said last, perhaps a close code, is still to be read.
            Ok(_) => Ok(()),
            Err(_) => self.end(Ending::TimedOut(SEND_TIMEOUT)).await,
        }
    }

    pub(super) async fn take_replace(&mut self, client_id: ClientId) -> Result<(), Stopped> {
        match &self.phase {
            Phase::Choosing { .. } | Phase::Resting { until: None } => self.say_hello(Some(client_id)).await,
            _ => {
                self.replace = Some(client_id);
                Ok(())
            }
        }
    }

    pub(super) async fn take_incoming(&mut self, incoming: Result<Incoming, Closed>) -> Result<(), Stopped> {
        match incoming {
            Err(closed) => self.take_closed(closed).await,
            Ok(incoming) if self.phase.online().is_some() => self.take_online(incoming),
            Ok(Incoming::Frame(frame)) => self.take_greeting(frame).await,
            Ok(Incoming::Unknown { .. }) => Ok(()),
        }
    }

    async fn take_closed(&mut self, closed: Closed) -> Result<(), Stopped> {
        let closing = match &mut self.phase {
            Phase::Choosing { .. } => {
                // The server does not wait for ever; the person may.
                self.phase = Phase::Resting { until: None };
                return Ok(());
            }
            Phase::Greeting { closing, .. } => closing.take(),
            Phase::Online(online) => online.closing.take(),
            Phase::Resting { .. } | Phase::Connecting(_) => None,
        };
        self.end(Ending::Closed { closed, closing }).await
    }

    async fn take_greeting(&mut self, frame: ServerFrame) -> Result<(), Stopped> {
        let Phase::Greeting {
            hello_id, closing, ..
        } = &mut self.phase
        else {
            return Ok(());
        };
        match frame {
            ServerFrame::Closing(frame) => *closing = Some(frame),
            ServerFrame::Welcome(welcome) => return self.take_welcome(welcome).await,
            ServerFrame::Reply(reply) if reply.id == Some(*hello_id) => {
                let Some(error) = reply.error else { return Ok(()) };
                if error.code != ErrorCode::TooManyClients {
                    return self.end(Ending::HelloRefused(error)).await;
                }
                if let Some(replace) = self.replace.take() {
                    return self.say_hello(Some(replace)).await;
                }
                let phase = std::mem::replace(&mut self.phase, Phase::Resting { until: None });
                if let Some(connection) = phase.into_connection() {
                    self.phase = Phase::Choosing {
                        connection: Box::new(connection),
                    };
                }
                self.state.send_replace(State::Disconnected);
                self.backlog
                    .push_back(Event::TooManyClients(error.clients.unwrap_or_default()));
            }
            _ => {}
        }
        Ok(())
    }

    async fn take_welcome(&mut self, welcome: Welcome) -> Result<(), Stopped> {
        let owner = Owner {
            user_id: welcome.user_id.clone(),
            client_id: welcome.client_id,
        };
        if self.client_id.replace(owner.client_id) != Some(owner.client_id) {
            self.with_store(move |store| store.claim(&owner)).await?;
        }
        let now = Instant::now();
        self.note_expiry(welcome.token_expires_at.0 - welcome.server_time.0);
        let token = self.token.as_ref().map(|token| token.text.clone());
        self.session.send_modify(|session| {
            session.welcomed = true;
            session.media_url.clone_from(&welcome.media_url);
            session.token = token;
        });
        self.refused = None;
        self.replace = None;
        self.failures = 0;
        self.inbox.connected();
        let phase = std::mem::replace(&mut self.phase, Phase::Resting { until: None });
        let connection = phase.into_connection().expect("a welcome came over a connection");
        self.phase = Phase::Online(Box::new(Online {
            connection,
            since: now,
            server_time: welcome.server_time,
            ping: Duration::from_secs(welcome.limits.ping_seconds.clamp(1, 600)),
            pinged: None,
            excused: now,
            closing: None,
            renewing: None,
            renewal: None,
        }));
        self.state.send_replace(State::Connected);
        self.backlog.push_back(Event::Connected(Box::new(welcome)));
        Ok(())
    }

    /// The token at hand lives for so many milliseconds by the server's clock.
    fn note_expiry(&mut self, milliseconds: i64) {
        if let Some(token) = &mut self.token {
            let lifetime = Duration::from_millis(milliseconds.max(0) as u64);
            // A token that lives shorter than the margin is used for half of its life.
            let margin = TOKEN_MARGIN.min(lifetime / 2);
            token.good_until = Instant::now().checked_add(lifetime.saturating_sub(margin));
        }
    }

    fn take_online(&mut self, incoming: Incoming) -> Result<(), Stopped> {
        let now = Instant::now();
        let frame = match incoming {
            Incoming::Frame(frame) => frame,
            Incoming::Unknown { delivery } => {
                if let Some(number) = delivery {
                    self.inbox.ignored(number, now);
                }
                return Ok(());
            }
        };
        match frame {
            ServerFrame::NewMessage(message) => {
                let (number, key, bytes) = (message.delivery, Key::of_message(&message), weight(&message));
                self.take_delivery(number, key, bytes, Content::Message(message))
            }
            ServerFrame::ChatUpdate(update) => {
                let (number, key) = (update.delivery, Key::of_update(&update));
                self.take_delivery(number, key, 0, Content::Update(update))
            }
            ServerFrame::InboxTrimmed(trimmed) => {
                let (number, key) = (trimmed.delivery, Key::of_trimmed(&trimmed));
                self.take_delivery(number, key, 0, Content::Trimmed(trimmed))
            }
            ServerFrame::Reply(reply) => {
                self.take_reply(reply, now);
                Ok(())
            }
            ServerFrame::CaughtUp(_) => {
                self.backlog.push_back(Event::CaughtUp);
                Ok(())
            }
            ServerFrame::Notice(notice) => {
                self.backlog.push_back(Event::Notice(notice));
                Ok(())
            }
            ServerFrame::TokenExpiring(TokenExpiring { .. }) => {
                let renewing = self.tokens.get(TokenReason::Expiring);
                if let Some(online) = self.phase.online() {
                    online.renewing = Some(renewing);
                }
                Ok(())
            }
            ServerFrame::Closing(closing) => {
                if let Some(online) = self.phase.online() {
                    online.closing = Some(closing);
                }
                Ok(())
            }
            ServerFrame::Welcome(_) => Ok(()),
        }
    }

    fn take_delivery(
        &mut self,
        number: u64,
        key: Key,
        bytes: usize,
        content: Content,
    ) -> Result<(), Stopped> {
        let store = self.store.as_ref().expect("it is only away inside with_store");
        let known = match key {
            Key::Known(known) => store
                .knows(&known)
                .map_err(|StoreError(reason)| Stopped::Store(reason))?,
            Key::Trimmed(..) => false,
        };
        if self.inbox.arrived(number, key, bytes, known, Instant::now()) == Arrival::Hand {
            let delivery = Delivery::new(content, key, self.verdicts_tx.clone());
            self.backlog.push_back(Event::Delivery(delivery));
        }
        Ok(())
    }

    fn take_reply(&mut self, reply: Reply, now: Instant) {
        if let Some(online) = self.phase.online()
            && let Some((_, token)) = online.renewal.take_if(|(id, _)| reply.id == Some(*id))
        {
            let server_now = online.server_now();
            self.take_renewed(token, &reply, server_now);
            return;
        }
        match self.outbox.replied(reply, now, rand::random()) {
            Answer::Stray => {}
            Answer::Again {
                frame,
                error,
                after: retry_in,
            } => {
                let request = Box::new(frame);
                self.backlog.push_back(Event::Delayed {
                    request,
                    error,
                    retry_in,
                });
            }
            Answer::Settled {
                position,
                frame,
                result,
            } => self.settle(position, frame, result),
        }
    }

    fn settle(
        &mut self,
        position: u64,
        frame: ClientFrame,
        result: Result<Box<Reply>, tidings_protocol::Error>,
    ) {
        if let (ClientFrame::SendMessage(message), Ok(_), Some(client_id)) = (&frame, &result, self.client_id)
        {
            let own = Known::Message {
                chat_id: message.chat_id,
                client_id,
                message_id: message.message_id,
            };
            self.inbox.has(own);
            self.note(Change::Know(own));
        }
        let Some(waiter) = self.waiting.remove(&position) else {
            return;
        };
        if waiter.durable {
            self.note(Change::Settle(position));
        }
        let unheard = match waiter.answer {
            Some(answer) => match answer.send(result.map_err(RequestError::Refused)) {
                Ok(()) => None,
                Err(result) => Some(result.map_err(|error| match error {
                    RequestError::Refused(error) => error,
                    _ => unreachable!("it was made of a refusal"),
                })),
            },
            None => Some(result),
        };
        if let Some(result) = unheard.filter(|_| waiter.durable) {
            let request = Box::new(frame);
            self.backlog.push_back(Event::Settled { request, result });
        }
    }

    pub(super) async fn take_renewal(&mut self, token: Result<String, String>) -> Result<(), Stopped> {
        let current = self.token.as_ref().map(|token| token.text.clone());
        let id = self.next_id();
        let tokens = self.tokens.clone();
        let Some(online) = self.phase.online() else {
            return Ok(());
        };
        online.renewing = None;
        match token {
            Ok(token) if Some(&token) == current.as_ref() => {
                // There is no other; the server closes when this one has expired.
            }
            Ok(token) => {
                online.renewal = Some((id, token.clone()));
                return self.send(&RenewToken { id, token }.into()).await;
            }
            Err(reason) => {
                tracing::warn!(reason, "no new token; trying again");
                let again = async move {
                    tokio::time::sleep(RENEW_AGAIN).await;
                    tokens.get(TokenReason::Expiring).await
                };
                online.renewing = Some(Box::pin(again));
            }
        }
        Ok(())
    }

    fn take_renewed(&mut self, token: String, reply: &Reply, server_now: Timestamp) {
        if let Some(error) = &reply.error {
            tracing::warn!(%error, "the server did not take the new token");
            return;
        }
        self.session
            .send_modify(|session| session.token = Some(token.clone()));
        self.token = Some(Token {
            text: token,
            good_until: None,
        });
        if let Some(expires_at) = reply.token_expires_at {
            self.note_expiry(expires_at.0 - server_now.0);
        }
    }

    /// What is due on a connection.
    pub(super) async fn turn_online(&mut self, now: Instant) -> Result<(), Stopped> {
        if self.inbox.due().is_some_and(|due| due <= now) {
            self.store_changes().await?;
            self.tell_confirmations().await?;
        }
        let last_id = &mut self.last_id;
        let frames = self.outbox.sendable(now, || {
            *last_id += 1;
            *last_id
        });
        for frame in frames {
            self.send(&frame).await?;
        }
        self.mind_silence(now).await
    }

    async fn mind_silence(&mut self, now: Instant) -> Result<(), Stopped> {
        let deaf = self.backlog.len() >= EVENTS_MAX;
        let Some(online) = self.phase.online() else {
            return Ok(());
        };
        if deaf {
            online.excused = now;
            return Ok(());
        }
        let since = online.silent_since();
        let limit = online.ping * 2;
        if since + limit <= now {
            return self.end(Ending::Silent(limit)).await;
        }
        if since + online.ping <= now && online.pinged.is_none_or(|pinged| pinged <= since) {
            online.pinged = Some(now);
            let sent = timeout(SEND_TIMEOUT, online.connection.ping()).await;
            if sent.is_err() {
                return self.end(Ending::Silent(SEND_TIMEOUT)).await;
            }
        }
        Ok(())
    }

    /// Tells what is confirmed, where there is a connection. What it is about must be in the store.
    pub(super) async fn tell_confirmations(&mut self) -> Result<(), Stopped> {
        if self.phase.online().is_some() {
            for received in self.inbox.tell() {
                self.send(&received.into()).await?;
            }
        }
        Ok(())
    }

    /// Sends where there is a connection. A connection that breaks says so when it is read.
    async fn send(&mut self, frame: &ClientFrame) -> Result<(), Stopped> {
        let Some(online) = self.phase.online() else {
            return Ok(());
        };
        match timeout(SEND_TIMEOUT, online.connection.send(frame)).await {
            Ok(_) => Ok(()),
            Err(_) => self.end(Ending::Silent(SEND_TIMEOUT)).await,
        }
    }
}

fn weight(message: &NewMessage) -> usize {
    message.message.len()
}
