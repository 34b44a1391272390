//! A terminal that is drawn on, and given back as it was.

use std::io::{Stdout, Write as _, stdout};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use tokio::sync::mpsc;
use unicode_width::UnicodeWidthChar as _;

/// How long the thread that listens to keys sleeps at most, and how long it may outlive the screen.
const POLL: Duration = Duration::from_millis(100);
/// Keys that wait; somebody who holds one down is not listened to longer.
const KEYS_MAX: usize = 16;
/// Where a terminal does not say its size.
const SIZE: (u16, u16) = (80, 24);

/// What somebody did.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Has seen enough: q, Escape, Ctrl-C, or the terminal is gone.
    Quit,
    /// Made the window another size.
    Resize,
}

/// The terminal. Dropped, it is as it was.
pub(super) struct Screen {
    out: Stdout,
    keys: mpsc::Receiver<Key>,
}

impl Screen {
    pub(super) fn open() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        let mut screen = Self { out: stdout(), keys };
        execute!(screen.out, EnterAlternateScreen, cursor::Hide)?;
        std::thread::spawn(move || listen(&sender));
        Ok(screen)
    }

    /// The next thing that somebody did.
    pub(super) async fn key(&mut self) -> Key {
        self.keys.recv().await.unwrap_or(Key::Quit)
    }

    /// How many lines there are.
    #[expect(clippy::unused_self, reason = "only an open screen has a size that matters")]
    pub(super) fn height(&self) -> usize {
        usize::from(terminal::size().unwrap_or(SIZE).1)
    }

    /// Draws a text, as much of it as there is room for.
    pub(super) fn draw(&mut self, text: &str) -> std::io::Result<()> {
        let (columns, lines) = terminal::size().unwrap_or(SIZE);
        queue!(self.out, cursor::MoveTo(0, 0))?;
        // The last line stays empty: the cursor is there.
        for line in text.lines().take(usize::from(lines).saturating_sub(1)) {
            let line = cut(line, usize::from(columns));
            queue!(
                self.out,
                Print(line),
                Clear(ClearType::UntilNewLine),
                Print("\r\n")
            )?;
        }
        queue!(self.out, Clear(ClearType::FromCursorDown))?;
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(self.out, cursor::Show, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

/// Hears keys until nobody wants them. Reading them waits, hence the thread.
fn listen(keys: &mpsc::Sender<Key>) {
    while !keys.is_closed() {
        let key = match event::poll(POLL) {
            Ok(false) => continue,
            Ok(true) => event::read().map_or(Some(Key::Quit), |event| meaning(&event)),
            Err(_) => Some(Key::Quit),
        };
        if let Some(key) = key {
            // One that does not fit is one too many.
            let _ = keys.try_send(key);
        }
        if key == Some(Key::Quit) {
            return;
        }
    }
}

fn meaning(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Resize),
        Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press,
            ..
        }) => match code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Key::Quit),
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Quit),
            _ => None,
        },
        _ => None,
    }
}

/// The beginning of a line, so much of it as fits.
fn cut(line: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, letter) in line.char_indices() {
        width += letter.width().unwrap_or(0);
        if width > columns {
            return &line[..at];
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_the_screen_ends() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("你好", 3), "你");
    }

    #[test]
    fn keys_mean_little() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meaning(&Event::Resize(1, 1)), Some(Key::Resize));
    }
}
