//! Uploads and downloads against a scripted peer: what goes over the wire, and what follows each answer. What needs a
//! server that keeps bytes is tested with the real one.

use std::collections::VecDeque;
use std::io::Cursor;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{State, WebSocketUpgrade};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tidings_client::attachments::{DownloadError, Progress, Stage, UploadError};
use tidings_client::protocol::{
    Attachment, AttachmentId, ClientFrame, ClientId, Codec, EncodedFrame, Limits, Registration, Reply,
    ServerFrame, Timestamp, UserId, Welcome,
};
use tidings_client::{Client, Events, Options, TokenReason, Tokens};
use uuid::Uuid;

const SLOT: AttachmentId = AttachmentId(Uuid::from_u128(7));
/// SHA-256 of `hello world`.
const HASH: &str = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
const TEXT: &[u8] = b"hello world";

/// An answer of the HTTP service: status, headers, body.
type Said = (u16, Vec<(&'static str, String)>, Vec<u8>);

struct Script {
    url: String,
    answers: VecDeque<Said>,
    /// Whether the slot says that its bytes are there, one a `createAttachment`; then no.
    uploaded: VecDeque<bool>,
    /// What was asked, in a line each.
    asked: Vec<String>,
}

type Shared = Arc<Mutex<Script>>;

/// A gateway and the service for attachments in one.
struct Peer {
    script: Shared,
    client: Client,
    #[expect(dead_code, reason = "a client whose events are dropped is closed")]
    events: Events,
}

impl Peer {
    async fn start(answers: Vec<Said>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("bound");
        let script = Arc::new(Mutex::new(Script {
            url: format!("http://{address}"),
            answers: answers.into(),
            uploaded: VecDeque::new(),
            asked: Vec::new(),
        }));
        let app = Router::new()
            .route("/v1/ws", get(upgrade))
            .fallback(answer)
            .with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let tokens = Tokens::new(|reason| {
            std::future::ready(Ok(match reason {
                TokenReason::First | TokenReason::Expiring => "first".to_owned(),
                TokenReason::Refused => "second".to_owned(),
            }))
        });
        let mut options = Options::new(format!("ws://{address}"), tokens);
        options.codec = Codec::Json;
        let (client, events) = Client::connect(options).expect("a client");
        Self {
            script,
            client,
            events,
        }
    }

    fn asked(&self) -> Vec<String> {
        self.script.lock().expect("no panic").asked.clone()
    }

    async fn upload(&self) -> Result<Attachment, UploadError> {
        self.client
            .upload(Cursor::new(TEXT), "text/plain", Some("hi.txt"), |_| {})
            .await
    }

    async fn download(&self, target: &std::path::Path) -> Result<(), DownloadError> {
        self.client.download(&attachment(), target, |_| {}).await
    }
}

fn attachment() -> Attachment {
    Attachment {
        attachment_id: SLOT,
        size: TEXT.len() as u64,
        content_type: "text/plain".to_owned(),
        hash: HASH.to_owned(),
        name: Some("hi.txt".to_owned()),
    }
}

async fn upgrade(State(script): State<Shared>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols(["tidings.v1.json"])
        .on_upgrade(|socket| talk(socket, script))
}

async fn talk(mut socket: WebSocket, script: Shared) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        let frame = Codec::Json.decode_client(text.as_bytes()).expect("a frame");
        let reply: ServerFrame = match frame {
            ClientFrame::Hello(hello) => Welcome {
                id: hello.id,
                user_id: UserId::new("alice").expect("printable"),
                client_id: ClientId(Uuid::from_u128(1)),
                registration: Registration::Known,
                server_time: Timestamp(0),
                token_expires_at: Timestamp(3_600_000),
                media_url: Some(script.lock().expect("no panic").url.clone()),
                backlog: 0,
                limits: Limits::default(),
            }
            .into(),
            ClientFrame::CreateAttachment(frame) => {
                let mut script = script.lock().expect("no panic");
                script
                    .asked
                    .push(format!("slot {} {}", &frame.hash[..4], frame.size));
                let mut reply = Reply::success(frame.id);
                reply.attachment_id = Some(SLOT);
                reply.uploaded = Some(script.uploaded.pop_front().unwrap_or(false));
                reply.into()
            }
            other => panic!("{other:?}"),
        };
        let EncodedFrame::Text(text) = Codec::Json.encode_server(&reply) else {
            panic!("JSON is text");
        };
        socket.send(Message::Text(text.into())).await.ok();
    }
}

async fn answer(State(script): State<Shared>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let header = |headers: &HeaderMap, name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
    let mut line = head.method.to_string();
    for name in ["upload-offset", "content-length", "range", "if-range"] {
        if let Some(value) = header(&head.headers, name) {
            line = format!("{line} {name}={value}");
        }
    }
    if let Some(token) = header(&head.headers, "authorization")
        && token != "Bearer first"
    {
        line = format!("{line} {token}");
    }
    if head.method == Method::PATCH {
        assert_eq!(header(&head.headers, "tus-resumable").as_deref(), Some("1.0.0"));
        assert_eq!(
            header(&head.headers, "content-type").as_deref(),
            Some("application/offset+octet-stream")
        );
        line = format!("{line} {:?}", String::from_utf8_lossy(&body));
    }
    let mut script = script.lock().expect("no panic");
    script.asked.push(line);
    let (status, headers, body) = script.answers.pop_front().expect("nothing more was expected");
    let mut response = (StatusCode::from_u16(status).expect("a status"), Bytes::from(body)).into_response();
    for (name, value) in headers {
        let value = value.replace("SELF", &script.url);
        response
            .headers_mut()
            .insert(name, value.parse().expect("a header"));
    }
    response
}

fn at(status: u16, offset: u64) -> Said {
    (status, vec![("upload-offset", offset.to_string())], Vec::new())
}

fn status(status: u16) -> Said {
    (status, Vec::new(), Vec::new())
}

fn error(status: u16, code: &str) -> Said {
    let body = format!(r#"{{"error":{{"code":"{code}","message":"no","retryable":false}}}}"#);
    (status, Vec::new(), body.into_bytes())
}

#[tokio::test]
async fn an_upload_goes_on_where_the_server_stands_whatever_comes_between() {
    let later = (503, vec![("retry-after", "0".to_owned())], Vec::new());
    let answers = vec![
        at(200, 0),
        later,
        status(423),
        at(200, 6),
        status(409),
        at(200, 6),
        at(204, 11),
    ];
    let peer = Peer::start(answers).await;
    let uploaded = peer.upload().await.expect("uploaded");
    assert_eq!(uploaded, attachment());
    assert_eq!(
        peer.asked(),
        [
            "slot b94d 11",
            "HEAD",
            "PATCH upload-offset=0 content-length=11 \"hello world\"",
            "HEAD",
            "HEAD",
            "PATCH upload-offset=6 content-length=5 \"world\"",
            "HEAD",
            "PATCH upload-offset=6 content-length=5 \"world\"",
        ]
    );
}

#[tokio::test]
async fn what_the_server_has_is_not_sent() {
    let peer = Peer::start(Vec::new()).await;
    peer.script.lock().expect("no panic").uploaded = [true].into();
    peer.upload().await.expect("uploaded");
    assert_eq!(peer.asked(), ["slot b94d 11"]);
}

#[tokio::test]
async fn an_end_that_was_not_heard_of_is_found_in_the_slot() {
    let peer = Peer::start(vec![at(200, 11), status(409)]).await;
    peer.script.lock().expect("no panic").uploaded = [false, true].into();
    peer.upload().await.expect("uploaded");
    assert_eq!(peer.asked().last().map(String::as_str), Some("slot b94d 11"));
}

#[tokio::test]
async fn a_refused_token_is_replaced() {
    let peer = Peer::start(vec![status(401), at(200, 0), at(204, 11)]).await;
    peer.upload().await.expect("uploaded");
    let asked = peer.asked();
    assert_eq!(asked[1..3], ["HEAD", "HEAD Bearer second"]);
    // And if that is no good either, that is said.
    let peer = Peer::start(vec![status(401), status(401)]).await;
    let failed = peer.upload().await.expect_err("refused");
    assert!(matches!(failed, UploadError::Unauthorized), "{failed:?}");
}

#[tokio::test]
async fn a_mismatch_starts_anew_once() {
    let mismatch = || error(422, "hash_mismatch");
    let peer = Peer::start(vec![at(200, 0), mismatch(), at(200, 0), at(204, 11)]).await;
    peer.upload().await.expect("uploaded");
    let peer = Peer::start(vec![at(200, 0), mismatch(), at(200, 0), mismatch()]).await;
    let failed = peer.upload().await.expect_err("never the same");
    assert!(matches!(failed, UploadError::Changed), "{failed:?}");
}

#[tokio::test]
async fn a_lost_slot_is_asked_for_again_and_a_refusal_is_told() {
    let peer = Peer::start(vec![status(404), at(200, 0), at(204, 11)]).await;
    peer.upload().await.expect("uploaded");
    let peer = Peer::start(vec![error(413, "message_too_large")]).await;
    let failed = peer.upload().await.expect_err("refused");
    assert!(
        matches!(failed, UploadError::Refused { status: 413, .. }),
        "{failed:?}"
    );
}

#[tokio::test]
async fn progress_tells_of_each_stage() {
    let peer = Peer::start(vec![at(200, 0), at(204, 11)]).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let note = move |progress: Progress| seen.lock().expect("no panic").push(progress);
    let source = Cursor::new(TEXT);
    peer.client
        .upload(source, "text/plain", None, note)
        .await
        .expect("uploaded");
    let told = told.lock().expect("no panic").clone();
    let mut stages: Vec<Stage> = told.iter().map(|progress| progress.stage).collect();
    stages.dedup();
    assert_eq!(stages, [Stage::Hashing, Stage::Waiting, Stage::Sending]);
    assert!(
        told.iter()
            .all(|progress| progress.total == 11 && progress.done <= 11)
    );
    assert_eq!(told.last().map(|progress| progress.done), Some(11));
}

fn whole() -> Said {
    (200, Vec::new(), TEXT.to_vec())
}

fn rest(from: usize) -> Said {
    let range = format!("bytes {from}-10/11");
    (206, vec![("content-range", range)], TEXT[from..].to_vec())
}

#[tokio::test]
async fn a_download_is_verified_and_takes_its_name_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("hi.txt");
    let peer = Peer::start(vec![status(503), whole()]).await;
    peer.download(&target).await.expect("downloaded");
    assert_eq!(std::fs::read(&target).expect("it is there"), TEXT);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    // Nothing is written over.
    let again = peer.download(&target).await.expect_err("it is there");
    assert!(
        matches!(&again, DownloadError::Exists(path) if *path == target),
        "{again:?}"
    );
    let tag = format!("GET if-range=\"{HASH}\"");
    assert_eq!(peer.asked(), [tag.clone(), tag]);
}

#[tokio::test]
async fn a_download_goes_on_with_what_another_run_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("hi.txt");
    let part = folder.path().join(format!(".{SLOT}.part"));
    std::fs::write(&part, b"hello").expect("written");
    let peer = Peer::start(vec![rest(5)]).await;
    peer.download(&target).await.expect("downloaded");
    assert_eq!(std::fs::read(&target).expect("it is there"), TEXT);
    assert_eq!(peer.asked(), [format!("GET range=bytes=5- if-range=\"{HASH}\"")]);
    // A server that sends everything anyway, and a part that is none of this file.
    for (left, answers) in [
        (&b"hello"[..], vec![whole()]),
        (b"jello", vec![rest(5), whole()]),
        (b"far more than there ever was", vec![whole()]),
        (b"hello", vec![status(416), whole()]),
        (b"hello world", vec![]),
    ] {
        std::fs::remove_file(&target).expect("it is there");
        std::fs::write(&part, left).expect("written");
        let peer = Peer::start(answers).await;
        peer.download(&target).await.expect("downloaded");
        assert_eq!(std::fs::read(&target).expect("it is there"), TEXT);
    }
}

#[tokio::test]
async fn a_store_behind_the_service_gets_no_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("hi.txt");
    std::fs::write(folder.path().join(format!(".{SLOT}.part")), b"hello").expect("written");
    let elsewhere = (
        307,
        vec![("location", "SELF/store/x?signature=y".to_owned())],
        Vec::new(),
    );
    let peer = Peer::start(vec![elsewhere, rest(5)]).await;
    peer.download(&target).await.expect("downloaded");
    assert_eq!(std::fs::read(&target).expect("it is there"), TEXT);
    assert_eq!(peer.asked()[1], "GET range=bytes=5-");
}

#[tokio::test]
async fn a_download_that_cannot_be_is_told_and_leaves_nothing_that_looks_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("hi.txt");
    let wrong = || (200, Vec::new(), b"jello world".to_vec());
    for (answers, expected) in [
        (vec![error(404, "not_found")], "no such attachment"),
        (vec![error(410, "attachment_gone")], "expired"),
        (vec![error(403, "suspended")], "refused"),
        (vec![status(401), status(401)], "token"),
        (vec![wrong(), wrong()], "not what the message tells"),
    ] {
        let peer = Peer::start(answers).await;
        let failed = peer.download(&target).await.expect_err(expected);
        assert!(failed.to_string().contains(expected), "{failed}");
        assert!(!target.exists());
    }
    let peer = Peer::start(vec![wrong(), whole()]).await;
    peer.download(&target)
        .await
        .expect("the second time it was right");
}
