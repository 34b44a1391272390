//! The clients of a load, connected, and the chats that they are in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tidings_protocol::{ChatId, CreateChat, MESSAGE_BYTES_MAX, RequestId};
use uuid::Uuid;

use super::fleet::{Fleet, request};
use super::in_flight::InFlight;
use super::observed::{Load, Traffic, read};
use super::plan::{Plan, Run, Shape};
use super::say;
use super::target::{Target, TargetArgs};

/// Chats that are made at the same time.
const CREATING: usize = 32;
/// For every client in every chat to hear of it.
const CHATS_PATIENCE: Duration = Duration::from_mins(1);

/// Options of every scenario that sends messages to chats.
#[derive(Debug, clap::Args)]
pub(crate) struct CrowdArgs {
    #[command(flatten)]
    pub(crate) target: TargetArgs,

    /// How many clients there are, each of another user; with --devices, so many of each.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) clients: u32,

    /// How many chats there are among them.
    #[arg(long, default_value_t = 300, value_name = "N")]
    pub(crate) chats: u32,

    /// How many users each chat has, 2 to 100.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) members: u32,

    /// The size of each message.
    #[arg(long, default_value_t = 200, value_name = "BYTES")]
    pub(crate) body_bytes: usize,

    /// Who is in which chat and who sends when; the same seed is the same load.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,

    /// How long to wait for what is missing at the end.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    patience: f64,
}

/// See the module.
pub(crate) struct Crowd {
    pub(crate) fleet: Fleet,
    pub(crate) target: Arc<Target>,
    pub(crate) plan: Arc<Plan>,
    /// How long to wait for what is missing at the end.
    pub(crate) patience: Duration,
    run: Run,
    chat_ids: Vec<ChatId>,
    body: String,
}

impl CrowdArgs {
    /// Who will be in which chat. Nothing is connected for it.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        self.check()?;
        Plan::new(&self.shape())
    }

    /// Whether the options are possible, as far as a plan does not say.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=MESSAGE_BYTES_MAX).contains(&self.body_bytes),
            "--body-bytes must be 1 to {MESSAGE_BYTES_MAX}"
        );
        Ok(())
    }

    /// What the options say about who is in which chat.
    pub(crate) const fn shape(&self) -> Shape {
        Shape {
            clients: self.clients,
            devices: self.target.devices,
            chats: self.chats,
            members: self.members,
            seed: self.seed,
        }
    }

    /// Connects everybody and makes the chats.
    pub(crate) async fn gather(&self, plan: Plan) -> anyhow::Result<Crowd> {
        let patience = seconds("--patience", self.patience)?;
        let target = Arc::new(Target::open(&self.target)?);
        let run = Run::new();
        let mut fleet = Fleet::new();
        fleet.grow(&target, plan.clients).await?;
        let chat_ids = create_chats(&fleet, &target, &plan, run).await?;
        Ok(Crowd {
            fleet,
            target,
            plan: Arc::new(plan),
            patience,
            run,
            chat_ids,
            body: body(self.body_bytes, self.seed),
        })
    }
}

impl Crowd {
    /// From now on everybody works on a load whose times count from `start`. Once.
    pub(crate) fn begin(&self, start: Instant, in_flight: Option<InFlight>) -> &Load {
        let observed = &self.fleet.observed;
        let load = observed.begin(Load::new(Arc::clone(&self.plan), start, in_flight));
        let traffic = Traffic::new(self.run, self.chat_ids.clone(), self.body.clone());
        self.fleet.expect(traffic);
        load
    }
}

/// An option in seconds.
pub(crate) fn seconds(option: &str, number: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(number).with_context(|| format!("{option} {number}"))
}

/// Printable, and the same in each run.
pub(crate) fn body(bytes: usize, seed: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..bytes)
        .map(|_| char::from(rng.random_range(b'a'..=b'z')))
        .collect()
}

/// Makes the chats of the plan and waits until every client in each has heard of it.
async fn create_chats(fleet: &Fleet, target: &Target, plan: &Plan, run: Run) -> anyhow::Result<Vec<ChatId>> {
    let began = Instant::now();
    let name = format!("bench {run}");
    fleet.name_run(&name);
    let chat_ids = stream::iter(plan.chats.iter().enumerate())
        .map(|(index, members)| create_chat(fleet, target, plan.devices, index, members, &name))
        .buffered(CREATING)
        .try_collect::<Vec<_>>()
        .await
        .context("cannot make the chats")?;
    let all = plan.chats.len() as u64 * u64::from(plan.seats());
    fleet
        .wait_for(
            "clients that have heard of their chats",
            CHATS_PATIENCE,
            all,
            |observed| read(&observed.chat_updates),
        )
        .await?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "{} chats made and known to their members ({seconds:.1} s)",
        chat_ids.len()
    ));
    Ok(chat_ids)
}

async fn create_chat(
    fleet: &Fleet,
    target: &Target,
    devices: u32,
    index: usize,
    members: &[u32],
    name: &str,
) -> anyhow::Result<ChatId> {
    let [creator, others @ ..] = members else {
        bail!("a chat has members");
    };
    let others = others.iter().map(|user| target.user(*user));
    let create = CreateChat {
        // A client may make several at once.
        id: index as u64 + 1,
        request_id: RequestId(Uuid::new_v4()),
        participants: others.collect::<anyhow::Result<_>>()?,
        name: Some(name.to_owned()),
    };
    let reply = request(&fleet.clients[(creator * devices) as usize], || {
        create.clone().into()
    })
    .await?;
    reply.chat_id.context("the reply to createChat names no chat")
}
