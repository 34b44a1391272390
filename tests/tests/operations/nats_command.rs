//! The real `nats` command: the one on PATH, or else one that is built from its Go module, once.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio::sync::OnceCell;

const MODULE: &str = "github.com/nats-io/natscli/nats@v0.5.1";

static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();

/// The folder that holds `nats`.
pub(crate) async fn folder() -> &'static Path {
    FOLDER.get_or_init(find).await
}

async fn find() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(|folder| folder.join("nats").is_file());
    if let Some(folder) = on_path {
        return folder;
    }
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target/tmp is in target")
        .join("tools");
    if !tools.join("nats").is_file() {
        eprintln!(
            "there is no `nats` on PATH: building {MODULE} into {}",
            tools.display()
        );
        let built = Command::new("go")
            .args(["install", MODULE])
            .env("GOBIN", &tools)
            .status()
            .await;
        assert!(
            built.as_ref().is_ok_and(std::process::ExitStatus::success),
            "`nats` is neither on PATH nor can it be built with Go: {built:?}"
        );
    }
    tools
}
