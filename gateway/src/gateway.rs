//! What the connections of one gateway share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidings_metadata::{AttachmentLimits, Metadata};
use tidings_nats::{Bus, Invalidation, Topology};
use tidings_protocol::Limits;
use tidings_service::{
    AttachmentConfig, BootId, Context, Forget, Invalidations, LivingWatch, Switch, Tasks, TokenVerifier,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::bodies::Bodies;
use crate::changed_users::ChangedUsers;
use crate::chats::{self, ChatCache};
use crate::check;
use crate::config::GatewayConfig;
use crate::confirm::Confirmer;
use crate::doubts;
use crate::ends::Ends;
use crate::live::Live;
use crate::publisher::Publisher;
use crate::rate_limits::{self, RateLimits};
use crate::readings::Readings;
use crate::seen::Seen;
use crate::sessions::Sessions;

/// Durables that hellos open at once. A server makes and resets those of one connection one after the other, and
/// writes a file for each; whoever comes when so many are at it reads without one.
const DURABLES_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) boot_id: BootId,
    pub(crate) bus: Arc<Bus>,
    pub(crate) publisher: Publisher,
    pub(crate) topology: Topology,
    pub(crate) metadata: Metadata,
    pub(crate) tokens: TokenVerifier,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) live: Arc<Live>,
    pub(crate) gateways: LivingWatch,
    pub(crate) chats: ChatCache,
    pub(crate) changed_users: ChangedUsers,
    pub(crate) confirmer: Confirmer,
    pub(crate) rate_limits: Arc<RateLimits>,
    pub(crate) seen: Seen,
    pub(crate) tasks: Tasks,
    pub(crate) stopping: CancellationToken,
    /// Where attachments are, without a slash at the end.
    pub(crate) media_url: Option<String>,
    pub(crate) attachments: AttachmentConfig,
    pub(crate) inbox_durables: bool,
    /// How many messages are traced.
    pub(crate) trace_ratio: f64,
    /// Nobody can be served here.
    cut_off: AtomicBool,
    /// Who may say hello now.
    pub(crate) admission: Admission,
    /// Durables that hellos open at this moment.
    pub(crate) durables: Semaphore,
    /// Where inboxes end.
    pub(crate) ends: Arc<Ends>,
    /// Readings of inboxes under way.
    pub(crate) readings: Arc<Readings>,
    /// What entries refer to.
    pub(crate) bodies: Arc<Bodies>,
}

impl Gateway {
    /// Starts everything that runs beside the connections.
    pub(crate) async fn start(config: &GatewayConfig, context: &Context) -> anyhow::Result<Arc<Self>> {
        let topology = context.topology;
        let sessions = Arc::new(Sessions::default());
        let live = Live::start(context, sessions.clone()).await?;
        let (confirmer, deletions) = Confirmer::new(&context.bus, topology);
        // Without any of these, what was confirmed would stay, or what was missed would be found by nobody: their
        // panics stop the service.
        context.tasks.spawn_essential("confirmations", async move {
            deletions.await;
            Ok(())
        });
        let ends = Ends::new(context.bus.clone(), topology);
        let doubts = doubts::run(ends.clone(), topology, sessions.clone(), live.doubts());
        let stopping = context.stopping.clone();
        context.tasks.spawn_essential("doubts", async move {
            stopping.run_until_cancelled(doubts).await;
            Ok(())
        });
        let gateway = Arc::new(Self {
            boot_id: context.boot_id,
            bus: Arc::new(context.bus.clone()),
            publisher: Publisher::start(context).await?,
            topology,
            metadata: context.metadata.clone(),
            tokens: TokenVerifier::start(&config.tokens, context).await?,
            sessions,
            live,
            gateways: LivingWatch::start(context, "gateway").await?,
            chats: chats::cache(),
            changed_users: ChangedUsers::default(),
            confirmer,
            rate_limits: Arc::new(RateLimits::new(config.rate_limits, config.unauthenticated_max)),
            seen: Seen::default(),
            tasks: context.tasks.clone(),
            stopping: context.stopping.clone(),
            media_url: config.media_url.clone(),
            attachments: config.attachments.clone(),
            inbox_durables: config.inbox_durables == Switch::On,
            trace_ratio: config.trace_ratio,
            cut_off: AtomicBool::new(false),
            admission: Admission::new(),
            durables: Semaphore::new(DURABLES_MAX),
            ends,
            readings: Arc::new(Readings::new(topology)),
            bodies: Arc::new(Bodies::new(context.bus.clone())),
        });
        gateway.watch_invalidations(context).await?;
        let (checked, stopping) = (gateway.clone(), context.stopping.clone());
        context.tasks.spawn_essential("checks", async move {
            stopping.run_until_cancelled(check::run(&checked)).await;
            Ok(())
        });
        gateway.clone().spawn_upkeep(context);
        Ok(gateway)
    }

    /// What clients are told of.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            attachment_bytes: self.attachments.attachment_bytes_max,
            ..Limits::default()
        }
    }

    /// What a user may have of attachments, where rates are limited.
    pub(crate) fn attachment_limits(&self) -> Option<AttachmentLimits> {
        self.rate_limits.is_on().then_some(AttachmentLimits {
            per_hour: self.attachments.attachments_per_hour,
            bytes_per_user: self.attachments.attachment_budget,
        })
    }

    /// Whether this gateway is cut off from the majority of NATS, so that nobody can be served here.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Says whether it is.
    pub(crate) fn set_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Chats are forgotten; sessions are looked at, since their clients may have been removed.
    async fn watch_invalidations(self: &Arc<Self>, context: &Context) -> anyhow::Result<()> {
        let gateway = Arc::downgrade(self);
        Invalidations::start(context, move |forget| {
            let Some(gateway) = gateway.upgrade() else { return };
            match forget {
                Forget::Everything => {
                    gateway.chats.clear();
                    gateway.changed_users.all();
                    gateway.close_inactive(&gateway.sessions.users());
                }
                Forget::One(Invalidation::Chat { chat_id, .. }) => gateway.chats.invalidate(&chat_id),
                Forget::One(Invalidation::User { user_id }) => {
                    gateway.changed_users.one(&user_id);
                    gateway.close_inactive(&[user_id]);
                }
            }
        })
        .await?;
        Ok(())
    }

    /// What is done every minute.
    fn spawn_upkeep(self: Arc<Self>, context: &Context) {
        let stopping = context.stopping.clone();
        let gateway = Arc::downgrade(&self);
        context.tasks.spawn(async move {
            let upkeep = async {
                let mut interval = tokio::time::interval(rate_limits::UPKEEP_INTERVAL);
                loop {
                    interval.tick().await;
                    let Some(gateway) = gateway.upgrade() else { return };
                    gateway.rate_limits.upkeep();
                    gateway.seen.write(&gateway.metadata, &gateway.sessions).await;
                }
            };
            stopping.run_until_cancelled(upkeep).await;
        });
    }
}
