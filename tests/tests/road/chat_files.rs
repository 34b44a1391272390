//! Files in `tidings chat`: sent over a connection that breaks and by a process that is killed, fetched by every device
//! of the other side, and by nobody else.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use tidings_client::attachments::DownloadError;
use tidings_client::{Client, Options, Tokens};
use tidings_protocol::{Attachment, ServerFrame};
use tidings_tests::proxy::{Mode, Proxy};
use tidings_tests::{Device, Identity, System, SystemOptions};

use crate::terminal::Terminal;

const BYTES: usize = 50_000_000;

/// A file that compresses to nothing like itself, and whose parts cannot be taken for each other.
fn write_file(path: &Path, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(BYTES + 8);
    while bytes.len() < BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(BYTES);
    std::fs::write(path, &bytes).expect("the folder is writable");
    digest(&SHA256, &bytes).as_ref().to_vec()
}

fn hash_of(path: &Path) -> Vec<u8> {
    digest(&SHA256, &std::fs::read(path).expect("it is there"))
        .as_ref()
        .to_vec()
}

/// The bytes of uploads that the media process has taken.
async fn uploaded(system: &System) -> u64 {
    let admin = system.process("media-1").admin.expect("a service has one");
    let url = format!("{admin}/metrics");
    let text = reqwest::get(url)
        .await
        .expect("it answers")
        .text()
        .await
        .expect("text");
    // Absent before the first upload; with or without labels.
    let line = text
        .lines()
        .find(|line| line.starts_with("tidings_media_upload_bytes_total"));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number.map_or(0, |number| number.parse::<f64>().expect("a number") as u64)
}

/// The path of a file that a chat says it saved.
fn saved(folder: &Path, line: &str) -> PathBuf {
    let name = line
        .split("saved as ")
        .nth(1)
        .and_then(|rest| rest.strip_suffix(" ✓"));
    folder.join(name.unwrap_or_else(|| panic!("no name in {line:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_arrives_whatever_happens_on_its_way_and_no_stranger_gets_it() {
    // Of its own: what media has taken is counted, and others upload as well.
    let system = &System::start(&SystemOptions::default()).await;
    let media = system.up_file().media.expect("media runs");
    let media = media
        .strip_prefix("http://")
        .expect("plain HTTP")
        .parse()
        .expect("an address");
    let proxy = Proxy::start(media).await.expect("a free port");
    let behind = format!("http://{}", proxy.address());
    let gateway = system.extra_gateway(&[("TIDINGS_MEDIA_URL", &behind)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let [alice, bob] = ["alice", "bob"].map(|name| Identity::fresh(name).user_id);
    let file = folder.path().join("film.bin");
    let hash = write_file(&file, 7);
    let before = uploaded(system).await;

    let arguments = ["--with", bob.as_str(), "--url", &gateway.ws];
    let mut hers = Terminal::open(system, &alice, &arguments);
    hers.sees("has not connected yet").await;
    let send = format!("/send \"{}\" a film", file.display());
    // The connection breaks when something is through, and it goes on by itself.
    proxy.set(Mode::Slow(std::time::Duration::from_millis(1)));
    hers.write(&send).await;
    hers.sees_percent(25).await;
    proxy.cut();
    hers.sees_percent(50).await;
    // Killed, and started again, it goes on where the server stands.
    hers.kill().await;
    let mut hers = Terminal::open(system, &alice, &arguments);
    hers.sees("this is the chat with").await;
    hers.write(&send).await;
    proxy.set(Mode::Pass);
    let line = hers.sees("✓").await;
    assert!(
        line.contains("you: a film [film.bin, 50.00 MB: /save 1] ✓"),
        "{line}"
    );
    let sent = uploaded(system).await - before;
    assert!(
        (BYTES as u64..BYTES as u64 * 3 / 2).contains(&sent),
        "{sent} bytes were sent"
    );

    // Every device of the other side gets it, one of them over a connection that breaks.
    for device in ["phone", "tablet", "laptop"] {
        let place = folder.path().join(device);
        std::fs::create_dir(&place).expect("the folder is writable");
        let arguments = ["--with", alice.as_str(), "--device", device, "--url", &gateway.ws];
        let mut his = Terminal::open_in(&place, system, &bob, &arguments);
        if device == "phone" {
            his.sees("a film [film.bin, 50.00 MB: /save 1]").await;
            proxy.set(Mode::Slow(std::time::Duration::from_millis(1)));
        } else {
            // A new device hears what is sent from now on.
            his.sees("this is the chat with").await;
            hers.write(&send).await;
            his.sees("a film [film.bin, 50.00 MB: /save 1]").await;
        }
        his.write("/save 1").await;
        if device == "phone" {
            his.sees_percent(25).await;
            proxy.cut();
            his.sees_percent(50).await;
            proxy.set(Mode::Pass);
        }
        let line = his.sees("saved as ").await;
        let path = saved(&place, &line);
        assert_eq!(path, place.join("film.bin"));
        assert_eq!(hash_of(&path), hash);
        // Once more is another file, and nothing but whole files is left.
        his.write("/save 1").await;
        his.sees("saved as film-2.bin ✓").await;
        his.write("/save 1 film.bin").await;
        his.sees("film.bin is there already").await;
        let names = std::fs::read_dir(&place).expect("a folder").count();
        assert_eq!(names, 2);
        his.end().await;
    }
    hers.end().await;
    let again = uploaded(system).await - before;
    assert_eq!(again, sent, "the same file is not sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_strangers_know_of_a_file_is_no_use_to_them() {
    let system = System::shared().await;
    let [alice, eve] = ["alice", "eve"].map(Identity::fresh);
    let mut bob = Device::fresh(system, "bob").await;
    let connect = |identity: &Identity| {
        let mut options = Options::new(String::new(), Tokens::fixed(identity.token(&system.secret())));
        options.urls = system.up_file().ws;
        Client::connect(options).expect("a client")
    };
    let (hers, _events) = connect(&alice);
    let source = std::io::Cursor::new(b"for bob");
    let uploaded = hers
        .upload(source, "text/plain", Some("../../note.txt"), |_| {})
        .await;
    let uploaded = uploaded.expect("uploaded");
    let chat_id = hers.direct_chat(bob.user_id()).await.expect("a chat").chat_id;
    let sending = hers.send_with(chat_id, "", vec![uploaded.attachment_id]).await;
    sending.expect("queued").accepted().await.expect("accepted");
    let told: Vec<Attachment> = bob
        .expect("the file", |heard| match heard {
            ServerFrame::NewMessage(message) => Some(message.attachments.clone()),
            _ => None,
        })
        .await;
    assert_eq!(told, std::slice::from_ref(&uploaded));

    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("note.txt");
    let (strange, _events) = connect(&eve);
    let failed = strange
        .download(&uploaded, &target, |_| {})
        .await
        .expect_err("hers alone");
    assert!(matches!(failed, DownloadError::NotFound), "{failed:?}");
    let (his, _events) = connect(&Identity::new(&bob.user_id()));
    his.download(&uploaded, &target, |_| {}).await.expect("his too");
    assert_eq!(std::fs::read(&target).expect("it is there"), b"for bob");
}
