//! The library that most programs upload with.

use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{System, header, some_bytes};

#[tokio::test(flavor = "multi_thread")]
async fn tus_js_client_is_interrupted_and_goes_on() {
    if Command::new("node").arg("--version").output().await.is_err() && std::env::var_os("CI").is_none() {
        println!("not run: there is no node on PATH");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tus");
    let installed = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
        .arg(&folder)
        .output()
        .await
        .expect("npm comes with node");
    assert!(
        installed.status.success(),
        "{}",
        String::from_utf8_lossy(&installed.stderr)
    );

    let system = System::start().await;
    let media = system.media(&[]).await;
    let alice = media.person("alice");
    let dir = TempDir::new().expect("a folder");
    let bytes = some_bytes(9, 5_000_000);
    std::fs::write(dir.path().join("paper.pdf"), &bytes).expect("it is written");
    let done = Command::new("node")
        .arg(folder.join("upload.mjs"))
        .args([&media.url, &alice.token])
        .args([dir.path().join("paper.pdf"), dir.path().join("storage.json")])
        .kill_on_drop(true)
        .output()
        .await
        .expect("node runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let id = String::from_utf8(done.stdout).expect("a text");
    let answer = alice.get(&format!("/v1/attachments/{}", id.trim())).await;
    assert_eq!(
        header(&answer, "content-disposition"),
        "attachment; filename=\"paper.pdf\""
    );
    assert_eq!(answer.bytes().await.expect("a body"), bytes);
    media.stop().await;
}
