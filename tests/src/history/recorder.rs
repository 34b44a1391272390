//! Who writes histories.

use std::fs::{File, create_dir_all};
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tidings_protocol::{AttachmentId, ClientFrame, ServerFrame};

use super::happening::{Event, Happening};
use super::json_lines;
use super::moment::Moment;
use super::record::{Fetch, Record, RecordedConnection, What};
use super::run::{EVENTS, HISTORY};

/// Writes the history of one run. Clones write into the same one.
#[derive(Clone, Debug)]
pub struct Recorder {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    began: Instant,
    written: Mutex<Written>,
}

/// Grows with the run: about 300 bytes a frame, which an hour of a workload that a laptop can carry fills with
/// well under a gigabyte.
#[derive(Debug, Default)]
struct Written {
    records: Vec<Record>,
    events: Vec<Event>,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    history: BufWriter<File>,
    events: BufWriter<File>,
}

impl Recorder {
    /// In memory alone. The run begins now.
    pub fn in_memory() -> Self {
        Self::new(None)
    }

    /// In memory, and as JSON lines in a folder, which is made where it is missing; an earlier run in it is overwritten.
    pub fn to_dir(dir: &Path) -> io::Result<Self> {
        create_dir_all(dir)?;
        let files = Files {
            history: BufWriter::new(File::create(dir.join(HISTORY))?),
            events: BufWriter::new(File::create(dir.join(EVENTS))?),
        };
        Ok(Self::new(Some(files)))
    }

    fn new(files: Option<Files>) -> Self {
        Self {
            inner: Arc::new(Inner {
                began: Instant::now(),
                written: Mutex::new(Written {
                    files,
                    ..Written::default()
                }),
            }),
        }
    }

    /// The time since the run began.
    pub fn now(&self) -> Moment {
        Moment(self.inner.began.elapsed().as_micros() as u64)
    }

    /// When the run began.
    pub fn began(&self) -> Instant {
        self.inner.began
    }

    /// The recorder of one connection.
    pub fn connection(&self, connection: RecordedConnection) -> ConnectionRecorder {
        ConnectionRecorder {
            recorder: self.clone(),
            connection: Arc::new(connection),
        }
    }

    /// Notes what happens to the system.
    pub fn happened(&self, happening: Happening) {
        let mut written = self.lock();
        // Inside the lock, so that the lines of a file stand in the order of time.
        let event = Event {
            at: self.now(),
            happening,
        };
        if let Some(files) = &mut written.files {
            let line = json_lines::event_line(&event);
            // A full disk shows in `finish`; until then the run in memory is worth more than the file.
            writeln!(files.events, "{line}").ok();
            files.events.flush().ok();
        }
        written.events.push(event);
    }

    /// What was recorded so far.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// Takes what was recorded out of memory and writes the files to their end. Whatever is recorded later is not part
    /// of the run.
    pub fn finish(&self) -> io::Result<(Vec<Record>, Vec<Event>)> {
        let written = std::mem::take(&mut *self.lock());
        if let Some(mut files) = written.files {
            files.history.flush()?;
            files.events.flush()?;
        }
        Ok((written.records, written.events))
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.inner.written.lock().expect("no holder of it panics")
    }

    fn record(&self, connection: &Arc<RecordedConnection>, what: What) -> Moment {
        let mut written = self.lock();
        let at = self.now();
        let record = Record {
            at,
            connection: Arc::clone(connection),
            what,
        };
        if let Some(files) = &mut written.files {
            writeln!(files.history, "{}", json_lines::record_line(&record)).ok();
        }
        written.records.push(record);
        at
    }
}

/// Writes what one connection does and sees.
#[derive(Clone, Debug)]
pub struct ConnectionRecorder {
    recorder: Recorder,
    connection: Arc<RecordedConnection>,
}

impl ConnectionRecorder {
    /// Whose.
    pub fn connection(&self) -> &RecordedConnection {
        &self.connection
    }

    /// No connection was made.
    pub fn refused(&self, url: &str, reason: impl Into<String>) {
        self.write(What::Refused {
            url: url.to_owned(),
            reason: reason.into(),
        });
    }

    /// The connection was made.
    pub fn opened(&self, url: &str) {
        self.write(What::Opened { url: url.to_owned() });
    }

    /// To be called *before* the frame is handed to the socket: what was recorded later than it happened would look
    /// like an answer before its question.
    pub fn sent(&self, frame: &ClientFrame) -> Moment {
        let mut frame = frame.clone();
        match &mut frame {
            ClientFrame::Hello(hello) => hello.token = None,
            ClientFrame::RenewToken(renew) => renew.token = String::new(),
            _ => {}
        }
        self.write(What::Sent(Box::new(frame)))
    }

    /// A frame came.
    pub fn received(&self, frame: &ServerFrame) -> Moment {
        self.write(What::Received(Box::new(frame.clone())))
    }

    /// A frame of an unknown type came.
    pub fn unknown(&self, delivery: Option<u64>) {
        self.write(What::Unknown { delivery });
    }

    /// The connection ended from the other side, or broke.
    pub fn closed(&self, code: u16, reason: impl Into<String>) {
        self.write(What::Closed {
            code,
            reason: reason.into(),
            by_client: false,
        });
    }

    /// The recording client ends it: with a handshake (1000) or without a word (1006).
    pub fn hung_up(&self, code: u16) {
        self.write(What::Closed {
            code,
            reason: String::new(),
            by_client: true,
        });
    }

    /// An attachment was asked for.
    pub fn fetched(&self, attachment_id: AttachmentId, outcome: Fetch) {
        self.write(What::Fetched {
            attachment_id,
            outcome,
        });
    }

    /// The client is at rest.
    pub fn at_rest(&self) {
        self.write(What::AtRest);
    }

    /// The client is not at rest and should be.
    pub fn not_at_rest(&self, reason: impl Into<String>) {
        self.write(What::NotAtRest {
            reason: reason.into(),
        });
    }

    fn write(&self, what: What) -> Moment {
        self.recorder.record(&self.connection, what)
    }
}
