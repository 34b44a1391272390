//! Who may do what on the bus: one NATS user for each kind of service, with the subjects that it needs and no others
//! (adr/0020). `nats/server/users.conf` is this as nats-server reads it, with a variable for each key.
//!
//! JetStream checks who may ask it by the subject of the question, so these are lists of questions by stream. A wildcard
//! stands for a whole token only, which is why every stream of inboxes is named.

use std::fmt::Write as _;

use crate::shard::Topology;
use crate::subject::inbox_stream;
use crate::{BODIES, CHATS, DEAD_LETTERS, INSTANCES, INVALIDATIONS, SESSIONS, TRIALS};

/// Lines of subjects in a configuration break here.
const WIDTH: usize = 110;

/// A user of the account that has the streams.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum NatsUser {
    /// Every gateway.
    Gateway,
    /// Every fan-out worker.
    FanoutWorker,
    /// Every inbox worker.
    InboxWorker,
    /// `tidings setup`.
    Setup,
    /// The commands that look inside and put right, and the `nats` command as the guide has it.
    Operator,
    /// Whoever owns the system: everything, for repairs that nothing else may do. No service has it; `tidings bench raw` makes
    /// streams with it.
    Admin,
}

/// What a user may publish, requests included, and what it may listen to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects, with wildcards.
    pub publish: Vec<String>,
    /// Subjects, with wildcards.
    pub subscribe: Vec<String>,
}

impl NatsUser {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Gateway,
        Self::FanoutWorker,
        Self::InboxWorker,
        Self::Setup,
        Self::Operator,
        Self::Admin,
    ];

    /// Its name in files and commands; of a service, the subcommand.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::FanoutWorker => "fanout-worker",
            Self::InboxWorker => "inbox-worker",
            Self::Setup => "setup",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The user of this name, if there is one.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|user| user.name() == name)
    }

    /// `GATEWAY` of `TIDINGS_NATS_GATEWAY_NKEY`, for the names of variables.
    pub fn variable(self) -> String {
        self.name().replace('-', "_").to_uppercase()
    }

    /// Where answers to its requests come: of services, where no other user may listen. People have that of the `nats`
    /// command.
    pub const fn inbox_prefix(self) -> &'static str {
        match self {
            Self::Gateway => "_INBOX_gateway",
            Self::FanoutWorker => "_INBOX_fanout-worker",
            Self::InboxWorker => "_INBOX_inbox-worker",
            Self::Setup => "_INBOX_setup",
            Self::Operator | Self::Admin => "_INBOX",
        }
    }

    /// What it is for, for people.
    const fn purpose(self) -> &'static str {
        match self {
            Self::Gateway => {
                "Gateways: accept events, hold sessions, read inboxes and delete what was confirmed in them."
            }
            Self::FanoutWorker => {
                "Fan-out workers: read CHATS, publish changes and delete there, store entries, tell gateways."
            }
            Self::InboxWorker => {
                "Inbox workers: publish the outbox, empty inboxes, tell how much waits everywhere."
            }
            Self::Setup => {
                "`tidings setup`: makes and changes streams and consumers, and so can have all of it copied."
            }
            Self::Operator => {
                "Operators: `tidings where`, `kick`, `dead-letters` and the like, and reading with `nats`."
            }
            Self::Admin => {
                "Whoever owns the system, for repairs: everything. Keep its seed away from machines."
            }
        }
    }

    /// What it may do in a system that is cut like this.
    pub fn permissions(self, topology: &Topology) -> Permissions {
        let mut list = List {
            topology: *topology,
            publish: Vec::new(),
        };
        let mut subscribe = vec![format!("{}.>", self.inbox_prefix())];
        match self {
            Self::Gateway => {
                list.gateway();
                subscribe.extend(["live.*".to_owned(), "close.*".to_owned()]);
            }
            Self::FanoutWorker => {
                list.fanout_worker();
                subscribe.push("direct.*".to_owned());
            }
            Self::InboxWorker => list.inbox_worker(),
            Self::Setup => list.setup(),
            Self::Operator => {
                list.operator();
                // `tidings top` counts what passes, `nats sub` shows it.
                subscribe.extend(["chat.>".to_owned(), "live.>".to_owned()]);
            }
            Self::Admin => {
                list.publish.push(">".to_owned());
                subscribe = vec![">".to_owned()];
            }
        }
        Permissions {
            publish: list.publish,
            subscribe,
        }
    }
}

/// What a user may publish, as it is put together.
struct List {
    topology: Topology,
    publish: Vec<String>,
}

impl List {
    fn subjects(&mut self, subjects: &[&str]) {
        self.publish
            .extend(subjects.iter().map(|subject| (*subject).to_owned()));
    }

    /// Requests to JetStream; `INBOX_*` stands for the stream of each shard.
    fn api(&mut self, requests: &[&str]) {
        for request in requests {
            let subject = format!("$JS.API.{request}");
            if subject.contains("INBOX_*") {
                let streams = self.topology.shards().map(inbox_stream);
                self.publish
                    .extend(streams.map(|stream| subject.replace("INBOX_*", &stream)));
            } else {
                self.publish.push(subject);
            }
        }
    }

    /// A service looks at its start whether streams are as it needs them, says every two seconds that it lives, and looks who
    /// else does.
    fn service(&mut self, user: NatsUser) {
        for stream in [CHATS, BODIES, INVALIDATIONS, DEAD_LETTERS] {
            self.api(&[&format!("STREAM.INFO.{stream}")]);
        }
        for bucket in [SESSIONS, INSTANCES, TRIALS] {
            self.api(&[&format!("STREAM.INFO.KV_{bucket}")]);
        }
        self.subjects(&[
            &format!("$KV.{INSTANCES}.{}.*", user.name()),
            "$KV.INSTANCES.barrier",
        ]);
        self.api(&["DIRECT.GET.KV_INSTANCES"]);
    }

    /// An ordered consumer of its own, which it makes anew whenever it must.
    fn ordered_consumer(&mut self, stream: &str) {
        self.api(&[
            &format!("CONSUMER.CREATE.{stream}"),
            &format!("CONSUMER.CREATE.{stream}.>"),
            &format!("CONSUMER.DELETE.{stream}.*"),
        ]);
        // Flow control; a server with domains puts two tokens in between.
        self.subjects(&[&format!("$JS.FC.{stream}.>"), &format!("$JS.FC.*.*.{stream}.>")]);
    }

    /// Changes that Postgres has are told to everybody, by whoever comes first.
    fn outbox(&mut self) {
        self.outbox_of_chats();
        self.subjects(&["invalidation.user.*"]);
    }

    /// Of chats alone: a fan-out worker publishes a change whose place among the events it must know.
    fn outbox_of_chats(&mut self) {
        self.subjects(&["chat.*.*", "invalidation.chat.*"]);
    }

    /// Large bodies: read by gateways, removed by inbox workers. To know that one is gone, a deletion of nothing goes through
    /// their log.
    fn bodies(&mut self) {
        self.api(&[
            "DIRECT.GET.BODIES",
            "STREAM.MSG.GET.BODIES",
            "STREAM.MSG.DELETE.BODIES",
        ]);
    }

    /// Marks of what is missing from inboxes: the one before is read, and deleted.
    fn marks(&mut self) {
        self.subjects(&["inbox.*.*.*.lost"]);
        self.api(&[
            "DIRECT.GET.INBOX_*",
            "STREAM.MSG.GET.INBOX_*",
            "STREAM.MSG.DELETE.INBOX_*",
        ]);
    }

    /// To know where INVALIDATIONS ends, a deletion of nothing goes through its log. Whoever reads it takes a gap for
    /// something missed, and forgets everything.
    fn end_of_invalidations(&mut self) {
        self.api(&["STREAM.MSG.DELETE.INVALIDATIONS"]);
    }

    fn gateway(&mut self) {
        self.service(NatsUser::Gateway);
        self.outbox();
        self.end_of_invalidations();
        self.ordered_consumer(INVALIDATIONS);
        // Sessions.
        self.subjects(&["$KV.SESSIONS.*"]);
        self.api(&[
            "DIRECT.GET.KV_SESSIONS",
            "DIRECT.GET.KV_SESSIONS.>",
            "STREAM.MSG.GET.KV_SESSIONS",
        ]);
        // Asks others to close connections, and answers who asks: gateways and operators.
        self.subjects(&["close.*", "_INBOX_gateway.>", "_INBOX.>"]);
        // What becomes of direct deliveries.
        self.subjects(&["direct.*"]);
        // Inboxes.
        self.subjects(&["inbox.*.barrier"]);
        self.marks();
        self.api(&[
            "STREAM.INFO.INBOX_*",
            "CONSUMER.CREATE.INBOX_*.*",
            "CONSUMER.INFO.INBOX_*.*",
            "CONSUMER.RESET.INBOX_*.*",
            "CONSUMER.MSG.NEXT.INBOX_*.*",
            "CONSUMER.DELETE.INBOX_*.*",
        ]);
        self.bodies();
    }

    fn fanout_worker(&mut self) {
        self.service(NatsUser::FanoutWorker);
        // Events.
        self.api(&[
            "CONSUMER.INFO.CHATS.*",
            "CONSUMER.CREATE.CHATS.*.chat.*.*",
            "CONSUMER.MSG.NEXT.CHATS.*",
            "CONSUMER.RESET.CHATS.*",
            "CONSUMER.UNPIN.CHATS.*",
            "STREAM.MSG.GET.CHATS",
            "STREAM.MSG.DELETE.CHATS",
        ]);
        self.subjects(&["$JS.ACK.CHATS.>", "$JS.ACK.*.*.CHATS.>", "dead.*.*"]);
        self.outbox_of_chats();
        // Entries, and who is told of them.
        self.subjects(&["inbox.*.*.*", "body.*", "body.*.entries", "live.*"]);
        self.marks();
        // Who is connected, and what is tried.
        self.ordered_consumer("KV_SESSIONS");
        self.subjects(&["$KV.SESSIONS.barrier", "$KV.TRIALS.*"]);
        self.api(&["DIRECT.GET.KV_TRIALS"]);
        // Who is in which chat.
        self.end_of_invalidations();
        self.ordered_consumer(INVALIDATIONS);
    }

    fn inbox_worker(&mut self) {
        self.service(NatsUser::InboxWorker);
        self.outbox();
        // What waits everywhere.
        self.api(&["STREAM.LIST", "CONSUMER.LIST.CHATS"]);
        // Inboxes that end.
        self.subjects(&["inbox.*.barrier", "$KV.SESSIONS.barrier"]);
        self.marks();
        self.api(&[
            "STREAM.INFO.INBOX_*",
            "STREAM.PURGE.INBOX_*",
            "CONSUMER.DELETE.INBOX_*.*",
            "DIRECT.GET.KV_SESSIONS",
        ]);
        self.bodies();
    }

    fn setup(&mut self) {
        self.api(&[
            "STREAM.NAMES",
            "CONSUMER.INFO.CHATS.*",
            "CONSUMER.CREATE.CHATS.>",
            "CONSUMER.DELETE.CHATS.*",
        ]);
        for question in ["INFO", "CREATE", "UPDATE"] {
            for stream in [CHATS, BODIES, INVALIDATIONS, DEAD_LETTERS, "INBOX_*"] {
                self.api(&[&format!("STREAM.{question}.{stream}")]);
            }
            for bucket in [SESSIONS, INSTANCES, TRIALS] {
                self.api(&[&format!("STREAM.{question}.KV_{bucket}")]);
            }
        }
    }

    fn operator(&mut self) {
        // Looking at everything, messages included.
        self.api(&[
            "INFO",
            "STREAM.INFO.*",
            "STREAM.LIST",
            "STREAM.NAMES",
            "STREAM.MSG.GET.*",
            "DIRECT.GET.>",
            "CONSUMER.INFO.*.*",
            "CONSUMER.LIST.*",
            "CONSUMER.NAMES.*",
        ]);
        // `nats kv ls` makes a consumer.
        for bucket in [SESSIONS, INSTANCES, TRIALS] {
            self.ordered_consumer(&format!("KV_{bucket}"));
        }
        // Connections are ended by their gateways, and everybody is told that clients have changed.
        self.subjects(&["close.*", "invalidation.user.*"]);
        // Dead letters become events again. `explain` asks streams what they remember by a message that they refuse.
        self.subjects(&["chat.*.*", "inbox.*.*.*"]);
        self.api(&["STREAM.MSG.DELETE.DEAD_LETTERS"]);
        // To know that something is not there, or where a stream ends: a barrier, and its removal.
        self.subjects(&["inbox.*.barrier", "$KV.SESSIONS.barrier", "$KV.INSTANCES.barrier"]);
        self.api(&["STREAM.MSG.DELETE.CHATS", "STREAM.MSG.DELETE.INBOX_*"]);
    }
}

/// The `users` of the account that has the streams, for a nats-server's configuration. `keys` are the public `NKeys` by
/// which a user logs in, or variables: none, and it cannot; several, and any of them will do.
pub fn users_conf(topology: &Topology, mut keys: impl FnMut(NatsUser) -> Vec<String>) -> String {
    let mut text = String::from("users: [\n");
    for user in NatsUser::ALL {
        let permissions = user.permissions(topology);
        for key in keys(user) {
            let purpose = user.purpose();
            write!(
                text,
                "  # {purpose}\n  {{\n    nkey: {key}\n    permissions: {{\n      publish: {{ allow: [\n"
            )
            .expect("a string takes everything");
            wrap(&mut text, &permissions.publish);
            text.push_str("      ] }\n      subscribe: { allow: [\n");
            wrap(&mut text, &permissions.subscribe);
            text.push_str("      ] }\n    }\n  }\n");
        }
    }
    text.push_str("]\n");
    text
}

/// Subjects in lines.
fn wrap(text: &mut String, subjects: &[String]) {
    let mut line = String::new();
    for subject in subjects {
        if !line.is_empty() && 8 + line.len() + subject.len() + 4 > WIDTH {
            writeln!(text, "        {}", line.trim_end()).expect("a string takes everything");
            line.clear();
        }
        write!(line, "\"{subject}\", ").expect("a string takes everything");
    }
    writeln!(text, "        {}", line.trim_end()).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE_HEAD: &str = "\
# Who may do what in the account that has the streams. A nats-server's configuration includes this; the public keys are
# variables of its environment. `tidings nats-users` makes keys, or this file with the keys in it.
#
# Made from nats/src/users.rs, where the reasons stand; a test says how when it differs.

";

    #[test]
    fn the_file_for_servers_is_what_is_written_here() {
        let users = users_conf(&Topology::default(), |user| {
            vec![format!("$TIDINGS_NATS_{}_NKEY", user.variable())]
        });
        let expected = format!("{TEMPLATE_HEAD}{users}");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/server/users.conf");
        if std::env::var_os("TIDINGS_WRITE").is_some() {
            std::fs::write(path, &expected).expect("the folder is writable");
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            file == expected,
            "nats/server/users.conf is not what nats/src/users.rs says: run this test with TIDINGS_WRITE=1"
        );
    }

    #[test]
    fn names_are_read_back() {
        for user in NatsUser::ALL {
            assert_eq!(NatsUser::of_name(user.name()), Some(user));
        }
        assert_eq!(NatsUser::of_name("media"), None);
        assert_eq!(NatsUser::FanoutWorker.variable(), "FANOUT_WORKER");
    }

    #[test]
    fn nobody_but_people_listens_where_others_are_answered() {
        for user in NatsUser::ALL.into_iter().filter(|user| *user != NatsUser::Admin) {
            let permissions = user.permissions(&Topology::default());
            let own = format!("{}.>", user.inbox_prefix());
            let inboxes: Vec<&String> = permissions
                .subscribe
                .iter()
                .filter(|subject| subject.starts_with("_INBOX") || subject.starts_with(['*', '>']))
                .collect();
            assert_eq!(inboxes, [&own], "{}", user.name());
        }
    }
}
