//! Lines out. A thread of its own writes them, since a terminal, or the program behind a pipe, may be slow.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustyline::ExternalPrinter;
use tokio::sync::Notify;

use crate::chat::text::rows;

/// Where lines go.
pub(crate) struct Screen {
    out: mpsc::Sender<Out>,
    thread: JoinHandle<()>,
    terminal: Arc<Terminal>,
    last_id: u64,
}

/// What is known of the terminal, or that there is none.
pub(crate) struct Terminal {
    /// None: a pipe or a file.
    columns: Option<AtomicUsize>,
    /// Lines written so far.
    written: AtomicU64,
    /// Nobody reads any more.
    gone: Notify,
    colour: bool,
}

/// A line that can still change.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct LineId(u64);

/// The typed line that a printed one stands for.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Typed {
    /// Rows it takes on the terminal.
    rows: usize,
    /// Lines written when it was finished; if there are more, it is not the last one.
    written: u64,
}

/// A line that says how far something is. [`Screen::finish`] waits until it is let go of.
pub(crate) struct ProgressLine {
    out: mpsc::Sender<Out>,
    id: LineId,
}

impl ProgressLine {
    /// Writes it. Where its place is not at the bottom any more, and into a pipe, only milestones are written.
    pub(crate) fn write(&self, text: String, milestone: bool) {
        let id = self.id;
        // The thread ends early only when nobody reads.
        self.out.send(Out::Progress { id, text, milestone }).ok();
    }
}

enum Out {
    Line {
        text: String,
        dim: bool,
    },
    Own {
        id: LineId,
        text: String,
        typed: Option<Typed>,
    },
    Amend {
        id: LineId,
        text: String,
    },
    Progress {
        id: LineId,
        text: String,
        milestone: bool,
    },
}

impl Terminal {
    /// The terminal at standard output, if it is one and is wanted.
    pub(crate) fn new(wanted: bool) -> Arc<Self> {
        let columns = (wanted && stdout().is_terminal()).then(|| AtomicUsize::new(80));
        Arc::new(Self {
            colour: columns.is_some() && std::env::var_os("NO_COLOR").is_none(),
            columns,
            written: AtomicU64::new(0),
            gone: Notify::new(),
        })
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.columns.is_some()
    }

    /// Notes its width.
    pub(crate) fn set_columns(&self, count: usize) {
        if let Some(columns) = &self.columns {
            columns.store(count, Ordering::Relaxed);
        }
    }

    /// A line was typed just now, after a prompt.
    pub(crate) fn typed(&self, prompt: &str, line: &str) -> Option<Typed> {
        let columns = self.columns.as_ref()?.load(Ordering::Relaxed);
        Some(Typed {
            rows: rows(&format!("{prompt}{line}"), columns),
            written: self.written.load(Ordering::SeqCst),
        })
    }

    /// Returns when nobody reads the lines any more.
    pub(crate) async fn gone(&self) {
        self.gone.notified().await;
    }
}

impl Screen {
    /// Starts writing, to the terminal's printer or to standard output.
    pub(crate) fn new(terminal: Arc<Terminal>, printer: Option<Box<dyn ExternalPrinter + Send>>) -> Self {
        let (out, lines) = mpsc::channel();
        let writer = Writer {
            terminal: Arc::clone(&terminal),
            printer,
            last: None,
        };
        let thread = std::thread::spawn(move || writer.run(&lines));
        Self {
            out,
            thread,
            terminal,
            last_id: 0,
        }
    }

    /// Writes a line.
    pub(crate) fn line(&self, text: impl Into<String>) {
        let text = text.into();
        self.write(Out::Line { text, dim: false });
    }

    /// Writes a line about what happens, which nobody said.
    pub(crate) fn status(&self, text: impl std::fmt::Display) {
        let text = format!("— {text}");
        self.write(Out::Line { text, dim: true });
    }

    /// Writes a line in the place of the typed one, which may be amended.
    pub(crate) fn own(&mut self, text: String, typed: Option<Typed>) -> LineId {
        self.last_id += 1;
        let id = LineId(self.last_id);
        self.write(Out::Own { id, text, typed });
        id
    }

    /// Writes what the line has become: in its place where that is still possible, else once more.
    pub(crate) fn amend(&self, id: LineId, text: String) {
        self.write(Out::Amend { id, text });
    }

    /// Writes how far something is, in the place of its line.
    pub(crate) fn progress(&self, id: LineId) -> ProgressLine {
        let out = self.out.clone();
        ProgressLine { out, id }
    }

    /// What is known of the terminal.
    pub(crate) fn terminal(&self) -> &Arc<Terminal> {
        &self.terminal
    }

    /// Returns when everything is written.
    pub(crate) fn finish(self) {
        drop(self.out);
        self.thread.join().ok();
    }

    fn write(&self, out: Out) {
        // The thread ends early only when nobody reads.
        self.out.send(out).ok();
    }
}

struct Writer {
    terminal: Arc<Terminal>,
    printer: Option<Box<dyn ExternalPrinter + Send>>,
    /// The line at the bottom and its rows, if it can be amended there.
    last: Option<(LineId, usize)>,
}

impl Writer {
    fn run(mut self, lines: &mpsc::Receiver<Out>) {
        for out in lines {
            let text = self.compose(out);
            if text.is_empty() {
                continue;
            }
            let written = if let Some(printer) = &mut self.printer {
                printer.print(text).is_ok()
            } else {
                let mut stdout = stdout().lock();
                stdout
                    .write_all(text.as_bytes())
                    .and_then(|()| stdout.flush())
                    .is_ok()
            };
            self.terminal.written.fetch_add(1, Ordering::SeqCst);
            if !written {
                self.terminal.gone.notify_one();
                return;
            }
        }
    }

    fn compose(&mut self, out: Out) -> String {
        let columns = self
            .terminal
            .columns
            .as_ref()
            .map(|columns| columns.load(Ordering::Relaxed));
        // A row that is full to the last column may or may not have begun the next one.
        let rows_of = |text: &str| Some(rows(text, columns?.saturating_sub(1)));
        match out {
            Out::Line { text, dim } => {
                self.last = None;
                if dim && self.terminal.colour {
                    format!("\x1b[2m{text}\x1b[0m\n")
                } else {
                    format!("{text}\n")
                }
            }
            Out::Own { id, text, typed } => {
                self.last = rows_of(&text).map(|rows| (id, rows));
                let untouched =
                    typed.filter(|typed| typed.written == self.terminal.written.load(Ordering::SeqCst));
                match untouched {
                    Some(Typed { rows, .. }) => format!("\x1b[{rows}A\r\x1b[J{text}\n"),
                    None => format!("{text}\n"),
                }
            }
            Out::Amend { id, text } => match self.last {
                Some((last, rows)) if last == id => {
                    self.last = rows_of(&text).map(|rows| (id, rows));
                    format!("\x1b[{rows}A\r\x1b[J{text}\n")
                }
                _ => format!("{text}\n"),
            },
            Out::Progress { id, text, milestone } => match self.last {
                Some((last, _)) if last == id => self.compose(Out::Amend { id, text }),
                _ if milestone => {
                    self.last = rows_of(&text).map(|rows| (id, rows));
                    format!("{text}\n")
                }
                _ => String::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(columns: Option<usize>) -> Writer {
        let terminal = Terminal {
            columns: columns.map(AtomicUsize::new),
            written: AtomicU64::new(0),
            gone: Notify::new(),
            colour: false,
        };
        Writer {
            terminal: Arc::new(terminal),
            printer: None,
            last: None,
        }
    }

    fn own(id: u64, text: &str, typed: Option<Typed>) -> Out {
        Out::Own {
            id: LineId(id),
            text: text.to_owned(),
            typed,
        }
    }

    fn amend(id: u64, text: &str) -> Out {
        Out::Amend {
            id: LineId(id),
            text: text.to_owned(),
        }
    }

    fn line(text: &str) -> Out {
        Out::Line {
            text: text.to_owned(),
            dim: true,
        }
    }

    #[test]
    fn a_pipe_gets_every_line() {
        let mut writer = writer(None);
        assert_eq!(writer.terminal.typed("> ", "hi").map(|typed| typed.rows), None);
        assert_eq!(writer.compose(own(1, "hi …", None)), "hi …\n");
        assert_eq!(writer.compose(amend(1, "hi ✓")), "hi ✓\n");
    }

    #[test]
    fn a_terminal_shows_one_line_that_changes() {
        let mut writer = writer(Some(20));
        let typed = writer.terminal.typed("bob> ", "some words that wrap");
        assert_eq!(writer.compose(own(1, "hi …", typed)), "\x1b[2A\r\x1b[Jhi …\n");
        assert_eq!(writer.compose(amend(1, "hi ✓")), "\x1b[1A\r\x1b[Jhi ✓\n");
        writer.compose(line("bob: yes"));
        assert_eq!(
            writer.compose(amend(1, "hi ✓")),
            "hi ✓\n",
            "it is not at the bottom any more"
        );
    }

    #[test]
    fn progress_stays_in_its_line_and_leaves_others_alone() {
        let progress = |text: &str, milestone| Out::Progress {
            id: LineId(1),
            text: text.to_owned(),
            milestone,
        };
        let mut pipe = writer(None);
        pipe.compose(own(1, "cat …", None));
        assert_eq!(pipe.compose(progress("cat 10 %", false)), "");
        assert_eq!(pipe.compose(progress("cat 25 %", true)), "cat 25 %\n");
        let mut terminal = writer(Some(80));
        terminal.compose(own(1, "cat …", None));
        assert_eq!(
            terminal.compose(progress("cat 10 %", false)),
            "\x1b[1A\r\x1b[Jcat 10 %\n"
        );
        terminal.compose(line("bob: hi"));
        assert_eq!(terminal.compose(progress("cat 20 %", false)), "");
        assert_eq!(terminal.compose(progress("cat 25 %", true)), "cat 25 %\n");
        assert_eq!(
            terminal.compose(progress("cat 26 %", false)),
            "\x1b[1A\r\x1b[Jcat 26 %\n"
        );
    }

    #[test]
    fn what_was_written_meanwhile_is_not_erased() {
        let mut writer = writer(Some(20));
        let typed = writer.terminal.typed("bob> ", "hi");
        writer.terminal.written.fetch_add(1, Ordering::SeqCst);
        assert_eq!(writer.compose(own(1, "hi …", typed)), "hi …\n");
        assert_eq!(
            writer.compose(own(2, "longer than twenty columns", None)),
            "longer than twenty columns\n"
        );
        assert_eq!(writer.compose(amend(2, "longer ✓")), "\x1b[2A\r\x1b[Jlonger ✓\n");
    }
}
