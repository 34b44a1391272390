//! The services that `tidings up` runs: processes of this executable, told by their environment what to do.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tidings_nats::NatsUser;
use tidings_service::{EXIT_WITH_STDIN, RUNTIME_THREADS};
use tidings_stack::{Orphaned, Probe, Server, Spec, half_of_the_cores};
use url::Url;

use super::UpArgs;
use super::folder::Folder;
use super::state::State;
use crate::nats_users::seed_file;

/// Where clients connect.
const GATEWAY: &str = "gateway";

/// A kind of service. The whole table is [`KINDS`].
pub(crate) struct Kind {
    /// The subcommand, and the first part of the names of its processes.
    pub(crate) name: &'static str,
    /// How many are asked for.
    count: fn(&UpArgs) -> u16,
    /// Whether clients connect to it.
    pub(crate) edge: bool,
}

/// Where attachments go: one process, since all that it does waits for a disk, and clients are told of one URL.
const MEDIA: &str = "media";
/// Its one process.
const MEDIA_PROCESS: &str = "media-1";

/// Every service, in the order in which they start.
pub(crate) const KINDS: [Kind; 4] = [
    Kind {
        name: "fanout-worker",
        count: |args| args.fanout_workers,
        edge: false,
    },
    Kind {
        name: "inbox-worker",
        count: |args| args.inbox_workers,
        edge: false,
    },
    Kind {
        name: MEDIA,
        count: |_| 1,
        edge: true,
    },
    Kind {
        name: GATEWAY,
        count: |args| args.gateways,
        edge: true,
    },
];

/// A service process that is not started yet.
pub(crate) struct Service {
    pub(crate) server: Server,
    /// Whether clients connect to it.
    pub(crate) edge: bool,
    /// Where its `/readyz` is.
    pub(crate) admin: String,
    /// Where clients connect to.
    pub(crate) ws: Option<String>,
    /// Where attachments go.
    pub(crate) media: Option<String>,
}

/// What every service needs to know.
pub(crate) struct Bases<'a> {
    pub(crate) nats_url: &'a str,
    /// Where the seeds of NATS users are.
    pub(crate) nats_users: &'a Path,
    pub(crate) postgres_url: &'a str,
    /// Where attachments lie.
    pub(crate) blob_store: &'a Url,
}

/// Whether the ports that were asked for can be had.
pub(crate) fn check_ports(args: &UpArgs, state: &mut State) -> anyhow::Result<()> {
    let Some(first) = args.port else {
        return Ok(());
    };
    for number in 1..=args.gateways {
        let port = first
            .checked_add(number - 1)
            .with_context(|| format!("--port {first} leaves no ports for {} gateways", args.gateways))?;
        state.asked_port(&format!("gateway-{number}"), port)?;
    }
    Ok(())
}

/// Every service process, with its ports.
pub(crate) fn prepare(
    args: &UpArgs,
    folder: &Folder,
    state: &mut State,
    bases: &Bases<'_>,
) -> anyhow::Result<Vec<Service>> {
    let program = std::env::current_exe()?;
    let media = SocketAddr::from((Ipv4Addr::LOCALHOST, state.port(MEDIA_PROCESS)?));
    let media_url = format!("http://{media}");
    let mut services = Vec::new();
    for kind in &KINDS {
        for number in 1..=(kind.count)(args) {
            let name = format!("{}-{number}", kind.name);
            let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, state.port(&format!("{name} admin"))?));
            // A port that was asked for is in the state by now.
            let listen = if kind.edge { Some(state.port(&name)?) } else { None };
            let listen = listen.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            services.push(service(
                kind, &name, &program, admin, listen, args, folder, state, bases, &media_url,
            ));
        }
    }
    Ok(services)
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is another thing that the environment says"
)]
fn service(
    kind: &Kind,
    name: &str,
    program: &PathBuf,
    admin: SocketAddr,
    listen: Option<SocketAddr>,
    args: &UpArgs,
    folder: &Folder,
    state: &State,
    bases: &Bases<'_>,
    media_url: &str,
) -> Service {
    let probe = Probe::Http {
        address: admin,
        path: "/readyz".to_owned(),
    };
    let mut spec = Spec::new(name, program, folder.log(name), probe);
    spec.args = vec![kind.name.into()];
    spec.orphaned = Orphaned::ReadsEndOfInput;
    let mut set = |name: &str, value: String| spec.env.push((name.into(), value.into()));
    set(EXIT_WITH_STDIN, "1".to_owned());
    // Media does not use the bus.
    if let Some(user) = NatsUser::of_name(kind.name) {
        set("TIDINGS_NATS_URL", bases.nats_url.to_owned());
        let seed = seed_file(bases.nats_users, user).into_os_string();
        spec.env.push(("TIDINGS_NATS_SEED_FILE".into(), seed));
    }
    let mut set = |name: &str, value: String| spec.env.push((name.into(), value.into()));
    set("TIDINGS_POSTGRES_URL", bases.postgres_url.to_owned());
    set("TIDINGS_ADMIN_LISTEN", admin.to_string());
    if let Some(listen) = listen {
        set("TIDINGS_LISTEN", listen.to_string());
        set("TIDINGS_JWT_SECRET", state.jwt_secret.clone());
        set("TIDINGS_RATE_LIMITS", args.rate_limits.to_string());
        set("TIDINGS_INBOX_DURABLES", args.inbox_durables.to_string());
        set("TIDINGS_MEDIA_URL", media_url.to_owned());
    }
    for (name, value) in [
        // Logs lie in files that people read.
        ("TIDINGS_LOG_FORMAT", "human"),
        // Who presses Ctrl-C waits for the end.
        ("TIDINGS_DRAIN_TIMEOUT", "5"),
        // Somebody may try a bucket.
        ("TIDINGS_BLOB_STORE", bases.blob_store.as_str()),
    ] {
        if std::env::var_os(name).is_none() {
            set(name, value.to_owned());
        }
    }
    spec.env.extend(half_of_the_cores(RUNTIME_THREADS));
    // What is set for another system must not contradict what is said here.
    spec.env_remove = [
        "NATS_URL_FILE",
        "NATS_SEED",
        "NATS_CREDENTIALS_FILE",
        "NATS_CA_FILE",
        "NATS_CERTIFICATE_FILE",
        "NATS_CERTIFICATE_KEY_FILE",
        "POSTGRES_URL_FILE",
        "JWT_SECRET_FILE",
    ]
    .iter()
    .map(|name| OsString::from(format!("TIDINGS_{name}")))
    .collect();
    Service {
        server: Server::new(spec),
        edge: kind.edge,
        admin: format!("http://{admin}"),
        ws: listen
            .filter(|_| kind.name == GATEWAY)
            .map(|listen| format!("ws://{listen}/v1/ws")),
        media: (kind.name == MEDIA).then(|| media_url.to_owned()),
    }
}
