//! A system is backed up while people use it, lost as a whole, and restored: the scripts of `deploy/backup`, and what
//! `docs/OPERATIONS.md` says is lost and comes twice.

use std::path::Path;

use tidings_nats::NatsUser;
use tidings_protocol::{
    AttachmentId, ChatId, ChatUpdate, CreateAttachment, ErrorCode, MessageId, Operation, SendMessage,
    ServerFrame, UserId,
};
use tidings_stack::{
    Finder, NatsOptions, NatsPorts, NatsSecrets, NatsServer, Postgres, PostgresOptions, let_postgres_through,
};
use tidings_tests::{Device, Identity, Stored, System, SystemOptions, sha256};
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use uuid::Uuid;

use crate::shell::Shell;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/backup");

/// Who uses the system. Carol never connects before everything is lost.
struct People {
    alice: Identity,
    bob: Identity,
    carol: Identity,
    dave: Identity,
    frank: Identity,
}

/// What happened before everything was lost.
struct Before {
    chat: ChatId,
    /// A chat that was made after the inboxes were taken, and before the database was.
    other: ChatId,
    /// Uploaded before the backup, after the inboxes were taken, and after the database was.
    puppy: AttachmentId,
    kitten: AttachmentId,
    foal: AttachmentId,
    /// The highest version of the chat that a client has seen.
    newest: u64,
    /// The highest sequence.
    last: Option<u64>,
}

/// One of each.
fn small() -> SystemOptions {
    SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_the_backup_is_there_again() {
    tidings_service::start::install_crypto_provider();
    let system = System::start(&small()).await;
    let mut shell = Shell::of(&system).await;
    shell.log_in(&system, NatsUser::Admin);
    let postgres = Database::of(&system.up_file().postgres);
    postgres.tell(&mut shell);
    shell.set("BACKUP", "there".to_owned());
    let attachments = system.dir().join("attachments");
    shell.set(
        "TIDINGS_BLOB_FOLDER",
        attachments.to_str().expect("it is text").to_owned(),
    );
    shell.set("SCRIPTS", SCRIPTS.to_owned());
    let [alice, bob, carol, dave, frank] = ["alice", "bob", "carol", "dave", "frank"].map(Identity::fresh);
    let people = People {
        alice,
        bob,
        carol,
        dave,
        frank,
    };
    let before = back_up(&system, &shell, &people).await;

    // Everything is lost. What follows runs on empty servers, and no service runs.
    let system = system
        .start_again(&small(), |dir| {
            block_in_place(|| Handle::current().block_on(restore(dir, &mut shell, &postgres)));
        })
        .await;
    let at_bob = unconfirmed_entries_come(&system, &people, &before).await;
    everybody_goes_on(&system, &people, &before, at_bob).await;
    // A backup of the restored system is one as well, and so is one of a system that an older version has made.
    shell.set("NATS_URL", system.up_file().nats);
    shell.log_in(&system, NatsUser::Admin);
    shell.text("nats stream rm -f BODIES").await;
    let told = shell.text("\"$SCRIPTS/backup\" again").await;
    assert!(told.contains("there is no stream BODIES"), "{told}");
    assert!(told.contains("took 65 streams"), "{told}");
}

/// People talk, while the parts of a backup are taken.
async fn back_up(system: &System, shell: &Shell, people: &People) -> Before {
    let mut at_alice = Device::of(system, &people.alice).await;
    let mut at_bob = Device::of(system, &people.bob).await;
    let at_dave = Device::of(system, &people.dave).await;
    let mut at_frank = Device::of(system, &people.frank).await;
    let (bob, dave) = (&people.bob.user_id, &people.dave.user_id);

    // Before: bob has confirmed the first, and not the others.
    let chat = at_alice
        .create_group(&[bob.clone(), people.carol.user_id.clone()])
        .await;
    at_alice.say(chat, "confirmed").await;
    let confirmed = at_bob.message().await;
    at_bob.confirm_through(confirmed.delivery).await;
    Stored::of(system).await.until(bob, people.bob.client_id, 0).await;
    at_alice.say(chat, "confirmed after the backup").await;
    let late = at_bob.message().await;
    let puppy = upload(&mut at_alice, system, b"a puppy").await;
    say_with(&mut at_alice, chat, "see", puppy).await;
    at_alice.say(chat, "unconfirmed").await;
    shell.text("\"$SCRIPTS/backup\" \"$BACKUP\" nats").await;

    // After the inboxes were taken: dave comes in, a chat is made, a file is sent, bob confirms.
    let added = at_alice.modify(chat, dave, Operation::Add).await;
    added.expect("dave is in");
    let other = at_alice.create_group(&[bob.clone(), dave.clone()]).await;
    let kitten = upload(&mut at_alice, system, b"a kitten").await;
    say_with(&mut at_alice, chat, "lost, and its file is not", kitten).await;
    at_bob.confirm(late.delivery).await;
    let taken = shell.text("\"$SCRIPTS/backup\" \"$BACKUP\" postgres").await;
    assert_eq!(taken, "took the database\n");

    // After the database was taken: frank comes in and dave goes, and a file is sent that only the store will have.
    let added = at_alice.modify(chat, &people.frank.user_id, Operation::Add).await;
    added.expect("frank is in");
    let newest = at_frank.update().await.version;
    let removed = at_alice.modify(chat, dave, Operation::Remove).await;
    removed.expect("dave is out");
    let foal = upload(&mut at_alice, system, b"a foal").await;
    say_with(&mut at_alice, chat, "lost, and its file too", foal).await;
    shell.text("\"$SCRIPTS/backup\" \"$BACKUP\" blobs").await;

    // After the backup.
    let last = at_alice.say(chat, "lost").await.seq;
    assert_eq!(at_frank.message().await.message, "lost, and its file too");
    for device in [at_alice, at_bob, at_dave, at_frank] {
        device.close().await;
    }
    Before {
        chat,
        other,
        puppy,
        kitten,
        foal,
        newest: newest + 1,
        last,
    }
}

/// Bob gets what he had not confirmed when his inbox was taken, in order, and what he confirmed afterwards again.
async fn unconfirmed_entries_come(system: &System, people: &People, before: &Before) -> Device {
    let mut at_bob = Device::of(system, &people.bob).await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        let message = at_bob.message().await;
        let files = message.attachments.iter().map(|one| one.attachment_id);
        heard.push((message.message, files.collect::<Vec<_>>()));
    }
    assert_eq!(
        heard,
        [
            ("confirmed after the backup".to_owned(), vec![]),
            ("see".to_owned(), vec![before.puppy]),
            ("unconfirmed".to_owned(), vec![])
        ]
    );
    let got = async |attachment| download(system, &people.bob, attachment).await;
    assert_eq!(got(before.puppy).await, Ok(b"a puppy".to_vec()));
    // The database knows of this one, whose message is lost: it is bob's to read.
    assert_eq!(got(before.kitten).await, Ok(b"a kitten".to_vec()));
    assert_eq!(got(before.foal).await, Err(404));
    at_bob
}

/// Each chat is told anew, above what anybody has seen, as the database was; and then people talk.
async fn everybody_goes_on(system: &System, people: &People, before: &Before, mut at_bob: Device) {
    let (chat, other) = (before.chat, before.other);
    let mut at_alice = Device::of(system, &people.alice).await;
    let mut at_dave = Device::of(system, &people.dave).await;
    let expected = [&people.alice, &people.bob, &people.carol, &people.dave].map(|one| one.user_id.clone());
    for device in [&mut at_alice, &mut at_bob, &mut at_dave] {
        let update = newest_update(device, chat, before.newest).await;
        assert_eq!(users_of(&update), expected);
        assert!(update.added.is_empty() && update.removed.is_empty(), "{update:?}");
        assert!(Some(update.seq) > before.last, "{update:?}");
        newest_update(device, other, 1).await;
    }

    let after = at_alice.say(chat, "after").await;
    assert!(after.seq > before.last, "{after:?}");
    at_alice.say(other, "in the other").await;
    for device in [&mut at_bob, &mut at_dave] {
        // Across chats there is no order.
        let (one, two) = (device.message().await, device.message().await);
        let mut heard = [(one.chat_id, one.message), (two.chat_id, two.message)];
        heard.sort();
        let mut expected = [(chat, "after".to_owned()), (other, "in the other".to_owned())];
        expected.sort();
        assert_eq!(heard, expected);
        device.confirm_through(two.delivery).await;
    }
    let mut at_frank = Device::of(system, &people.frank).await;
    let refused = at_frank
        .say_as(chat, MessageId(Uuid::new_v4()), "still in?")
        .await;
    assert_eq!(
        refused.expect_err("frank never came in").code,
        ErrorCode::NotAParticipant
    );
    let added = at_alice.modify(chat, &people.frank.user_id, Operation::Add).await;
    added.expect("frank is in again");
    let update = at_frank.update().await;
    assert!(
        update.version > before.newest,
        "a client that knew the lost version takes it"
    );
    // Who had never connected finds it all, but for what was accepted after the inboxes were taken.
    let mut at_carol = Device::of(system, &people.carol).await;
    let mut texts = Vec::new();
    while texts.last().is_none_or(|last| last != "after") {
        texts.push(at_carol.message().await.message);
    }
    assert_eq!(
        texts,
        [
            "confirmed",
            "confirmed after the backup",
            "see",
            "unconfirmed",
            "after"
        ]
    );
    // What dave confirmed has left; frank's coming has not.
    let stored = Stored::of(system).await;
    stored.until(&people.dave.user_id, people.dave.client_id, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_older_than_the_inboxes_goes_on() {
    let system = System::start(&small()).await;
    let mut shell = Shell::of(&system).await;
    shell.log_in(&system, NatsUser::Admin);
    let postgres = Database::of(&system.up_file().postgres);
    postgres.tell(&mut shell);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Identity::fresh);
    let only_bob = std::slice::from_ref(&bob.user_id);
    let mut at_alice = Device::of(&system, &alice).await;
    let at_bob = Device::of(&system, &bob).await;
    let chat = at_alice.create_group(only_bob).await;
    shell.text("pg_dump --format=custom --no-owner --file=dump").await;
    // The database forgets what follows: carol, her registration, and a chat.
    let mut at_carol = Device::of(&system, &carol).await;
    let added = at_alice.modify(chat, &carol.user_id, Operation::Add).await;
    added.expect("carol is in");
    let newest = at_carol.update().await.version;
    let forgotten = at_carol.create_group(only_bob).await;
    at_carol.say(forgotten, "nobody remembers this chat").await;
    let last = at_alice.say(chat, "the inboxes have it").await.seq;
    Stored::of(&system)
        .await
        .until(&bob.user_id, bob.client_id, 5)
        .await;
    for device in [at_alice, at_bob, at_carol] {
        device.close().await;
    }

    let system = system
        .start_again(&small(), |dir| {
            block_in_place(|| Handle::current().block_on(restore_database(dir, &mut shell, &postgres)));
        })
        .await;
    let mut at_bob = Device::of(&system, &bob).await;
    let mut texts = [at_bob.message().await.message, at_bob.message().await.message];
    texts.sort();
    assert_eq!(texts, ["nobody remembers this chat", "the inboxes have it"]);
    let update = newest_update(&mut at_bob, chat, newest).await;
    assert!(Some(update.seq) > last, "{update:?}");
    assert_eq!(users_of(&update), [alice.user_id.clone(), bob.user_id.clone()]);

    let mut at_alice = Device::of(&system, &alice).await;
    let mut at_carol = Device::of(&system, &carol).await;
    let refused = at_carol
        .say_as(forgotten, MessageId(Uuid::new_v4()), "is anybody here?")
        .await;
    assert_eq!(refused.expect_err("the chat is gone").code, ErrorCode::NotFound);
    let added = at_alice.modify(chat, &carol.user_id, Operation::Add).await;
    added.expect("carol is in again");
    at_alice.say(chat, "after").await;
    assert_eq!(at_bob.message().await.message, "after");
    let texts = [at_carol.message().await.message, at_carol.message().await.message];
    assert_eq!(
        texts,
        ["the inboxes have it", "after"],
        "carol's client is who it was"
    );
}

/// Loses the database, keeps NATS, and restores an earlier dump.
async fn restore_database(dir: &Path, shell: &mut Shell, database: &Database) {
    std::fs::remove_dir_all(dir.join("postgres")).expect("it is there");
    let (mut nats, mut postgres) = servers(dir, database).await;
    shell.set("TIDINGS_NATS_URL", nats.url());
    shell.set("TIDINGS_POSTGRES_URL", postgres.url().to_owned());
    shell
        .text("pg_restore --no-owner --exit-on-error --dbname=\"$PGDATABASE\" dump")
        .await;
    let refused = shell
        .failure("env -u TIDINGS_DIR tidings setup --restored all")
        .await;
    assert!(refused.contains("the stream CHATS is there"), "{refused}");
    let changes = shell
        .text("env -u TIDINGS_DIR tidings setup --restored database")
        .await;
    // The server was started anew and has forgotten the consumers, which have their state in memory.
    let mut changes = changes.lines();
    assert_eq!(changes.next(), Some("1 chats: tell anew who is in them"));
    for change in changes {
        let made = change.starts_with("consumer CHATS/fanout-") && change.ends_with(": create");
        assert!(made, "{change}");
    }
    postgres.stop().await;
    nats.stop().await;
}

/// The newest of a chat's changes, which must be above a version.
async fn newest_update(device: &mut Device, chat: ChatId, above: u64) -> ChatUpdate {
    device
        .expect("the chat told anew", |heard| match heard {
            ServerFrame::ChatUpdate(update)
                if update.chat_id == chat && update.version > above.max(1_000_000) =>
            {
                Some(update.clone())
            }
            _ => None,
        })
        .await
}

/// Empties a system's folder of all data and restores the backup into servers of its own, which are stopped again.
async fn restore(dir: &Path, shell: &mut Shell, database: &Database) {
    for data in ["nats", "postgres", "attachments"] {
        std::fs::remove_dir_all(dir.join(data)).expect("it is there");
    }
    let (mut nats, mut postgres) = servers(dir, database).await;
    shell.set("NATS_URL", nats.url());
    shell.unset("NATS_NKEY");
    shell.set("TIDINGS_NATS_URL", nats.url());
    shell.set("TIDINGS_POSTGRES_URL", postgres.url().to_owned());
    shell.text("\"$SCRIPTS/restore\" \"$BACKUP\"").await;
    let changes = shell
        .text("env -u TIDINGS_DIR tidings setup --restored all")
        .await;
    assert!(changes.contains("2 chats: tell anew who is in them"), "{changes}");
    assert!(
        changes.contains("stream CHATS: create, above the lost one's sequence "),
        "{changes}"
    );
    assert!(!changes.contains("INBOX_"), "{changes}");
    // Neither twice nor into what is not empty.
    let refused = shell
        .failure("env -u TIDINGS_DIR tidings setup --restored all")
        .await;
    assert!(refused.contains("the stream CHATS is there"), "{refused}");
    let refused = shell.run("\"$SCRIPTS/restore\" \"$BACKUP\"").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("is not empty"),
        "{refused:?}"
    );
    postgres.stop().await;
    nats.stop().await;
}

/// The servers of a system's folder, and nothing else.
async fn servers(dir: &Path, database: &Database) -> (NatsServer, Postgres) {
    let finder = Finder::from_env(&|line| eprintln!("{line}")).expect("the environment is readable");
    let options = NatsOptions {
        dir: dir.join("nats"),
        logs: dir.join("logs"),
        ports: NatsPorts::free(1).expect("loopback has free ports"),
        secrets: NatsSecrets::random(),
        users: None,
    };
    let programs = finder.nats().expect("there is a nats-server");
    let mut nats = NatsServer::prepare(&programs, &options)
        .expect("it is prepared")
        .remove(0);
    nats.start().await.expect("it starts");
    let_postgres_through(dir).expect("it may pass");
    let options = PostgresOptions {
        data: dir.join("postgres"),
        log: dir.join("logs/postgres.log"),
        port: database.port,
        password: database.password.clone(),
        sync: false,
    };
    let programs = finder.postgres(None).expect("there is PostgreSQL");
    let mut postgres = Postgres::prepare(&programs, &options).expect("it is prepared");
    postgres.start().await.expect("it starts");
    (nats, postgres)
}

fn users_of(update: &ChatUpdate) -> Vec<UserId> {
    update
        .participants
        .iter()
        .map(|one| one.user_id.clone())
        .collect()
}

/// How the scripts reach the database.
struct Database {
    port: u16,
    password: String,
    variables: Vec<(&'static str, String)>,
    programs: String,
}

impl Database {
    fn of(url: &str) -> Self {
        let url = url::Url::parse(url).expect("up.json has good URLs");
        let port = url.port().expect("a port of its own");
        let password = url.password().expect("a password").to_owned();
        let variables = vec![
            ("PGHOST", url.host_str().expect("a host").to_owned()),
            ("PGPORT", port.to_string()),
            ("PGUSER", url.username().to_owned()),
            ("PGPASSWORD", password.clone()),
            ("PGDATABASE", url.path().trim_start_matches('/').to_owned()),
        ];
        let finder = Finder::from_env(&|line| eprintln!("{line}")).expect("the environment is readable");
        let programs = finder.postgres(None).expect("there is PostgreSQL").folder;
        Self {
            port,
            password,
            variables,
            programs: programs.to_str().expect("its folder is text").to_owned(),
        }
    }

    fn tell(&self, shell: &mut Shell) {
        for (name, value) in &self.variables {
            shell.set(name, value.clone());
        }
        shell.prepend_path(&self.programs);
    }
}

async fn upload(device: &mut Device, system: &System, bytes: &[u8]) -> AttachmentId {
    let id = device.id();
    let slot = device
        .request(CreateAttachment {
            id,
            hash: sha256(bytes).to_string(),
            size: bytes.len() as u64,
            content_type: "image/png".to_owned(),
            name: None,
        })
        .await
        .expect("a slot");
    let answer = reqwest::Client::new()
        .put(slot.upload_url.expect("media runs"))
        .bearer_auth(device.identity.token(&system.secret()))
        .body(bytes.to_vec())
        .send()
        .await
        .expect("media answers");
    assert!(answer.status().is_success(), "{answer:?}");
    slot.attachment_id.expect("its id")
}

async fn say_with(device: &mut Device, chat_id: ChatId, text: &str, attachment: AttachmentId) {
    let id = device.id();
    let message = SendMessage {
        id,
        chat_id,
        message_id: MessageId(Uuid::new_v4()),
        message: text.to_owned(),
        attachments: vec![attachment],
    };
    device.request(message).await.expect("it is accepted");
}

/// Its bytes, or the status of the refusal.
async fn download(system: &System, identity: &Identity, attachment: AttachmentId) -> Result<Vec<u8>, u16> {
    let media = system.up_file().media.expect("media runs");
    let answer = reqwest::Client::new()
        .get(format!("{media}/v1/attachments/{attachment}"))
        .bearer_auth(identity.token(&system.secret()))
        .send()
        .await
        .expect("media answers");
    match answer.status().as_u16() {
        200 => Ok(answer.bytes().await.expect("all of it").to_vec()),
        status => Err(status),
    }
}
