//! The system under load: where it listens, how to log in, which processes it is made of.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use tidings_protocol::{CLIENTS_MAX, ClientId, Codec, UserId};
use tidings_service::{Secret, raise_files_limit};
use tokio::sync::Semaphore;

use crate::token::{client_id, sign};
use crate::{DataDir, UpFile, UpProcess};

/// The first device of each user; others have a number behind it. Client ids are derived from both names, so that they are
/// the same in each run.
const DEVICE: &str = "bench";
/// Longer than any run, so that no token expires within one.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);
/// Connections that are opened at the same time, where nothing else is asked for.
const CONNECTING: u32 = 64;
/// Files that are open beside the sockets: the runtime's, the standard streams, what `/proc` is read through.
const FILES_BESIDE: u64 = 64;

/// Options that every scenario has.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    dir: DataDir,

    /// A gateway's URL, where `tidings up` does not run the system; several share the clients.
    ///
    /// Memory and CPU time of its processes are not known then.
    #[arg(long = "url", value_name = "URL", value_delimiter = ',')]
    urls: Vec<String>,

    /// With `--url`: the secret that tokens are signed with (HS256).
    #[arg(long, value_name = "TEXT", env = "TIDINGS_JWT_SECRET", hide_env_values = true)]
    secret: Option<Secret>,

    /// The subprotocol.
    #[arg(long, value_enum, default_value_t = CodecName::Json)]
    codec: CodecName,

    /// The users are PREFIX-0, PREFIX-1 and so on; with three --devices each, PREFIX-3x0 and so on.
    #[arg(long, default_value = "bench", value_name = "PREFIX")]
    prefix: String,

    /// How many clients each user has: with several, the sender's others get copies too.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX as i64))]
    pub(crate) devices: u32,

    /// How many connections are opened at the same time. [default: 64, and who comes back all at once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connecting: Option<u32>,

    /// Addresses of this machine to connect from, which share the clients: each has some 28,000 ports.
    #[arg(long = "source", value_name = "ADDR", value_delimiter = ',')]
    sources: Vec<IpAddr>,

    /// How many processes share the clients; 1 is this one. Others are started by it.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) processes: u32,

    /// Writes the result there, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum CodecName {
    Json,
    Postcard,
}

impl TargetArgs {
    /// The folder of `tidings up`.
    pub(crate) fn folder(&self) -> anyhow::Result<PathBuf> {
        self.dir.path()
    }

    /// The system that `tidings up` runs, for what no client may ask.
    pub(crate) fn up(&self) -> anyhow::Result<UpFile> {
        ensure!(
            self.urls.is_empty(),
            "this needs the folder of `tidings up`: give --dir, not --url"
        );
        UpFile::read(&self.dir.path()?)
    }

    /// The subprotocol, as the option names it.
    pub(crate) const fn codec_name(&self) -> &'static str {
        match self.codec {
            CodecName::Json => "json",
            CodecName::Postcard => "postcard",
        }
    }
}

/// See the module.
pub(crate) struct Target {
    pub(crate) codec: Codec,
    /// How many connections this process opens at the same time.
    pub(crate) connecting: usize,
    /// How many processes share the clients.
    pub(crate) processes_of_load: u32,
    /// Places for clients that come back at the same time.
    pub(crate) returning: Semaphore,
    /// Empty where they are not known.
    pub(crate) processes: Vec<UpProcess>,
    /// Clients of each user.
    devices: u32,
    /// To connect from; wherever the system likes where there are none.
    sources: Vec<IpAddr>,
    urls: Vec<String>,
    secret: Secret,
    prefix: String,
}

/// One client to connect.
pub(crate) struct Login {
    pub(crate) user: UserId,
    pub(crate) url: String,
    pub(crate) token: String,
    /// The address to connect from.
    pub(crate) source: Option<IpAddr>,
}

impl Target {
    /// Looks it up. Nothing is connected yet.
    pub(crate) fn open(args: &TargetArgs) -> anyhow::Result<Self> {
        let (urls, secret, processes) = if args.urls.is_empty() {
            let up = UpFile::read(&args.dir.path()?)?;
            (up.ws, Secret::new(up.jwt_secret), up.processes)
        } else {
            let secret = args
                .secret
                .clone()
                .context("--url needs --secret, to sign tokens with")?;
            (args.urls.clone(), secret, Vec::new())
        };
        if urls.is_empty() {
            bail!("the system has no gateway");
        }
        let codec = match args.codec {
            CodecName::Json => Codec::Json,
            CodecName::Postcard => Codec::Postcard,
        };
        // Each process opens its part of them.
        let connecting = |count: u32| (count / args.processes).max(1) as usize;
        let target = Self {
            codec,
            connecting: connecting(args.connecting.unwrap_or(CONNECTING)),
            processes_of_load: args.processes,
            returning: Semaphore::new(args.connecting.map_or(Semaphore::MAX_PERMITS, connecting)),
            processes,
            devices: args.devices,
            sources: args.sources.clone(),
            urls,
            secret,
            prefix: args.prefix.clone(),
        };
        target.user(u32::MAX)?;
        Ok(target)
    }

    /// A user of the load generator. One who has several devices is never used with another number of them: the others would
    /// get copies that nobody counts.
    pub(crate) fn user(&self, index: u32) -> anyhow::Result<UserId> {
        let Self { prefix, devices, .. } = self;
        let name = match devices {
            1 => format!("{prefix}-{index}"),
            _ => format!("{prefix}-{devices}x{index}"),
        };
        UserId::new(&name).context("--prefix")
    }

    /// A client of the load generator, and its user. Clients are numbered user by user.
    pub(crate) fn client(&self, index: u32) -> anyhow::Result<(UserId, ClientId)> {
        let user = self.user(index / self.devices)?;
        let client = match index % self.devices {
            0 => client_id(&user, DEVICE),
            device => client_id(&user, &format!("{DEVICE}-{device}")),
        };
        Ok((user, client))
    }

    /// What a client needs to connect. Clients are spread over the gateways, and each gateway's over the sources.
    pub(crate) fn login(&self, index: u32) -> anyhow::Result<Login> {
        let (user, client) = self.client(index)?;
        let token = sign(self.secret.expose(), &user, client, TOKEN_LIFETIME)?;
        let url = self.urls[index as usize % self.urls.len()].clone();
        let round = index as usize / self.urls.len();
        let source = (!self.sources.is_empty()).then(|| self.sources[round % self.sources.len()]);
        Ok(Login {
            user,
            url,
            token,
            source,
        })
    }
}

/// Lets this process have so many sockets, or says that it may not.
pub(crate) fn allow_sockets(count: u32) -> anyhow::Result<()> {
    let needed = u64::from(count) + FILES_BESIDE;
    let limit = raise_files_limit()?;
    if limit < needed {
        bail!(
            "{count} clients need {needed} open files, and the limit is {limit}: raise it with `ulimit -n`"
        );
    }
    Ok(())
}
