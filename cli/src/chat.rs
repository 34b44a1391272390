//! `tidings chat`: a terminal client, on the same library that others build theirs with.

mod book;
mod command;
mod file_name;
mod files;
mod history;
mod input;
mod operation;
mod screen;
mod shelf;
mod talk;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tidings_client::{DiskStore, Options, TokenReason, Tokens};
use tidings_protocol::{ClientId, UserId};
use time::UtcOffset;

use crate::chat::files::Files;
use crate::chat::history::History;
use crate::chat::input::Input;
use crate::chat::screen::{Screen, Terminal};
use crate::chat::talk::Talk;
use crate::{DataDir, UpFile, token};

/// Tokens are signed here, so that they can be short.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// Talks, from a terminal or through pipes.
///
/// What you type goes to the chat that is open; `/help` lists the commands. What is not a terminal is read and
/// written line by line, and the end of the input ends the talk once everything is sent and received. What was
/// said, and what is still to be sent, is kept in DIR/chat.
#[derive(Debug, clap::Args)]
pub(crate) struct ChatArgs {
    /// Who you are.
    #[arg(long)]
    user: UserId,
    /// Opens the direct chat with this user.
    #[arg(long, value_name = "USER", conflicts_with = "group")]
    with: Option<UserId>,
    /// Opens the group with this name.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// A name for this device. A user has at most three, and each is in one place at a time.
    #[arg(long, default_value = "terminal")]
    device: String,
    /// Removes this device of yours, for ever, if you have too many.
    #[arg(long, value_name = "UUID")]
    replace: Option<ClientId>,
    /// A gateway, instead of those of the system in DIR. May be given several times.
    #[arg(long, value_name = "WS")]
    url: Vec<String>,
    /// A token, instead of one signed with the secret of the system in DIR.
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    dir: DataDir,
}

pub(crate) fn main(args: ChatArgs) -> ExitCode {
    // Only a process with a single thread may ask.
    let offset = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
    crate::block_on(run(args, offset))
}

async fn run(args: ChatArgs, offset: UtcOffset) -> anyhow::Result<()> {
    let dir = args.dir.path()?;
    let mut options = Options::new(String::new(), tokens(&args)?);
    options.urls = if args.url.is_empty() {
        UpFile::read(&dir)?.ws
    } else {
        args.url
    };
    options.name = Some(args.device.clone());
    options.replace = args.replace;
    let files = Files::prepare(&dir, &args.user, &args.device)?;
    let busy = || {
        format!(
            "the device {:?} of {} cannot be used (if it is open elsewhere, choose another with --device)",
            args.device, args.user
        )
    };
    options.store = Box::new(DiskStore::open(&files.store).with_context(busy)?);
    let history = History::open(&files.history).with_context(busy)?;

    let terminal = Terminal::new(Input::is_terminal());
    let (input, printer) = Input::new(terminal.clone())?;
    let screen = Screen::new(terminal, printer);
    let target = match (args.with, args.group) {
        (Some(user), _) => talk::Target::With(user),
        (None, Some(name)) => talk::Target::Group(name),
        (None, None) => talk::Target::Nothing,
    };
    Talk::new(options, args.user, target, history, screen, input, offset)?
        .run()
        .await
}

/// The given token, or as many as are needed.
fn tokens(args: &ChatArgs) -> anyhow::Result<Tokens> {
    if let Some(token) = &args.token {
        return Ok(Tokens::fixed(token.trim()));
    }
    let dir = args.dir.path()?;
    // A mistake is said now, not by the connection.
    UpFile::read(&dir)?;
    let user = args.user.clone();
    let client = token::client_id(&user, &args.device);
    Ok(Tokens::new(move |_: TokenReason| {
        let signed = UpFile::read(&dir)
            .and_then(|up| token::sign(&up.jwt_secret, &user, client, TOKEN_LIFETIME))
            .map_err(|error| format!("{error:#}"));
        std::future::ready(signed)
    }))
}
