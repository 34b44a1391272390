//! A disk of a server that can be full: a filesystem in memory, which only root can mount.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// What takes up the room; it is nobody's but the runner's.
const BALLAST: &str = "ballast";
/// Written at once. What is left when the next one does not fit is written byte by byte.
const CHUNK_BYTES: usize = 1 << 20;

/// See the module. Dropping it unmounts it, and its files are gone.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Makes the folder and mounts a filesystem of so many MiB on it.
    pub fn mount(path: &Path, mib: u32) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tidings-faults"])
            .arg(path)
            .output()
            .context("cannot run mount")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "no disk of its own for {}: {said}",
            path.display()
        );
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Takes up all the room that is left.
    pub fn fill(&self) -> std::io::Result<()> {
        let mut file = File::create(self.path.join(BALLAST))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        while !chunk.is_empty() {
            match file.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => chunk.truncate(chunk.len() / 2),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn make_room(&self) -> std::io::Result<()> {
        std::fs::remove_file(self.path.join(BALLAST))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever has files open there is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
