//! One fault, and how it is made.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{join_all, try_join_all};
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::process::Process;
use super::rig::Rig;
use crate::history::Happening;
use crate::proxy::Mode;

/// What goes wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum FaultKind {
    /// SIGKILL; started again after a while.
    Kill,
    /// SIGTERM; started again after a while.
    Terminate,
    /// SIGSTOP, SIGCONT after a while.
    Freeze,
    /// The connections of a link are reset; new ones are taken.
    Cut,
    /// The connections of a link are reset, new ones closed at once.
    Refuse,
    /// Nothing passes on a link, both ways.
    Stall,
    /// Nothing passes on a link towards the server.
    StallToServer,
    /// Nothing passes on a link towards the client.
    StallToClient,
    /// The connections of a link end towards the client alone.
    HalfClose,
    /// Whatever passes on a link is delayed.
    Slow,
    /// Two of three NATS servers are frozen: no quorum.
    FreezeTwoNats,
    /// Every NATS server is restarted, one after the other.
    RollNats,
    /// All NATS servers are killed at once.
    KillAllNats,
    /// Every gateway, worker and inbox worker is restarted, one after the other.
    RollServices,
    /// The streams of events and of inboxes take next to nothing more.
    FullStore,
    /// The disk of a NATS server is full; there is room again after a while, and the server is restarted.
    FullDisk,
}

impl FaultKind {
    /// Whether it hits a process, chosen by the schedule.
    pub(super) const fn hits_process(self) -> bool {
        matches!(self, Self::Kill | Self::Terminate | Self::Freeze)
    }

    /// Whether it hits a link, chosen by the schedule.
    pub(super) const fn hits_link(self) -> bool {
        matches!(
            self,
            Self::Cut
                | Self::Refuse
                | Self::Stall
                | Self::StallToServer
                | Self::StallToClient
                | Self::HalfClose
                | Self::Slow
        )
    }

    /// Whether there must be three NATS servers for it.
    pub(super) const fn needs_cluster(self) -> bool {
        matches!(self, Self::FreezeTwoNats | Self::RollNats | Self::KillAllNats)
    }

    /// As it stands in histories. The judge knows that a NATS server forgets in `SIGKILL`, `SIGTERM` and `restart`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Terminate => "SIGTERM",
            Self::Freeze => "SIGSTOP",
            Self::Cut => "cut",
            Self::Refuse => "refused",
            Self::Stall => "stalled",
            Self::StallToServer => "stalled to the server",
            Self::StallToClient => "stalled to the client",
            Self::HalfClose => "half-closed",
            Self::Slow => "slow",
            Self::FreezeTwoNats => "SIGSTOP of two of three",
            Self::KillAllNats => "SIGKILL of all",
            Self::RollNats | Self::RollServices => "rolling restart",
            Self::FullStore => "full store",
            Self::FullDisk => "full disk, restart",
        }
    }
}

/// A fault that is going to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Which process (`gateway-1`), which link (`gateway-1>nats`), or a group (`nats`, `services`).
    pub target: String,
    /// For how long: until the process is started again, until the link is well.
    pub lasts: Duration,
    /// The delay of a slow link.
    pub delay: Duration,
    /// How long nothing is done after it, so that it can be told what came of it.
    pub pause: Duration,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.lasts.as_secs_f64();
        write!(f, "{}: {} for {seconds:.1} s", self.target, self.kind.name())
    }
}

impl Fault {
    /// Makes it and ends it. What was killed runs again and answers when this returns.
    pub(super) async fn happen(&self, rig: &Rig) -> anyhow::Result<()> {
        let name = self.kind.name();
        rig.recorder.happened(Happening::begins(name, &self.target));
        let result = self.carry_out(rig).await;
        rig.recorder.happened(Happening::ends(name, &self.target));
        result.with_context(|| self.to_string())
    }

    async fn carry_out(&self, rig: &Rig) -> anyhow::Result<()> {
        match self.kind {
            FaultKind::Kill => {
                let process = rig.process(&self.target);
                process.kill().await;
                sleep(self.lasts).await;
                process.up().await
            }
            FaultKind::Terminate => {
                let process = rig.process(&self.target);
                process.stop().await;
                sleep(self.lasts).await;
                process.up().await
            }
            FaultKind::Freeze => {
                let process = rig.process(&self.target);
                process.signal(Signal::SIGSTOP).await;
                sleep(self.lasts).await;
                process.signal(Signal::SIGCONT).await;
                Ok(())
            }
            FaultKind::Cut => {
                rig.link(&self.target).cut();
                Ok(())
            }
            FaultKind::HalfClose => {
                rig.link(&self.target).half_close();
                Ok(())
            }
            FaultKind::Refuse => self.disturb(rig, Mode::Refuse).await,
            FaultKind::Stall => self.disturb(rig, Mode::Stall).await,
            FaultKind::StallToServer => self.disturb(rig, Mode::StallToServer).await,
            FaultKind::StallToClient => self.disturb(rig, Mode::StallToClient).await,
            FaultKind::Slow => self.disturb(rig, Mode::Slow(self.delay)).await,
            FaultKind::FreezeTwoNats => {
                let frozen = &rig.nats()[..2];
                join_all(frozen.iter().map(|node| node.signal(Signal::SIGSTOP))).await;
                sleep(self.lasts).await;
                join_all(frozen.iter().map(|node| node.signal(Signal::SIGCONT))).await;
                Ok(())
            }
            FaultKind::RollNats => self.roll(rig.nats()).await,
            FaultKind::RollServices => self.roll(rig.services()).await,
            FaultKind::KillAllNats => {
                join_all(rig.nats().iter().map(Process::kill)).await;
                sleep(self.lasts).await;
                // Those of a cluster answer only together.
                try_join_all(rig.nats().iter().map(Process::up)).await?;
                Ok(())
            }
            FaultKind::FullDisk => {
                let (process, disk) = (rig.process(&self.target), rig.disk(&self.target));
                disk.fill()?;
                sleep(self.lasts).await;
                disk.make_room()?;
                process.stop().await;
                process.up().await
            }
            FaultKind::FullStore => {
                rig.store().fill().await?;
                sleep(self.lasts).await;
                rig.store().make_room().await
            }
        }
    }

    /// Restarts them one after the other.
    async fn roll(&self, processes: &[Process]) -> anyhow::Result<()> {
        for process in processes {
            process.stop().await;
            process.up().await?;
            sleep(self.lasts).await;
        }
        Ok(())
    }

    async fn disturb(&self, rig: &Rig, mode: Mode) -> anyhow::Result<()> {
        let link = rig.link(&self.target);
        link.set(mode);
        sleep(self.lasts).await;
        link.set(Mode::Pass);
        Ok(())
    }
}
