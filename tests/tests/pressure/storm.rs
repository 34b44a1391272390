//! A gateway dies and all its clients come back at once, to the others: everybody is caught up again, and nobody has to
//! come back twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use tidings_client::Backoff;
use tidings_client::connection::{Connection, Incoming};
use tidings_protocol::ServerFrame;
use tidings_tests::{Identity, System};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::peer::{try_once, welcomed};
use crate::scale::{ALONE, scale};
use crate::spread::Spread;

/// Connected side by side before the storm.
const CONNECTING: usize = 32;
/// A try to be welcomed; the client library waits as long.
const TRY: Duration = Duration::from_secs(10);
/// For the whole storm. Its length is printed; on a busy machine it is not promised.
const PATIENCE: Duration = Duration::from_mins(1);
/// After everybody is back: for so long nobody may go again.
const CALM: Duration = Duration::from_secs(3);

/// What happens to a client.
#[derive(Debug)]
enum Met {
    CaughtUp { at: Instant },
    Lost,
}

/// How often each thing happened after the death.
#[derive(Debug, Default)]
struct Counts {
    tries: AtomicUsize,
    welcomes: AtomicUsize,
    /// Told when to come back.
    sent_away: AtomicUsize,
    /// Not welcomed in time.
    given_up: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_back_after_a_gateways_death() {
    let clients = scale("CLIENTS", 150_usize);
    let _alone = ALONE.lock().await;
    let system = System::shared().await;
    let mut dying = system
        .extra_gateway(&[("TIDINGS_INBOX_DURABLES", &durables())])
        .await;
    let urls: Arc<[String]> = [dying.ws.clone(), system.ws(0), system.ws(1)].into();
    let counts = Arc::new(Counts::default());
    let (met, mut happenings) = mpsc::unbounded_channel();
    let began = Instant::now();
    let connecting = stream::iter(0..clients).for_each_concurrent(CONNECTING, async |_| {
        let identity = Identity::fresh("storm");
        let token = identity.token(&system.secret());
        let connection = welcomed(&urls[0], &identity, &system.secret()).await;
        tokio::spawn(live(connection, token, urls.clone(), met.clone(), counts.clone()));
    });
    tokio::join!(connecting, async {
        for _ in 0..clients {
            let met = timeout(PATIENCE, happenings.recv())
                .await
                .expect("clients are caught up");
            assert!(matches!(met, Some(Met::CaughtUp { .. })), "{met:?}");
        }
    });
    eprintln!(
        "storm: {clients} clients connected in {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let death = Instant::now();
    dying.kill();
    let (mut losses, mut times) = (0, Vec::new());
    let storm = timeout(PATIENCE, async {
        while times.len() < clients {
            match happenings.recv().await.expect("clients live as long as the test") {
                Met::Lost => losses += 1,
                Met::CaughtUp { at } => times.push(at.saturating_duration_since(death)),
            }
        }
    });
    let over = storm.await.is_ok();
    let calm = timeout(CALM, async {
        while let Some(met) = happenings.recv().await {
            losses += usize::from(matches!(met, Met::Lost));
        }
    });
    let _ = calm.await;
    eprintln!(
        "storm: {} of {clients} back; from the death to caughtUp {}; {} tries, {} sent away, {} given up, {} welcomes, \
         {losses} losses",
        times.len(),
        Spread::of(times.clone()),
        counts.tries.load(Ordering::Relaxed),
        counts.sent_away.load(Ordering::Relaxed),
        counts.given_up.load(Ordering::Relaxed),
        counts.welcomes.load(Ordering::Relaxed),
    );
    assert!(
        over,
        "only {} of {clients} are back after {PATIENCE:?}",
        times.len()
    );
    assert_eq!(losses, clients, "nobody had to come back twice");
}

/// Lives on a connection, and comes back as the client library does: at another place, after a time that chance says.
async fn live(
    mut connection: Connection,
    token: String,
    urls: Arc<[String]>,
    met: mpsc::UnboundedSender<Met>,
    counts: Arc<Counts>,
) {
    let mut place = 0;
    loop {
        loop {
            match connection.next().await {
                Ok(Incoming::Frame(ServerFrame::CaughtUp(_))) => {
                    met.send(Met::CaughtUp { at: Instant::now() }).ok();
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if met.send(Met::Lost).is_err() {
            return;
        }
        let mut asked = None;
        for failures in 0.. {
            let delay = match asked.take() {
                // Those who were told the same do not come together either.
                Some(asked) => asked + Backoff::CONNECT.base.mul_f64(rand::random()),
                None => Backoff::CONNECT.delay(failures, rand::random()),
            };
            tokio::time::sleep(delay).await;
            // Not all to the same one.
            place = (place + 1 + usize::from(failures == 0 && rand::random())) % urls.len();
            counts.tries.fetch_add(1, Ordering::Relaxed);
            match timeout(TRY, try_once(&urls[place], &token)).await {
                Ok(Ok(new)) => {
                    counts.welcomes.fetch_add(1, Ordering::Relaxed);
                    connection = new;
                    break;
                }
                Ok(Err(when)) => {
                    counts
                        .sent_away
                        .fetch_add(usize::from(when.is_some()), Ordering::Relaxed);
                    asked = when;
                }
                Err(_) => {
                    counts.given_up.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// `TIDINGS_PRESSURE_DURABLES`: whether clients have durables; of the dying gateway only, since those of the system have.
fn durables() -> String {
    scale("DURABLES", "on".to_owned())
}
