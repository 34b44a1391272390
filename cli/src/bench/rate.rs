//! `tidings bench rate`: messages at a fixed rate, whatever becomes of them (open loop). Latency counts from when a
//! message was *due*, so that a system that stalls cannot hide it by slowing the load generator down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, CrowdArgs};
use super::ledger::MESSAGES_MAX;
use super::observed::Load;
use super::progress::{each_second_until, report, wait_for_the_rest, wait_for_the_unexpected};
use super::report::{LoadReport, Offered};
use super::stretch::{Moment, Stretch, StretchArgs};

/// Between the end of the preparations and the first message.
pub(crate) const HEAD_START: Duration = Duration::from_millis(200);

/// Sends at a fixed rate, and measures until every recipient has every message.
///
/// Latency is measured from when a message was due, not from when it was sent: `accept` to the sender's reply,
/// `delivery` to each recipient's socket. `lag` is how late the load generator itself was.
#[derive(Debug, clap::Args)]
pub(crate) struct RateArgs {
    #[command(flatten)]
    pub(crate) crowd: CrowdArgs,

    /// Messages a second, in all chats together.
    #[arg(long, default_value_t = 200.0, value_name = "PER_SECOND")]
    rate: f64,

    #[command(flatten)]
    stretch: StretchArgs,

    /// Draws latency over time and by percentile there, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// When messages are due: evenly spaced.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pace {
    /// Messages a second.
    rate: f64,
    /// How many are sent before anything is measured.
    warmup: usize,
    /// How many are sent in all.
    all: usize,
}

pub(crate) async fn run(args: RateArgs) -> anyhow::Result<()> {
    let plan = args.crowd.plan()?;
    let (warmup, measured) = args.stretch.times()?;
    let pace = Pace::new(args.rate, warmup, measured)?;
    let crowd = args.crowd.gather(plan).await?;
    let load = crowd.begin(Instant::now() + HEAD_START, None);

    let never = CancellationToken::new();
    let stretch = send_all(&crowd, load, pace, Duration::ZERO, &never, report).await;
    wait_for_the_rest(load, crowd.patience).await;
    wait_for_the_unexpected().await;
    let offered = Offered {
        rate: Some(args.rate),
        in_flight: None,
        seconds: args.stretch.seconds,
        warmup_seconds: args.stretch.warmup,
    };
    let result = LoadReport::new(&args.crowd, offered, &crowd, load, stretch);
    crowd.fleet.close().await;
    result.print(args.crowd.target.json.as_deref(), args.plot.as_deref())
}

impl Pace {
    pub(crate) fn new(rate: f64, warmup: Duration, measured: Duration) -> anyhow::Result<Self> {
        ensure!(rate.is_finite() && rate > 0.0, "--rate must be above 0");
        let count = |time: Duration| (rate * time.as_secs_f64()).round() as usize;
        let all = count(warmup + measured);
        ensure!(
            all <= MESSAGES_MAX,
            "--rate {rate} is {all} messages in that time, and {MESSAGES_MAX} are the most"
        );
        Ok(Self {
            rate,
            warmup: count(warmup),
            all,
        })
    }

    /// When a message is due, from the first one on.
    fn due(&self, number: usize) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }
}

/// Sends everything at its time, the first message at `begin` of the load's time, and says what the measured part took;
/// or less, if it is stopped. Every second it calls `each_second`.
pub(crate) async fn send_all(
    crowd: &Crowd,
    load: &Load,
    pace: Pace,
    begin: Duration,
    stop: &CancellationToken,
    each_second: impl Fn(&Load),
) -> Stretch {
    let (observed, senders) = (Arc::clone(&crowd.fleet.observed), crowd.fleet.clients.clone());
    let stopped = stop.clone();
    // A thread of its own, since the runtime's timers only know milliseconds.
    let pacer = std::thread::spawn(move || {
        let Some(load) = observed.load() else { return };
        let mut sends = load.plan.sends();
        for number in 0..pace.all {
            let due = begin + pace.due(number);
            let early = (load.start + due).saturating_duration_since(Instant::now());
            if !early.is_zero() {
                std::thread::sleep(early);
            }
            if stopped.is_cancelled() {
                return;
            }
            let send = sends.draw();
            let number = load.ledger().begin(send, due, number >= pace.warmup);
            senders[load.plan.sender(send) as usize].send(number, send.chat);
        }
    });
    let at = |number| load.start + begin + pace.due(number);
    each_second_until(load, at(pace.warmup), &each_second).await;
    let before = Moment::now(&crowd.target, load);
    stop.run_until_cancelled(each_second_until(load, at(pace.all), &each_second))
        .await;
    let stretch = Moment::now(&crowd.target, load).since(&before);
    // It has nothing left to wait for; a panic of its own has been printed.
    tokio::task::spawn_blocking(|| pacer.join()).await.ok();
    stretch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_times() {
        let pace = Pace::new(100.0, Duration::from_secs(1), Duration::from_secs(3)).expect("possible");
        assert_eq!((pace.all, pace.warmup), (400, 100));
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(250), Duration::from_millis(2500));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Pace::new(rate, Duration::ZERO, Duration::ZERO).is_err(), "{rate}");
        }
        assert!(Pace::new(1e6, Duration::ZERO, Duration::from_mins(2)).is_err());
    }
}
