//! Lines in: with an editor from a terminal, plainly from a pipe. A line is read when it is asked for.

use std::io::{BufRead as _, IsTerminal as _, stdin};
use std::sync::{Arc, mpsc as std_mpsc};

use anyhow::Context as _;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc;

use crate::chat::screen::{Terminal, Typed};

/// The longest line: a message and the word before it.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Where lines come from.
pub(crate) struct Input {
    prompts: std_mpsc::Sender<String>,
    lines: mpsc::Receiver<Entered>,
    asked: bool,
}

/// What was entered.
pub(crate) enum Entered {
    /// A line, and where it stands on the terminal.
    Line(String, Option<Typed>),
    /// There is no more.
    End,
}

impl Input {
    /// Starts reading. With a terminal there comes a printer that does not disturb the typing.
    pub(crate) fn new(
        terminal: Arc<Terminal>,
    ) -> anyhow::Result<(Self, Option<Box<dyn ExternalPrinter + Send>>)> {
        let (prompts, asked) = std_mpsc::channel();
        let (entered, lines) = mpsc::channel(1);
        let input = Self {
            prompts,
            lines,
            asked: false,
        };
        if !terminal.is_there() {
            std::thread::spawn(move || read_plain(&asked, &entered));
            return Ok((input, None));
        }
        let config = Config::builder().auto_add_history(true).build();
        let mut editor = DefaultEditor::with_config(config).context("cannot use the terminal")?;
        let printer = editor
            .create_external_printer()
            .context("cannot use the terminal")?;
        if let Some((columns, _)) = editor.dimensions() {
            terminal.set_columns(columns.into());
        }
        std::thread::spawn(move || read_terminal(&mut editor, &terminal, &asked, &entered));
        Ok((input, Some(Box::new(printer))))
    }

    /// Whether a person sits there, as far as standard input can tell.
    pub(crate) fn is_terminal() -> bool {
        stdin().is_terminal()
    }

    /// The next line, after a prompt. Nothing is lost when the future is dropped: the line is then what the
    /// next call returns.
    pub(crate) async fn next(&mut self, prompt: impl FnOnce() -> String) -> Entered {
        if !self.asked {
            self.asked = true;
            // The thread ends only at the end of the lines.
            self.prompts.send(prompt()).ok();
        }
        let entered = self.lines.recv().await.unwrap_or(Entered::End);
        self.asked = false;
        entered
    }
}

fn read_plain(asked: &std_mpsc::Receiver<String>, entered: &mpsc::Sender<Entered>) {
    let mut stdin = stdin().lock();
    for _prompt in asked {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut stdin, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
        let end = !matches!(read, Ok(1..));
        let next = if end {
            Entered::End
        } else {
            Entered::Line(String::from_utf8_lossy(&line).into_owned(), None)
        };
        if entered.blocking_send(next).is_err() || end {
            return;
        }
    }
}

fn read_terminal(
    editor: &mut DefaultEditor,
    terminal: &Terminal,
    asked: &std_mpsc::Receiver<String>,
    entered: &mpsc::Sender<Entered>,
) {
    for prompt in asked {
        let read = editor.readline(&prompt);
        if let Some((columns, _)) = editor.dimensions() {
            terminal.set_columns(columns.into());
        }
        let (next, end) = match read {
            Ok(line) => {
                let typed = terminal.typed(&prompt, &line);
                (Entered::Line(line, typed), false)
            }
            // A resized window interrupts the reading.
            Err(ReadlineError::Signal(_)) => (Entered::Line(String::new(), None), false),
            Err(_) => (Entered::End, true),
        };
        if entered.blocking_send(next).is_err() || end {
            return;
        }
    }
}
