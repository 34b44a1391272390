//! One fan-out worker, from start to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_service::{Condition, Context, Invalidations, LivingWatch, Registration, Switch};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::beacons;
use crate::body_lists::BodyLists;
use crate::body_room::BodyRoom;
use crate::clients::Clients;
use crate::config::FanoutWorkerConfig;
use crate::deletions::{Deletions, ROUND};
use crate::direct_answers;
use crate::fan_out::{FanOut, LOOK_UPS_MAX};
use crate::horizon::Horizon;
use crate::live_lane::LiveLane;
use crate::overflow_marks::OverflowMarks;
use crate::partition_reader::Event;
use crate::partition_task::{PartitionHandle, PartitionTask};
use crate::publish_permits::PublishPermits;
use crate::sessions::Sessions;
use crate::shares::Shares;
use crate::standing::Standing;
use crate::trials::Trials;

/// How often a worker looks whether it holds its share.
const SHARES_INTERVAL: Duration = Duration::from_millis(500);

/// Runs a worker until it is asked to stop: then it finishes what it has in hand, gives its partitions away and
/// ends. Fails when NATS cannot be asked at the start.
pub async fn run(config: FanoutWorkerConfig, context: Context) -> anyhow::Result<()> {
    let reading = context.require("reading");
    crate::metrics::describe();
    // Later than `stopping`: while the worker drains it still tells gateways what it stored.
    let ended = CancellationToken::new();
    let workers = LivingWatch::start(&context, context.service).await?;
    let fan_out = start(&config, &context, &workers, &ended).await?;
    let readers = TaskTracker::new();
    let began = Instant::now();
    let partitions: Vec<PartitionHandle> = context
        .topology
        .partitions()
        .map(|partition| {
            let (task, handle) = PartitionTask::new(
                partition,
                fan_out.clone(),
                &context.nats,
                context.tasks.clone(),
                began,
            );
            let task = readers.track_future(task.run());
            context.tasks.spawn_essential("partition", async move {
                task.await;
                Ok(())
            });
            handle
        })
        .collect();
    context
        .stopping
        .run_until_cancelled(fan_out.standing.admit())
        .await;
    tell(&partitions, || Event::Resume);
    reading.holds();
    tracing::info!(partitions = partitions.len(), "reading");
    tokio::select! {
        () = context.stopping.cancelled() => {}
        () = keep_share(&partitions, &workers) => {}
        () = obey_standing(&partitions, &fan_out.standing, &reading) => {}
        () = look_for_room(&config, &fan_out.room) => {}
        () = fan_out.lists.run() => {}
    }
    let within = context.drain_timeout / 2;
    tell(&partitions, || Event::Stop { within });
    readers.close();
    readers.wait().await;
    fan_out.lists.flush(within / 2).await;
    ended.cancel();
    Ok(())
}

/// Everything that must be there before the first event is looked at.
async fn start(
    config: &FanoutWorkerConfig,
    context: &Context,
    workers: &LivingWatch,
    ended: &CancellationToken,
) -> anyhow::Result<Arc<FanOut>> {
    let clients = Clients::new(context.metadata.clone());
    let cache = clients.clone();
    let invalidations = Invalidations::start(context, move |forget| cache.forget(&forget)).await?;
    let horizon = Horizon::new(invalidations.subscribe());
    let sessions = Sessions::start(context, ended.clone()).await?;
    let gateways = LivingWatch::start(context, "gateway").await?;
    let registration = Registration::start(context, None, ended.clone()).await?;
    let room = Arc::new(BodyRoom::new(context.bus.clone()));
    if config.large_body_bytes.is_on() {
        room.look().await;
    }
    let round = ROUND;
    #[cfg(debug_assertions)]
    let round = config.fault.as_ref().map_or(round, |fault| fault.round(round));
    let fan_out = Arc::new(FanOut {
        bus: context.bus.clone(),
        topology: context.topology,
        metadata: context.metadata.clone(),
        clients,
        horizon: horizon.clone(),
        live: LiveLane::new(
            context.nats.client().clone(),
            context.boot_id.0,
            sessions.clone(),
            horizon.clone(),
        ),
        overflow: OverflowMarks::new(context.bus.clone(), context.topology),
        standing: Standing::new(
            context.bus.clone(),
            registration,
            sessions.clone(),
            invalidations.subscribe(),
        ),
        deletions: Deletions::new(context.bus.clone(), round),
        publishes: PublishPermits::new(config.publishes_max, context.topology),
        look_ups: Semaphore::new(LOOK_UPS_MAX),
        trials: Trials::new(context, workers.clone(), ended.clone()),
        large_body_bytes: config.large_body_bytes,
        lists: BodyLists::new(context.bus.clone(), room.clone()),
        room,
        direct_delivery: config.direct_delivery == Switch::On,
        #[cfg(debug_assertions)]
        faults: config.fault.clone().unwrap_or_default(),
    });
    direct_answers::start(
        context,
        sessions.clone(),
        fan_out.live.holds.clone(),
        ended.clone(),
    )
    .await?;
    let (lane, end) = (fan_out.clone(), ended.clone());
    context.tasks.spawn_essential("beacons", async move {
        end.run_until_cancelled(beacons::run(&lane.live, &sessions, &horizon, &gateways))
            .await;
        Ok(())
    });
    Ok(fan_out)
}

fn tell(partitions: &[PartitionHandle], event: impl Fn() -> Event<crate::fan_out::Incoming>) {
    for partition in partitions {
        partition.tell(event());
    }
}

/// Gives partitions away when there are others to take them, for ever.
async fn keep_share(partitions: &[PartitionHandle], workers: &LivingWatch) {
    let mut shares = Shares::default();
    let mut interval = tokio::time::interval(SHARES_INTERVAL);
    loop {
        interval.tick().await;
        let held: Vec<_> = partitions
            .iter()
            .filter(|partition| partition.pinned())
            .map(|partition| partition.partition)
            .collect();
        metrics::gauge!("tidings_fanout_partitions").set(held.len() as f64);
        let alive = workers.now().instances.len();
        let decision = shares.decide(&held, partitions.len() as u16, alive, Instant::now());
        tell(partitions, || Event::Reluctant(decision.reluctant));
        for partition in partitions {
            if decision.release.contains(&partition.partition) {
                partition.tell(Event::Release);
            }
        }
    }
}

/// Stops all work while the worker may not work, for ever.
async fn obey_standing(partitions: &[PartitionHandle], standing: &Standing, reading: &Condition) {
    loop {
        standing.lost().await;
        reading.fails("the worker's own key was not renewed: others take it for dead");
        tell(partitions, || Event::Suspend);
        standing.admit().await;
        tell(partitions, || Event::Resume);
        reading.holds();
    }
}

/// Asks how full BODIES is as long as anything may be stored there, for ever.
async fn look_for_room(config: &FanoutWorkerConfig, room: &BodyRoom) {
    if config.large_body_bytes.is_on() {
        room.run().await;
    } else {
        std::future::pending::<()>().await;
    }
}
