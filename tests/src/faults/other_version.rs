//! Another version beside this one: for good, or as an upgrade while people use the system.

use std::fmt;
use std::path::{Path, PathBuf};

use super::rig::{Rig, RigOptions};
use crate::history::Happening;

/// What services say of something that they cannot read. The system gets over it; no version may make
/// another one say it.
const UNREADABLE: [&str; 8] = [
    "an entry cannot be read",
    "an entry on the live lane cannot be read",
    "a message on the live lane cannot be read",
    "an invalidation cannot be read",
    "a request to close cannot be read",
    "a key of SESSIONS cannot be read",
    "an event waits for a newer fan-out worker",
    "an event cannot be processed and is a dead letter",
];

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
    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

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

/// Who could not read what others wrote, from the logs of all services in a folder.
pub(super) fn unread(logs: &Path) -> std::io::Result<Vec<String>> {
    let mut unread = Vec::new();
    for file in std::fs::read_dir(logs)? {
        let path = file?.path();
        let log = std::fs::read(&path)?;
        let log = String::from_utf8_lossy(&log);
        let mut lines = log
            .lines()
            .filter(|line| UNREADABLE.iter().any(|words| line.contains(words)));
        if let Some(first) = lines.next() {
            unread.push(format!(
                "{}: {first} (and {} more)",
                path.display(),
                lines.count()
            ));
        }
    }
    unread.sort_unstable();
    Ok(unread)
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
    fn who_cannot_read_is_named() {
        let logs = tempfile::tempdir().expect("a folder");
        std::fs::write(
            logs.path().join("gateway-1.log"),
            "fine\ninvalidations cannot be read: not connected\n",
        )
        .expect("it can be written");
        assert_eq!(unread(logs.path()).expect("it can be read"), [""; 0]);
        std::fs::write(
            logs.path().join("gateway-2.log"),
            "fine\nERROR an entry cannot be read error=format 2 is newer than this build's 1\nERROR an entry cannot be read\n",
        )
        .expect("it can be written");
        let unread = unread(logs.path()).expect("it can be read");
        assert!(
            unread.len() == 1
                && unread[0].contains("gateway-2.log: ERROR")
                && unread[0].contains("(and 1 more)"),
            "{unread:?}"
        );
    }

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
