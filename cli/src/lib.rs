//! The `tidings` command: every service as a subcommand, `up` to run them all on one machine, and what looks
//! inside a running system.

mod bench;
mod chat;
mod confirm;
mod data_dir;
mod dead_letters;
mod decode;
mod hands;
mod health;
mod help;
mod look;
mod nats_users;
mod print;
mod setup;
mod token;
mod top;
mod up;
mod up_file;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tidings_fanout_worker::FanoutWorkerConfig;
use tidings_gateway::GatewayConfig;
use tidings_inbox_worker::InboxWorkerConfig;
use tidings_media::MediaConfig;
use tidings_nats::NatsUser;
use tidings_service::start;

pub use data_dir::DataDir;
/// What a program whose processes are services allocates with (docs/adr/0028).
pub use tikv_jemallocator::Jemalloc as Allocator;
pub use up_file::{UpFile, UpProcess};

/// A messaging backend on NATS JetStream: group chats in real time, and an inbox that keeps what a device missed.
///
/// `tidings up` starts everything on this machine; `tidings chat --user alice --with bob` talks.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, propagate_version = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One variant a subcommand; each lives in a module of its own and says how it ends by an exit code.
#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Setup(setup::SetupArgs),
    NatsUsers(nats_users::NatsUsersArgs),
    Token(token::TokenArgs),
    Chat(chat::ChatArgs),
    Where(look::WhereArgs),
    Inbox(look::InboxArgs),
    ChatInfo(look::ChatInfoArgs),
    Explain(look::ExplainArgs),
    Clients(look::ClientsArgs),
    Top(top::TopArgs),
    Kick(hands::KickArgs),
    Remove(hands::RemoveArgs),
    Suspend(hands::SuspendArgs),
    Resume(hands::ResumeArgs),
    DeadLetters(dead_letters::DeadLettersArgs),
    Decode(decode::DecodeArgs),
    Health(health::HealthArgs),
    Bench(bench::BenchArgs),
    /// The WebSocket edge: clients connect here.
    Gateway(Box<GatewayConfig>),
    /// Stores the events of chats in inboxes.
    FanoutWorker(Box<FanoutWorkerConfig>),
    /// Relays the outbox and looks after inboxes.
    InboxWorker(Box<InboxWorkerConfig>),
    /// Takes and serves attachments over HTTP.
    Media(Box<MediaConfig>),
}

/// Runs the command that the arguments ask for. The process's standard output is the command's result, standard
/// error is for people.
pub fn main() -> ExitCode {
    let matches = help::grouped(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Command::Up(args) => up::main(&args),
        Command::Setup(args) => setup::main(args),
        Command::NatsUsers(args) => nats_users::main(&args),
        Command::Token(args) => token::main(args),
        Command::Chat(args) => chat::main(args),
        Command::Where(args) => look::where_user(&args),
        Command::Inbox(args) => look::inbox(&args),
        Command::ChatInfo(args) => look::chat_info(&args),
        Command::Explain(args) => look::explain(&args),
        Command::Clients(args) => look::clients(&args),
        Command::Top(args) => top::main(&args),
        Command::Kick(args) => hands::kick(&args),
        Command::Remove(args) => hands::remove(&args),
        Command::Suspend(args) => hands::suspend(&args),
        Command::Resume(args) => hands::resume(&args),
        Command::DeadLetters(args) => dead_letters::main(args),
        Command::Decode(args) => decode::main(&args),
        Command::Health(args) => health::main(&args),
        Command::Bench(args) => bench::main(args),
        Command::Gateway(config) => {
            let common = config.common.clone();
            start::run("gateway", NatsUser::Gateway, &common, |context| {
                tidings_gateway::run(*config, context)
            })
        }
        Command::FanoutWorker(config) => {
            let common = config.common.clone();
            start::run("fanout-worker", NatsUser::FanoutWorker, &common, |context| {
                tidings_fanout_worker::run(*config, context)
            })
        }
        Command::InboxWorker(config) => {
            let common = config.common.clone();
            start::run("inbox-worker", NatsUser::InboxWorker, &common, |context| {
                tidings_inbox_worker::run(*config, context)
            })
        }
        Command::Media(config) => {
            let common = config.common.clone();
            start::run_without_bus("media", &common, |context| tidings_media::run(*config, context))
        }
    }
}

/// Runs a short command on a runtime of its own. An error is one line on standard error and a failure.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    tidings_service::start::install_crypto_provider();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let result = runtime.block_on(command);
            // A read of standard input that nobody waits for any more must not hold the end back.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings: {}", print::error(&error));
            ExitCode::FAILURE
        }
    }
}
