//! From an open socket to a session: hello, token, registration, newest wins, welcome.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tidings_metadata::{OutboxKey, RegisterClient, RegisterError, Registered};
use tidings_nats::{CloseReason, INVALIDATIONS, Inbox, Lost, SessionKey, inbox_subject};
use tidings_protocol::{
    ClientFrame, CloseCode, Error, ErrorCode, FrameError, Hello, Registration, Reply, ServerFrame, Timestamp,
    TrimReason, Welcome,
};
use tidings_service::{Claims, clock};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Admitted;
use crate::gateway::Gateway;
use crate::inbox_reader::InboxReader;
use crate::mailbox::{Ending, Mailbox};
use crate::metrics::count_error;
use crate::rate_limits::Unauthenticated;
use crate::seat::Seat;
use crate::sessions::{SessionHandle, Superseded};
use crate::take_over;
use crate::unavailable::{self, database_error, unavailable};
use crate::wire::{Incoming, Wire};

/// For the first hello.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// For another one with `replace`: somebody has to choose.
const REPLACE_TIMEOUT: Duration = Duration::from_mins(1);
/// Clients of a gateway that restarts come back within so long, spread.
pub(crate) const RETRY_AFTER_MS_MAX: u64 = 2000;
/// Frames that are no hello; whoever sends more speaks something else.
const WRONG_FRAMES_MAX: u32 = 16;
/// For the end of INVALIDATIONS.
const INFO_TIMEOUT: Duration = Duration::from_secs(5);
/// For each request of writing a mark.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);
/// For the right to open a durable, while nobody waits to come in.
const DURABLE_WAIT: Duration = Duration::from_millis(500);
/// For the old connection of the same client to be closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A session that has begun.
pub(crate) struct Opened {
    pub(crate) wire: Wire,
    pub(crate) seat: Seat,
    pub(crate) claims: Claims,
    pub(crate) reader: InboxReader,
    /// Up to where INVALIDATIONS must be applied for every worker to know of this client.
    pub(crate) invalidations_sequence: u64,
}

/// Why a hello was not enough.
struct Refused {
    error: Error,
    /// The connection ends with this; else another hello may follow.
    close: Option<CloseCode>,
    /// Whether it counts against the address: not where all are sent away.
    counts: bool,
}

impl Refused {
    const fn open(error: Error) -> Self {
        Self {
            error,
            close: None,
            counts: true,
        }
    }

    fn closing(error: Error, close: CloseCode) -> Self {
        Self {
            error,
            close: Some(close),
            counts: true,
        }
    }
}

/// Waits for a hello that is good. None if the connection has ended instead.
pub(crate) async fn hello(
    gateway: &Arc<Gateway>,
    mut wire: Wire,
    bearer: Option<String>,
    address: IpAddr,
    unauthenticated: Unauthenticated,
) -> Option<Opened> {
    let mut deadline = Instant::now() + HELLO_TIMEOUT;
    let mut wrong_frames = 0;
    loop {
        let incoming = tokio::select! {
            incoming = tokio::time::timeout_at(deadline, wire.next(true)) => incoming,
            () = gateway.stopping.cancelled() => {
                let retry_after_ms = Some(rand::random_range(0..RETRY_AFTER_MS_MAX));
                wire.close(CloseCode::Restart, ErrorCode::Unavailable, retry_after_ms).await;
                return None;
            }
        };
        let answer = match incoming {
            Err(_) => {
                wire.close(CloseCode::Timeout, ErrorCode::NotHello, None).await;
                return None;
            }
            Ok(Incoming::Gone) => return None,
            Ok(Incoming::SignOfLife) => continue,
            Ok(Incoming::Unacceptable(code)) => {
                wire.close(code, ErrorCode::BadFrame, None).await;
                return None;
            }
            Ok(Incoming::Bad(FrameError { id, error })) => Reply::failure(id, error),
            Ok(Incoming::Frame(ClientFrame::Hello(hello))) => {
                let id = hello.id;
                match let_in(gateway, &mut wire, hello, bearer.as_deref()).await? {
                    Ok(session) => {
                        drop(unauthenticated);
                        return Some(welcome(gateway, wire, id, session));
                    }
                    Err(refused) => {
                        let too_often = if refused.counts {
                            gateway.rate_limits.failed_hello(address)
                        } else {
                            Ok(())
                        };
                        if refused.error.code == ErrorCode::TooManyClients {
                            deadline = Instant::now() + REPLACE_TIMEOUT;
                        }
                        let code = refused.error.code.clone();
                        let retry_after_ms = refused.error.retry_after_ms;
                        count_error(&code);
                        wire.write(&Reply::failure(Some(id), refused.error).into());
                        if let Some(close) = refused.close {
                            wire.close(close, code, retry_after_ms).await;
                            return None;
                        }
                        if let Err(error) = too_often {
                            wire.close(CloseCode::Overloaded, error.code, error.retry_after_ms)
                                .await;
                            return None;
                        }
                        wire.flush().await.ok()?;
                        continue;
                    }
                }
            }
            Ok(Incoming::Frame(frame)) => {
                let error = Error::new(ErrorCode::NotHello, "the first frame is hello");
                Reply::failure(frame.id(), error)
            }
        };
        wrong_frames += 1;
        wire.write(&answer.into());
        if wire.flush().await.is_err() {
            return None;
        }
        if wrong_frames >= WRONG_FRAMES_MAX {
            wire.close(CloseCode::NotTidings, ErrorCode::NotHello, None).await;
            return None;
        }
    }
}

/// What [`open`] has found and made.
struct Session {
    seat: Seat,
    claims: Claims,
    registration: Registration,
    reader: InboxReader,
    backlog: u64,
    invalidations_sequence: u64,
}

/// Opens a session for whoever may come in, in their turn. None if the socket is gone before that, which then has cost
/// next to nothing.
async fn let_in(
    gateway: &Arc<Gateway>,
    wire: &mut Wire,
    hello: Hello,
    bearer: Option<&str>,
) -> Option<Result<Session, Refused>> {
    let (hello, claims) = match authenticate(gateway, hello, bearer).await {
        Ok(authenticated) => authenticated,
        Err(refused) => return Some(Err(refused)),
    };
    let place = tokio::select! {
        place = gateway.admission.enter() => place,
        () = wire.gone() => return None,
    };
    Some(match place {
        Ok(place) => open(gateway, hello, claims, place).await,
        Err(full) => {
            metrics::counter!("tidings_hellos_sent_away_total").increment(1);
            let error = Error::new(ErrorCode::Unavailable, "too many come at once; try again later");
            let error = error.retry_after_ms(full.retry_after.as_millis() as u64);
            Err(Refused {
                counts: false,
                ..Refused::closing(error, CloseCode::Overloaded)
            })
        }
    })
}

/// Whether the hello is good, and the token.
async fn authenticate(
    gateway: &Gateway,
    hello: Hello,
    bearer: Option<&str>,
) -> Result<(Hello, Claims), Refused> {
    if gateway.is_cut_off() {
        let error = unavailable("this gateway is cut off; try another");
        return Err(Refused::closing(error, CloseCode::Overloaded));
    }
    let hello = ClientFrame::Hello(hello);
    hello.validate().map_err(Refused::open)?;
    let ClientFrame::Hello(hello) = hello else {
        unreachable!("it was a hello a line ago")
    };
    let token = hello.token.as_deref().or(bearer).ok_or_else(|| {
        let error = Error::new(
            ErrorCode::Unauthorized,
            "a token is required, here or in the Authorization header",
        );
        Refused::closing(error.at("token"), CloseCode::Unauthorized)
    })?;
    let claims = gateway
        .tokens
        .verify(token, clock::now())
        .await
        .map_err(|error| {
            let error: Error = error.into();
            let close = if error.code == ErrorCode::Unavailable {
                CloseCode::Overloaded
            } else {
                CloseCode::Unauthorized
            };
            Refused::closing(error.at("token"), close)
        })?;
    Ok((hello, claims))
}

async fn open(
    gateway: &Arc<Gateway>,
    hello: Hello,
    claims: Claims,
    place: Admitted<'_>,
) -> Result<Session, Refused> {
    let changes_seen = gateway.changed_users.seen();
    let registered = in_time(register(gateway, &claims, &hello)).await?;
    if let Some(removed) = registered.removed {
        gateway.after_removal(&claims.user, removed).await;
    }
    let invalidations_sequence = in_time(announce(gateway, &claims, &registered)).await?;
    if let Some(away_since) = registered.away_since {
        mark_absence(gateway, &claims, away_since).await?;
    }
    let mut reader = InboxReader::new(gateway, &claims.user, claims.client, registered.heir);
    let (seat, older) = take_over(gateway, &claims, registered.heir).await?;
    // What follows may wait a second for a gateway that does not answer, or for JetStream to make a durable.
    drop(place);
    close_older(gateway, &seat, older).await;
    if gateway.changed_users.changed_since(&claims.user, changes_seen) {
        // The client may have been removed before this session could be found.
        gateway.close_inactive(std::slice::from_ref(&claims.user));
    }
    let backlog = if gateway.inbox_durables {
        let new = registered.registration != Registration::Known;
        if let Some(_place) = durable_place(gateway).await {
            reader.open_durable(new).await
        } else {
            reader.leave_durable(new);
            None
        }
    } else {
        None
    };
    Ok(Session {
        seat,
        registration: registered.registration,
        reader,
        backlog: backlog.unwrap_or(0),
        invalidations_sequence,
        claims,
    })
}

/// The right to open a durable. None while too many do, or wait to come in: the inbox is read without it then, which
/// costs JetStream less.
async fn durable_place(gateway: &Gateway) -> Option<SemaphorePermit<'_>> {
    if gateway.admission.waiting() > 0 {
        return None;
    }
    let place = tokio::time::timeout(DURABLE_WAIT, gateway.durables.acquire())
        .await
        .ok()?;
    Some(place.expect("it is never closed"))
}

/// What needs Postgres, or that it is unavailable.
async fn in_time<T>(work: impl Future<Output = Result<T, Refused>>) -> Result<T, Refused> {
    let work = async { Ok(work.await) };
    unavailable::in_time(work)
        .await
        .unwrap_or_else(|error| Err(Refused::closing(error, CloseCode::Overloaded)))
}

async fn register(gateway: &Gateway, claims: &Claims, hello: &Hello) -> Result<Registered, Refused> {
    let inbox_sequence = match hello.replace {
        Some(_) => gateway.inbox_sequence(&claims.user).await,
        None => None,
    };
    let register = RegisterClient {
        user: claims.user.clone(),
        client: claims.client,
        name: hello.name.clone(),
        replace: hello.replace,
        inbox_sequence,
    };
    let error = match gateway.metadata.register_client(register).await {
        Ok(registered) => return Ok(registered),
        Err(error) => error,
    };
    let sentence = error.to_string();
    Err(match error {
        RegisterError::Removed => Refused::closing(
            Error::new(ErrorCode::ClientRemoved, sentence),
            CloseCode::Forbidden,
        ),
        RegisterError::Suspended => {
            Refused::closing(Error::new(ErrorCode::Suspended, sentence), CloseCode::Forbidden)
        }
        RegisterError::ForeignClient => Refused::closing(
            Error::new(ErrorCode::Unauthorized, sentence).at("token"),
            CloseCode::Unauthorized,
        ),
        RegisterError::TooManyClients(clients) => {
            let mut error = Error::new(ErrorCode::TooManyClients, sentence);
            error.clients = Some(gateway.with_presence(clients).await);
            Refused::open(error)
        }
        RegisterError::ReplaceNotFound => {
            Refused::open(Error::new(ErrorCode::NotFound, sentence).at("replace"))
        }
        RegisterError::Database(error) => Refused::closing(database_error(&error), CloseCode::Overloaded),
    })
}

/// Says up to where the workers must have read INVALIDATIONS to know of this client, and tells them where that was
/// not done yet: by this hello, or by an earlier one whose gateway could not.
async fn announce(gateway: &Gateway, claims: &Claims, registered: &Registered) -> Result<u64, Refused> {
    if let Some(sequence) = registered.told_until {
        return Ok(sequence);
    }
    if !registered.changed {
        let told = gateway.metadata.told_until(&claims.user).await;
        let told = told.map_err(|error| Refused::closing(database_error(&error), CloseCode::Overloaded))?;
        if let Some(sequence) = told {
            return Ok(sequence);
        }
    }
    let not_yet = || {
        Refused::closing(
            unavailable("the client is not announced yet"),
            CloseCode::Overloaded,
        )
    };
    match gateway.flush(OutboxKey::User(claims.user.clone())).await {
        Ok(flushed) => match flushed.last() {
            Some(last) => Ok(last.seq),
            // Somebody else has published it; whatever is in the stream now includes it.
            None => gateway
                .bus
                .last_sequence(INVALIDATIONS, INFO_TIMEOUT)
                .await
                .map_err(|error| {
                    tracing::debug!(%error, "the end of INVALIDATIONS is not known");
                    not_yet()
                }),
        },
        Err(error) => {
            tracing::debug!(%error, "a new client is not announced yet");
            Err(not_yet())
        }
    }
}

/// Marks in the inbox of a client that had become idle that its inbox was emptied. Postgres remembers that this must
/// be done until it is: a hello that fails here, or dies, leaves it to the next one.
async fn mark_absence(gateway: &Gateway, claims: &Claims, away_since: Timestamp) -> Result<(), Refused> {
    let lost = Lost {
        reason: TrimReason::Inactive,
        missed: None,
        since: away_since,
        until: clock::now(),
        chats: Vec::new(),
    };
    let shard = gateway.topology.shard(&claims.user);
    let subject = inbox_subject(&gateway.topology, &claims.user, Inbox::Client(claims.client));
    let marked = gateway.bus.mark_lost(shard, &subject, &lost, MARK_TIMEOUT).await;
    if let Err(error) = marked {
        tracing::debug!(client.id = %claims.client, %error, "the absence of a client is not marked yet");
        return Err(Refused::closing(
            unavailable("the inbox is not ready yet"),
            CloseCode::Overloaded,
        ));
    }
    // Others wait for this hello's place.
    let noted = unavailable::in_time(async {
        let noted = gateway.metadata.absence_marked(claims.client, away_since).await;
        noted.map_err(|error| database_error(&error))
    });
    if let Err(error) = noted.await {
        let error = error.message;
        tracing::debug!(client.id = %claims.client, error, "the absence will be marked again");
    }
    Ok(())
}

/// Writes this connection's key, and takes its place among this gateway's sessions.
async fn take_over(
    gateway: &Gateway,
    claims: &Claims,
    heir: bool,
) -> Result<(Seat, Option<SessionKey>), Refused> {
    let connection = rand::random();
    let key = SessionKey {
        gateway: gateway.boot_id.to_string(),
        connection,
        user_id: claims.user.clone(),
        since: clock::now(),
    };
    let followed = gateway.live.sessions_revision();
    let written = take_over::write_key(&gateway.bus, claims.client, &key, followed).await;
    let (written, older) = written.map_err(|error| {
        tracing::debug!(client.id = %claims.client, %error, "the session's key was not written");
        Refused::closing(
            unavailable("the session could not be opened"),
            CloseCode::Overloaded,
        )
    })?;
    let handle = Arc::new(SessionHandle {
        client_id: claims.client,
        user_id: claims.user.clone(),
        shard: gateway.topology.shard(&claims.user),
        heir,
        connection,
        since: key.since,
        invalidations_sequence: AtomicU64::default(),
        written: parking_lot::Mutex::new(written),
        mailbox: Mailbox::default(),
        closed: CancellationToken::new(),
    });
    Ok((Seat::new(gateway.sessions.clone(), handle), older))
}

/// Closes the connection that this one replaces, and waits a second for it.
async fn close_older(gateway: &Gateway, handle: &Arc<SessionHandle>, older: Option<SessionKey>) {
    match gateway.sessions.insert(handle) {
        Ok(Some(older)) => {
            older.mailbox.close(Ending::Asked(CloseReason::Replaced));
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, older.closed.cancelled()).await;
        }
        Ok(None) => {}
        Err(Superseded) => handle.mailbox.close(Ending::Asked(CloseReason::Replaced)),
    }
    if let Some(key) = older.filter(|key| key.gateway != gateway.boot_id.to_string()) {
        take_over::close_elsewhere(&gateway.bus, handle.client_id, &key, CloseReason::Replaced).await;
    }
}

fn welcome(gateway: &Gateway, mut wire: Wire, id: u64, session: Session) -> Opened {
    let Session {
        seat,
        claims,
        registration,
        reader,
        backlog,
        invalidations_sequence,
    } = session;
    let welcome = ServerFrame::Welcome(Welcome {
        id,
        user_id: claims.user.clone(),
        client_id: claims.client,
        registration,
        server_time: clock::now(),
        token_expires_at: claims.expires_at,
        media_url: gateway.media_url.clone(),
        backlog,
        limits: gateway.limits(),
    });
    gateway.seen.note(seat.client_id);
    wire.write(&welcome);
    Opened {
        wire,
        seat,
        claims,
        reader,
        invalidations_sequence,
    }
}
