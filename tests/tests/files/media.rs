//! A media service beside the one of `tidings up`, which a test can kill as often as it likes: nobody waits longer each
//! time before it is started again.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tidings_service::EXIT_WITH_STDIN;
use tidings_stack::{Orphaned, Probe, Server, Spec, free_ports};
use tidings_tests::System;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Media {
    server: Server,
    /// Where it listens, also after it was started again.
    pub(crate) url: String,
}

impl Media {
    /// One with the store of the system, where that is a folder of its own.
    pub(crate) async fn start(system: &System, name: &str) -> Self {
        let up = system.up_file();
        let ports = free_ports(2).expect("loopback has free ports");
        let [listen, admin] = [ports[0], ports[1]].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let probe = Probe::Http {
            address: admin,
            path: "/readyz".to_owned(),
        };
        let log = system.dir().join("logs").join(format!("{name}.log"));
        let mut spec = Spec::new(name, System::executable(), log, probe);
        spec.args = vec!["media".into()];
        spec.orphaned = Orphaned::ReadsEndOfInput;
        let store = format!("file://{}", system.dir().join("attachments").display());
        for (name, value) in [
            (EXIT_WITH_STDIN, "1".to_owned()),
            ("TIDINGS_POSTGRES_URL", up.postgres),
            ("TIDINGS_JWT_SECRET", up.jwt_secret),
            ("TIDINGS_RATE_LIMITS", "off".to_owned()),
            ("TIDINGS_LISTEN", listen.to_string()),
            ("TIDINGS_ADMIN_LISTEN", admin.to_string()),
            ("TIDINGS_BLOB_STORE", store),
            ("TIDINGS_LOG", "info,tidings_media=debug".to_owned()),
        ] {
            spec.env.push((name.into(), value.into()));
        }
        let mut media = Self {
            server: Server::new(spec),
            url: format!("http://{listen}"),
        };
        media.start_again().await;
        media
    }

    /// As a crash. Returns when it is dead.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await;
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        self.server.start(PATIENCE).await.expect("media starts");
    }
}
