//! A system of real servers with a media service in it.

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use futures::TryStreamExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidings_blobs::{BlobStore, BlobStoreConfig, StoredBlob};
use tidings_media::MediaConfig;
use tidings_metadata::Metadata;
use tidings_protocol::{ContentHash, UserId};
use tidings_service::BaseContext;
use tidings_stack::Postgres;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";
/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// The servers of one test.
pub(crate) struct System {
    postgres: Postgres,
    dir: TempDir,
    pub(crate) metadata: Metadata,
}

/// A service that runs until it is stopped.
pub(crate) struct Media {
    pub(crate) url: String,
    pub(crate) context: BaseContext,
    task: JoinHandle<anyhow::Result<()>>,
}

/// Somebody with a token.
pub(crate) struct Person {
    pub(crate) user: UserId,
    pub(crate) token: String,
    pub(crate) client: Client,
    pub(crate) url: String,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    config: MediaConfig,
}

impl System {
    pub(crate) async fn start() -> Self {
        tidings_service::start::install_crypto_provider();
        let postgres = Postgres::start_temp().await.expect("Postgres starts");
        let metadata = Metadata::connect(postgres.url(), 4).expect("the URL is valid");
        metadata.migrate().await.expect("tables are made");
        Self {
            postgres,
            dir: TempDir::new().expect("a folder for the bytes"),
            metadata,
        }
    }

    pub(crate) async fn media(&self, settings: &[&str]) -> Media {
        let media = self.media_on(self.dir.path(), settings).await;
        until("the store is the database's", async || {
            let state = media.context.conditions.states().remove("blob-store")?;
            state.ok.then_some(())
        })
        .await;
        media
    }

    /// With the bytes in another folder than the others'; not awaited.
    pub(crate) async fn media_on(&self, folder: &Path, settings: &[&str]) -> Media {
        let context = BaseContext::attach("media", self.postgres.url()).await;
        let context = context.expect("the system is set up");
        let port = tidings_stack::free_ports(1).expect("a port is free")[0];
        let address = format!("127.0.0.1:{port}");
        let store = format!("--blob-store=file://{}", folder.display());
        let own = ["media", "--jwt-secret", SECRET, "--listen", &address, &store];
        let config = Command::parse_from([&own[..], settings].concat()).config;
        let task = tokio::spawn(tidings_media::run(config, context.clone()));
        until("the port listens", async || {
            tokio::net::TcpStream::connect(&address).await.ok().map(drop)
        })
        .await;
        Media {
            url: format!("http://{address}"),
            context,
            task,
        }
    }

    /// What lies in the store.
    pub(crate) async fn stored(&self) -> Vec<StoredBlob> {
        let config = BlobStoreConfig::folder(self.dir.path()).expect("an absolute path");
        let store = BlobStore::open(&config).expect("a folder");
        store.list().try_collect().await.expect("the folder is there")
    }

    /// Waits until there is nothing anywhere of any upload.
    pub(crate) async fn nothing_is_left(&self) {
        until("nothing is left", async || {
            let counts = self.metadata.count_attachments().await.expect("Postgres answers");
            let rows = counts.stored + counts.uploading + counts.doomed;
            (rows == 0 && self.stored().await.is_empty()).then_some(())
        })
        .await;
    }
}

impl Media {
    pub(crate) fn person(&self, name: &str) -> Person {
        let user = UserId::new(name).expect("a user id");
        let client = Uuid::new_v4();
        Person {
            token: token(&json!({ "sub": name, "client": client, "exp": 4_102_444_800_u64 })),
            user,
            client: Client::new(),
            url: self.url.clone(),
        }
    }

    pub(crate) async fn stop(self) {
        self.context.stopping.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended
            .expect("it ends in time")
            .expect("it does not panic")
            .expect("it ends well");
    }
}

pub(crate) fn token(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("HS256 signs every JSON")
}

impl Person {
    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().await.expect("an answer")
    }

    /// Uploads, and says the id.
    pub(crate) async fn upload(&self, content_type: &str, name: &str, bytes: &[u8]) -> Uuid {
        let path = format!("/v1/attachments?hash={}&name={name}", hash(bytes));
        let request = self.ask(Method::POST, &path).header("content-type", content_type);
        let answer = request.body(bytes.to_vec()).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        id(&json_of(answer).await)
    }

    pub(crate) fn tus(&self, method: Method, path: &str) -> RequestBuilder {
        self.ask(method, path).header("tus-resumable", "1.0.0")
    }

    /// A slot, as the gateway makes it.
    pub(crate) async fn slot(&self, metadata: &Metadata, bytes: &[u8]) -> Uuid {
        let new = tidings_metadata::NewAttachment {
            owner: self.user.clone(),
            hash: hash(bytes),
            size: bytes.len() as u64,
            content_type: "text/plain".to_owned(),
            name: None,
        };
        let created = metadata.create_attachment(&new, None).await;
        created.expect("there is room").attachment_id.0
    }
}

pub(crate) fn hash(bytes: &[u8]) -> ContentHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    ContentHash(digest.as_ref().try_into().expect("32 bytes"))
}

/// So many bytes that are not all the same.
pub(crate) fn some_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let word = move || -> [u8; 8] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()
    };
    std::iter::repeat_with(word).flatten().take(length).collect()
}

pub(crate) async fn json_of(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

pub(crate) fn id(answer: &Value) -> Uuid {
    answer["attachmentId"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("a UUID")
}

pub(crate) fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().expect("ASCII"))
}

/// The code of a refusal.
pub(crate) async fn code(answer: Response) -> String {
    json_of(answer).await["error"]["code"]
        .as_str()
        .expect("a code")
        .to_owned()
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}
