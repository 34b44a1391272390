//! `tidings nats-users`: keys for the NATS users of a system, and what its servers must know of them.

mod folder;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use nkeys::KeyPair;
use tidings_nats::NatsUser;

pub(crate) use folder::{UsersFolder, seed_file};

/// Makes the keys by which services and operators log in to NATS, and the part of a nats-server's configuration that says
/// what each may.
///
/// DIR gets a file with the seed of each user, for its owner alone (gateway.nk, fanout-worker.nk, inbox-worker.nk, setup.nk,
/// operator.nk, admin.nk), and users.conf, which is no secret and is included by nats/server/*.conf. What is there stays: run
/// it again after an upgrade, or when a seed was deleted because it is not safe any more, and have the servers read
/// users.conf again (nats-server --signal reload).
#[derive(Debug, clap::Args)]
pub(crate) struct NatsUsersArgs {
    /// The folder of the seeds. Made if it is not there.
    #[arg(value_name = "DIR", required_unless_present = "env")]
    dir: Option<PathBuf>,

    /// Gives this user a new key beside the one it has. Both are good until USER.old.nk is deleted and this is run again.
    #[arg(long, value_name = "USER", value_parser = user, conflicts_with = "env")]
    rotate: Option<NatsUser>,

    /// Prints new keys as lines for a file of environment variables, such as that of the composition, and keeps nothing. They
    /// are secrets, so it prints to no terminal.
    #[arg(long, conflicts_with = "dir")]
    env: bool,
}

fn user(name: &str) -> Result<NatsUser, String> {
    let names = NatsUser::ALL.map(NatsUser::name).join(", ");
    NatsUser::of_name(name).ok_or_else(|| format!("one of {names} is expected"))
}

pub(crate) fn main(args: &NatsUsersArgs) -> ExitCode {
    crate::block_on(async {
        let Some(dir) = &args.dir else {
            if std::io::stdout().is_terminal() {
                bail!("seeds are secrets: send them to a file, as in `tidings nats-users --env >> .env`");
            }
            return variables();
        };
        let folder = UsersFolder::open(dir)?;
        if let Some(user) = args.rotate {
            folder.rotate(user)?;
        }
        for change in folder.complete()? {
            println!("{change}");
        }
        Ok(())
    })
}

/// A line for each seed, and one for each public key.
fn variables() -> anyhow::Result<()> {
    println!(
        "# NATS users, by `tidings nats-users --env`. Seeds are for the services, public keys for the servers."
    );
    for user in NatsUser::ALL {
        let key = KeyPair::new_user();
        let seed = key.seed().context("a new key has a seed")?;
        println!("TIDINGS_NATS_{}_SEED={seed}", user.variable());
        println!("TIDINGS_NATS_{}_NKEY={}", user.variable(), key.public_key());
    }
    Ok(())
}
