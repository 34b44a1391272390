//! What the requests of one process share.

use std::path::PathBuf;
use std::sync::Arc;

use tidings_blobs::BlobStore;
use tidings_metadata::{AttachmentLimits, CreateAttachmentError, CreatedAttachment, Metadata, NewAttachment};
use tidings_protocol::check_name;
use tidings_service::{BaseContext, Switch, TokenVerifier};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::binding::Binding;
use crate::config::MediaConfig;
use crate::places::Places;
use crate::refusal::Refusal;
use crate::turns::Turns;
use crate::weather::in_time;

/// As handlers have it.
pub(crate) type SharedMedia = Arc<Media>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Media {
    pub(crate) context: BaseContext,
    pub(crate) metadata: Metadata,
    pub(crate) tokens: TokenVerifier,
    pub(crate) store: BlobStore,
    pub(crate) places: Arc<Places>,
    pub(crate) turns: Arc<Turns>,
    /// Bytes of one attachment.
    pub(crate) bytes_max: u64,
    /// Whether downloads are sent to the store.
    pub(crate) redirect: bool,
    /// Under which URL clients reach this.
    pub(crate) public_url: Option<Url>,
    /// Where bodies with a checksum lie until it is known.
    pub(crate) spool_dir: PathBuf,
    /// Cancelled in the middle of a drain: what cannot be resumed is given up then.
    pub(crate) giving_up: CancellationToken,
    limits: Option<AttachmentLimits>,
    binding: Binding,
}

impl Media {
    /// Starts everything that runs beside the requests.
    pub(crate) async fn start(config: &MediaConfig, context: &BaseContext) -> anyhow::Result<SharedMedia> {
        let store = BlobStore::open(&config.store)?;
        let on = config.rate_limits == Switch::On;
        Ok(Arc::new(Self {
            context: context.clone(),
            metadata: context.metadata.clone(),
            tokens: TokenVerifier::start(&config.tokens, context).await?,
            binding: Binding::start(context, store.clone()),
            store,
            places: Arc::new(Places::new(
                config.uploads_max,
                on.then_some(config.user_uploads_max),
            )),
            turns: Arc::default(),
            bytes_max: config.attachments.attachment_bytes_max,
            redirect: config.redirect_downloads == Switch::On,
            public_url: config.media_url.clone(),
            spool_dir: config.store.blob_spool_dir.clone(),
            giving_up: CancellationToken::new(),
            limits: on.then_some(AttachmentLimits {
                per_hour: config.attachments.attachments_per_hour,
                bytes_per_user: config.attachments.attachment_budget,
            }),
        }))
    }

    /// Nothing is read or written before it is known that this store is the one that the database speaks of.
    pub(crate) fn check_ready(&self) -> Result<(), Refusal> {
        if self.binding.is_held() {
            Ok(())
        } else {
            Err(Refusal::unavailable("the store of attachments is not available"))
        }
    }

    /// Refuses what is too large before anything is read.
    pub(crate) fn check_size(&self, field: &str, size: u64) -> Result<(), Refusal> {
        if size <= self.bytes_max {
            return Ok(());
        }
        let message = format!(
            "an attachment has at most {} bytes, this one {size}",
            self.bytes_max
        );
        Err(Refusal::bad_request(field, message).status(axum::http::StatusCode::PAYLOAD_TOO_LARGE))
    }

    /// A slot for what is going to be uploaded. The same announced again is the same slot.
    pub(crate) async fn create(&self, new: &NewAttachment) -> Result<CreatedAttachment, Refusal> {
        check_name("name", new.name.as_deref())?;
        Ok(in_time(self.metadata.create_attachment(new, self.limits)).await??)
    }
}

impl From<CreateAttachmentError> for Refusal {
    fn from(error: CreateAttachmentError) -> Self {
        let sentence = error.to_string();
        match error {
            CreateAttachmentError::TooMany { retry_after } => Self::limited(sentence, retry_after),
            // Nobody knows when: attachments expire, or more is granted.
            CreateAttachmentError::BudgetSpent { .. } => {
                Self::new(tidings_protocol::ErrorCode::RateLimited, sentence).at("size")
            }
            CreateAttachmentError::Database(error) => error.into(),
        }
    }
}
