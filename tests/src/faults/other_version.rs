//! Another version beside this one: for good, or as an upgrade while people use the system.

use std::fmt;
use std::path::{Path, PathBuf};

use super::rig::{Rig, RigOptions};
use crate::history::Happening;

/// Kinds of services that read chats' events and inboxes without a client.
const WORKERS: [&str; 2] = ["fanout-worker", "inbox-worker"];

/// Who runs a `tidings` other than the one under test.
#[derive(Clone, Debug, Default)]
pub enum OtherVersion {
    /// Nobody.
    #[default]
    None,
    /// Fan-out and inbox workers.
    Workers(PathBuf),
    /// Gateways and media services.
    Gateways(PathBuf),
    /// Everybody at first, `setup` included; then all change to the one under test.
    Before {
        /// The other one.
        program: PathBuf,
        /// Whether all change back in the end.
        back: bool,
    },
}

impl OtherVersion {
    /// What a service of this kind begins with, where `own` is under test.
    pub(super) fn of<'a>(&'a self, kind: &str, own: &'a Path) -> &'a Path {
        match self {
            Self::Workers(program) if WORKERS.contains(&kind) => program,
            Self::Gateways(program) if !WORKERS.contains(&kind) => program,
            Self::Before { program, .. } => program,
            Self::None | Self::Workers(_) | Self::Gateways(_) => own,
        }
    }

    /// What sets the system up. The first step of an upgrade is the new version's setup, so a mixture has it as well.
    pub(super) fn of_setup<'a>(&'a self, own: &'a Path) -> &'a Path {
        match self {
            Self::Before { program, .. } => program,
            Self::None | Self::Workers(_) | Self::Gateways(_) => own,
        }
    }
}

/// A step of an upgrade, or of the way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `tidings setup` of this program.
    SetUp(PathBuf),
    /// These services change to this program, one after the other.
    Change(Vec<String>, PathBuf),
}

impl Step {
    /// The steps in the order that the operators' guide gives: setup, fan-out and inbox workers, media services and
    /// gateways; and the other way round. None where nothing changes.
    pub(super) fn all(options: &RigOptions) -> Vec<Self> {
        let OtherVersion::Before { program, back } = &options.other else {
            return Vec::new();
        };
        let mut steps = vec![Self::SetUp(options.program.clone())];
        for kinds in [WORKERS, ["media", "gateway"]] {
            for number in 1..=options.each {
                let names = kinds.map(|kind| format!("{kind}-{number}"));
                steps.push(Self::Change(names.into(), options.program.clone()));
            }
        }
        if *back {
            let changes: Vec<Self> = steps[1..].to_vec();
            steps.extend(changes.into_iter().rev().map(|step| step.with(program)));
        }
        steps
    }

    fn with(self, program: &Path) -> Self {
        match self {
            Self::SetUp(_) => Self::SetUp(program.to_owned()),
            Self::Change(mut names, _) => {
                names.reverse();
                Self::Change(names, program.to_owned())
            }
        }
    }

    /// Takes it, while people go on.
    pub(super) async fn take(&self, rig: &Rig) -> anyhow::Result<()> {
        rig.recorder.happened(Happening::note(self.to_string()));
        match self {
            Self::SetUp(program) => rig.set_up_again(program).await,
            Self::Change(names, program) => {
                for name in names {
                    rig.process(name).change_to(program).await?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp(program) => write!(f, "setup of {}", program.display()),
            Self::Change(names, program) => write!(f, "{} become {}", names.join(", "), program.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_change_before_gateways_and_back_after_them() {
        let options = RigOptions {
            dir: PathBuf::new(),
            program: "new".into(),
            other: OtherVersion::Before {
                program: "old".into(),
                back: true,
            },
            nats: 1,
            each: 2,
            disk_mib: None,
        };
        let told: Vec<String> = Step::all(&options).iter().map(Step::to_string).collect();
        assert_eq!(
            told,
            [
                "setup of new",
                "fanout-worker-1, inbox-worker-1 become new",
                "fanout-worker-2, inbox-worker-2 become new",
                "media-1, gateway-1 become new",
                "media-2, gateway-2 become new",
                "gateway-2, media-2 become old",
                "gateway-1, media-1 become old",
                "inbox-worker-2, fanout-worker-2 become old",
                "inbox-worker-1, fanout-worker-1 become old",
            ]
        );
    }
}
