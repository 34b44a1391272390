//! Files that people send each other: uploaded in several ways, over connections that break, fetched by everybody who was
//! told of them, and asked for by somebody who was not.

mod fetch;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tidings_client::Backoff;
use tidings_protocol::{Attachment, AttachmentId, ChatId, CreateAttachment, UserId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use fetch::fetch;
pub(super) use upload::Upload;

use crate::sha256::sha256;

/// Requests at once. As many people ask at a time; the rest of the machine is for the servers.
const AT_ONCE: usize = 16;
/// For connecting, and for each answer to begin. Frozen servers are a part of the weather.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For a request as a whole, from which it is tried again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Files that a user remembers, to send them to somebody else.
const REMEMBERED_MAX: usize = 16;
/// Between attempts.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(200),
    max: Duration::from_secs(3),
};

/// A file that somebody has: its bytes come from its seed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    seed: u64,
    size: usize,
}

impl File {
    /// Most are small, as pictures on a telephone are; a few take a while.
    pub(super) fn choose(rng: &mut StdRng) -> Self {
        let size = match rng.random_range(0..20) {
            0 => rng.random_range(1_000_000..4_000_000),
            1..6 => rng.random_range(20_000..300_000),
            _ => rng.random_range(1..20_000),
        };
        Self {
            seed: rng.random(),
            size,
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        StdRng::seed_from_u64(self.seed).fill_bytes(&mut bytes);
        bytes
    }

    /// The request that announces it.
    pub(super) fn announced(self, id: u64) -> CreateAttachment {
        CreateAttachment {
            id,
            hash: sha256(&self.bytes()).to_string(),
            size: self.size as u64,
            content_type: "application/octet-stream".to_owned(),
            name: None,
        }
    }
}

/// What all transfers share.
pub(super) struct Files {
    http: reqwest::Client,
    at_once: Arc<Semaphore>,
    /// Who has asked for what: once for each client, however often it is delivered.
    asked: Mutex<HashSet<(tidings_protocol::ClientId, AttachmentId)>>,
    remembered: Mutex<HashMap<UserId, Vec<AttachmentId>>>,
    uploads: TaskTracker,
    no_more_uploads: CancellationToken,
    fetches: TaskTracker,
    give_up: CancellationToken,
}

impl Files {
    pub(super) fn new() -> Self {
        tidings_service::start::install_crypto_provider();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .expect("nothing of it can fail");
        Self {
            http,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            asked: Mutex::default(),
            remembered: Mutex::default(),
            uploads: TaskTracker::new(),
            no_more_uploads: CancellationToken::new(),
            fetches: TaskTracker::new(),
            give_up: CancellationToken::new(),
        }
    }

    /// Something that a user was told of.
    pub(super) fn remembered(&self, user_id: &UserId, rng: &mut StdRng) -> Option<AttachmentId> {
        let remembered = self.remembered.lock();
        let files = remembered.get(user_id)?;
        Some(files[rng.random_range(0..files.len())])
    }

    fn remember(&self, user_id: &UserId, attachment: &Attachment) {
        let mut remembered = self.remembered.lock();
        let files = remembered.entry(user_id.clone()).or_default();
        files.push(attachment.attachment_id);
        if files.len() > REMEMBERED_MAX {
            files.remove(0);
        }
    }

    /// Ends the uploads: nobody sends anything of them from here on.
    pub(super) async fn stop_uploads(&self) {
        self.no_more_uploads.cancel();
        self.uploads.close();
        self.uploads.wait().await;
    }

    /// Waits until everybody has what they asked for, or until it is too late.
    pub(super) async fn come_to_rest(&self, at_most: Duration) {
        self.fetches.close();
        if tokio::time::timeout(at_most, self.fetches.wait()).await.is_err() {
            self.give_up.cancel();
            self.fetches.wait().await;
        }
    }
}

/// Where a file goes once it is uploaded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Errand {
    pub(super) file: File,
    pub(super) chat_id: ChatId,
}
