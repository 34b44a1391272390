//! A system is backed up while people use it, lost as a whole, and restored: the scripts of `deploy/backup`, and what
//! `docs/OPERATIONS.md` says is lost and comes twice.

use std::path::Path;

use tidings_protocol::{
    AttachmentId, ChatId, CreateAttachment, ErrorCode, MessageId, Operation, SendMessage, ServerFrame,
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_the_backup_is_there_again() {
    let options = SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    };
    tidings_service::start::install_crypto_provider();
    let system = System::start(&options).await;
    let mut shell = Shell::of(&system).await;
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
    let mut a = Device::of(&system, &alice).await;
    let mut b = Device::of(&system, &bob).await;
    let d = Device::of(&system, &dave).await;
    let mut f = Device::of(&system, &frank).await;

    // Before: bob has confirmed the first, and not the others; carol has never connected.
    let chat = a
        .create_group(&[bob.user_id.clone(), carol.user_id.clone()])
        .await;
    a.say(chat, "confirmed").await;
    let confirmed = b.message().await;
    b.confirm_through(confirmed.delivery).await;
    Stored::of(&system)
        .await
        .until(&bob.user_id, bob.client_id, 0)
        .await;
    a.say(chat, "confirmed after the backup").await;
    let late = b.message().await;
    let puppy = upload(&mut a, &system, b"a puppy").await;
    say_with(&mut a, chat, "see", puppy).await;
    a.say(chat, "unconfirmed").await;
    shell.text("\"$SCRIPTS/backup\" \"$BACKUP\" nats").await;

    // While it runs, after the inboxes were taken: dave comes in, a chat is made, a file is sent, bob confirms.
    a.modify(chat, &dave.user_id, Operation::Add)
        .await
        .expect("dave is in");
    let other = a.create_group(&[bob.user_id.clone(), dave.user_id.clone()]).await;
    let kitten = upload(&mut a, &system, b"a kitten").await;
    say_with(&mut a, chat, "lost, and its file is not", kitten).await;
    b.confirm(late.delivery).await;
    let parts = shell.text("\"$SCRIPTS/backup\" \"$BACKUP\" postgres").await;
    assert_eq!(parts, "took the database\n");

    // After the database was taken: frank comes in and dave goes, and a file is sent that only the store will have.
    a.modify(chat, &frank.user_id, Operation::Add)
        .await
        .expect("frank is in");
    a.modify(chat, &dave.user_id, Operation::Remove)
        .await
        .expect("dave is out");
    let newest = f.update().await.version;
    let foal = upload(&mut a, &system, b"a foal").await;
    say_with(&mut a, chat, "lost, and its file too", foal).await;
    shell.text("\"$SCRIPTS/backup\" \"$BACKUP\" blobs").await;

    // After the backup.
    let last = a.say(chat, "lost").await;
    assert_eq!(f.message().await.message, "lost, and its file too");
    for device in [a, b, d, f] {
        device.close().await;
    }

    // Everything is lost. What follows runs on empty servers, and no service runs.
    let system = system
        .start_again(&options, |dir| {
            block_in_place(|| Handle::current().block_on(restore(dir, &mut shell, &postgres)));
        })
        .await;

    // Bob gets what he had not confirmed when his inbox was taken, in order, and what he confirmed afterwards again.
    let mut b = Device::of(&system, &bob).await;
    let mut heard = Vec::new();
    for _ in 0..3 {
        let message = b.message().await;
        heard.push((
            message.message,
            message
                .attachments
                .into_iter()
                .map(|one| one.attachment_id)
                .collect::<Vec<_>>(),
        ));
    }
    assert_eq!(
        heard,
        [
            ("confirmed after the backup".to_owned(), vec![]),
            ("see".to_owned(), vec![puppy]),
            ("unconfirmed".to_owned(), vec![])
        ]
    );
    assert_eq!(download(&system, &bob, puppy).await, Ok(b"a puppy".to_vec()));
    // The database knows of this one, whose message is lost: it is bob's to read.
    assert_eq!(download(&system, &bob, kitten).await, Ok(b"a kitten".to_vec()));
    assert_eq!(download(&system, &bob, foal).await, Err(404));

    // Each chat is told anew, above what anybody has seen, as the database was.
    let mut a = Device::of(&system, &alice).await;
    let mut d = Device::of(&system, &dave).await;
    for device in [&mut a, &mut b, &mut d] {
        let update = newest_update(device, chat, newest).await;
        let users: Vec<_> = update
            .participants
            .iter()
            .map(|one| one.user_id.clone())
            .collect();
        assert_eq!(
            users,
            [&alice, &bob, &carol, &dave].map(|one| one.user_id.clone())
        );
        assert!(update.added.is_empty() && update.removed.is_empty(), "{update:?}");
        assert!(update.seq > last.seq.expect("it was accepted"), "{update:?}");
        newest_update(device, other, 1).await;
    }

    // Everybody goes on.
    let after = a.say(chat, "after").await;
    assert!(after.seq > last.seq, "{after:?}");
    a.say(other, "in the other").await;
    for device in [&mut b, &mut d] {
        // Across chats there is no order.
        let (one, two) = (device.message().await, device.message().await);
        let mut heard = [(one.chat_id, one.message), (two.chat_id, two.message)];
        heard.sort();
        let mut expected = [(chat, "after".to_owned()), (other, "in the other".to_owned())];
        expected.sort();
        assert_eq!(heard, expected);
        device.confirm_through(two.delivery).await;
    }
    let mut f = Device::of(&system, &frank).await;
    let refused = f.say_as(chat, MessageId(Uuid::new_v4()), "still in?").await;
    assert_eq!(
        refused.expect_err("frank never came in").code,
        ErrorCode::NotAParticipant
    );
    a.modify(chat, &frank.user_id, Operation::Add)
        .await
        .expect("frank is in again");
    assert!(
        f.update().await.version > newest,
        "a client that knew the lost version takes it"
    );
    // Who had never connected finds it all, and what was refused and confirmed is gone.
    let mut c = Device::of(&system, &carol).await;
    let mut texts = Vec::new();
    while texts.last().is_none_or(|last| last != "after") {
        texts.push(c.message().await.message);
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
    let stored = Stored::of(&system).await;
    stored.until(&dave.user_id, dave.client_id, 1).await;
    // A backup of the restored system is one as well.
    shell.set("NATS_URL", system.up_file().nats);
    shell.text("\"$SCRIPTS/backup\" again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_older_than_the_inboxes_goes_on() {
    let options = SystemOptions {
        gateways: 1,
        fanout_workers: 1,
        inbox_workers: 1,
        ..SystemOptions::default()
    };
    let system = System::start(&options).await;
    let mut shell = Shell::of(&system).await;
    let postgres = Database::of(&system.up_file().postgres);
    postgres.tell(&mut shell);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Identity::fresh);
    let mut a = Device::of(&system, &alice).await;
    let mut b = Device::of(&system, &bob).await;
    let chat = a.create_group(&[bob.user_id.clone()]).await;
    shell.text("pg_dump --format=custom --no-owner --file=dump").await;
    // The database forgets what follows: carol, her registration, and a chat.
    let mut c = Device::of(&system, &carol).await;
    a.modify(chat, &carol.user_id, Operation::Add)
        .await
        .expect("carol is in");
    let newest = c.update().await.version;
    let forgotten = c.create_group(&[bob.user_id.clone()]).await;
    c.say(forgotten, "nobody remembers this chat").await;
    let said = a.say(chat, "the inboxes have it").await;
    Stored::of(&system)
        .await
        .until(&bob.user_id, bob.client_id, 5)
        .await;
    for device in [a, b, c] {
        device.close().await;
    }

    let system = system
        .start_again(&options, |dir| {
            block_in_place(|| Handle::current().block_on(restore_database(dir, &mut shell, &postgres)));
        })
        .await;
    b = Device::of(&system, &bob).await;
    let mut texts = vec![b.message().await.message, b.message().await.message];
    texts.sort();
    assert_eq!(texts, ["nobody remembers this chat", "the inboxes have it"]);
    let update = newest_update(&mut b, chat, newest).await;
    assert!(update.seq > said.seq.expect("it was accepted"));
    let users: Vec<_> = update
        .participants
        .iter()
        .map(|one| one.user_id.clone())
        .collect();
    assert_eq!(users, [alice.user_id.clone(), bob.user_id.clone()]);

    a = Device::of(&system, &alice).await;
    c = Device::of(&system, &carol).await;
    let refused = c
        .say_as(forgotten, MessageId(Uuid::new_v4()), "is anybody here?")
        .await;
    assert_eq!(refused.expect_err("the chat is gone").code, ErrorCode::NotFound);
    a.modify(chat, &carol.user_id, Operation::Add)
        .await
        .expect("carol is in again");
    a.say(chat, "after").await;
    assert_eq!(b.message().await.message, "after");
    let mut texts = vec![c.message().await.message];
    while texts.last().is_none_or(|last| last != "after") {
        texts.push(c.message().await.message);
    }
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
    assert_eq!(changes, "1 chats: tell anew who is in them\n");
    postgres.stop().await;
    nats.stop().await;
}

/// The newest of a chat's changes, which must be above a version.
async fn newest_update(device: &mut Device, chat: ChatId, above: u64) -> tidings_protocol::ChatUpdate {
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
