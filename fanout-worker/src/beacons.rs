//! When gateways are told how far the worker is: twice a second, and soon after something that sessions wait for.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use tidings_service::LivingWatch;

use crate::horizon::Horizon;
use crate::live_lane::LiveLane;
use crate::sessions::Sessions;

/// A gateway that hears nothing for ten of these doubts.
const INTERVAL: Duration = Duration::from_millis(500);
/// Many sessions begin at once when a gateway starts: one beacon serves all that began within this.
const COALESCE: Duration = Duration::from_millis(5);

/// Tells gateways, for ever.
pub(crate) async fn run(lane: &LiveLane, sessions: &Sessions, horizon: &Horizon, living: &LivingWatch) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut applied = horizon.subscribe();
    let mut invalidations_open = true;
    loop {
        let gateways = tokio::select! {
            _ = interval.tick() => all(sessions, living),
            () = sessions.changed() => {
                tokio::time::sleep(COALESCE).await;
                sessions.take_waiting()
            }
            () = lane.settled() => all(sessions, living),
            // Where the reader has ended before the worker, it is as far as it came.
            changed = applied.changed(), if invalidations_open => {
                invalidations_open = changed.is_ok();
                tokio::time::sleep(COALESCE).await;
                applied.borrow_and_update();
                all(sessions, living)
            }
        };
        lane.send_beacons(gateways.into_iter()).await;
    }
}

/// Every gateway that is alive or has sessions.
fn all(sessions: &Sessions, living: &LivingWatch) -> HashSet<Arc<str>> {
    let living = living.now();
    let registered = living.instances.keys().map(|boot_id| boot_id.to_string().into());
    sessions.gateways().into_iter().chain(registered).collect()
}
