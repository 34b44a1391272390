//! What runs now, as `up.json` and the record for later runs say it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::folder::{Folder, ProcessRecord};
use super::say::say;
use crate::{UpFile, UpProcess};

/// The processes of a running system. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    folder: Arc<Folder>,
    records: Vec<ProcessRecord>,
    processes: Vec<UpProcess>,
    /// Everything but the processes, once all of it answers.
    up: Option<UpFile>,
}

impl Board {
    /// Nothing runs yet.
    pub(crate) fn new(folder: Arc<Folder>) -> Self {
        let inner = Inner {
            folder,
            records: Vec::new(),
            processes: Vec::new(),
            up: None,
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// A process was started, or started again.
    pub(crate) fn started(&self, name: &str, pid: u32, admin: Option<&str>, log: PathBuf) {
        let mut inner = self.lock();
        let record = ProcessRecord::new(name, pid);
        let process = UpProcess {
            name: name.to_owned(),
            pid,
            admin: admin.map(str::to_owned),
            log,
        };
        if let Some(index) = inner.processes.iter().position(|other| other.name == name) {
            inner.records[index] = record;
            inner.processes[index] = process;
        } else {
            inner.records.push(record);
            inner.processes.push(process);
        }
        inner.write();
    }

    /// Everything answers: from now on `up.json` says so.
    pub(crate) fn publish(&self, up: UpFile) {
        let mut inner = self.lock();
        inner.up = Some(up);
        inner.write();
    }

    /// The end: `up.json` goes first, so that nobody is sent to what is about to stop.
    pub(crate) fn withdraw(&self) {
        let mut inner = self.lock();
        inner.up = None;
        if let Err(error) = inner.folder.remove_up_file() {
            say(&format!("{error:#}"));
        }
    }

    /// Where the logs are.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        self.lock()
            .processes
            .iter()
            .map(|process| process.log.clone())
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing in here is half done when something panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A full disk is said and is no reason to stop what runs.
    fn write(&self) {
        let written = self
            .folder
            .record_processes(&self.records)
            .and_then(|()| match &self.up {
                Some(up) => self.folder.write_up_file(&UpFile {
                    processes: self.processes.clone(),
                    ..up.clone()
                }),
                None => Ok(()),
            });
        if let Err(error) = written {
            say(&format!("{error:#}"));
        }
    }
}
