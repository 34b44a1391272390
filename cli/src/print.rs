//! Results on standard output: JSON for programs; tables, ages and sizes for people.

use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

/// Prints a result as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("the result cannot be written as JSON")?;
    self::text(&(text + "\n"))
}

/// Prints a result. A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Lines of columns, as wide as their widest cell. A column whose title begins with `>` is aligned to the right.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let title = |column: usize| titles[column].trim_start_matches('>');
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].width());
            cells.chain([title(column).width()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &dyn Fn(usize) -> String| {
        let cells = widths.iter().enumerate().map(|(column, width)| {
            let cell = cells(column);
            let padding = " ".repeat(width - cell.width());
            if titles[column].starts_with('>') {
                padding + &cell
            } else {
                cell + &padding
            }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&|column| title(column).to_owned());
    for row in rows {
        text += &line(&|column| row[column].clone());
    }
    text
}

/// What people called something, safe for a terminal.
pub(crate) fn name(name: Option<&str>) -> String {
    name.map_or_else(|| "-".to_owned(), |name| name.replace(char::is_control, "?"))
}

/// An age in its two largest units, as the `nats` command writes it: `9s`, `3m9s`, `2h5m`, `4d3h`.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// An error and its causes in one sentence. Many say their cause themselves; it is not said twice.
pub(crate) fn error(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// `1 entry`, `2 entries`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [("a", "10"), ("zoë 你好", "9")].map(|(a, b)| vec![a.to_owned(), b.to_owned()]);
        assert_eq!(
            table(&["NAME", ">BYTES"], &rows),
            "NAME      BYTES\na            10\nzoë 你好      9\n"
        );
        assert_eq!(table(&["NAME", "BYTES"], &[]), "NAME  BYTES\n");
    }

    #[test]
    fn ages_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (189, "3m9s"),
            (7_500, "2h5m"),
            (356_400, "4d3h"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = anyhow::anyhow!("refused").context("no connection: refused");
        assert_eq!(
            error(&cause.context("Postgres at db")),
            "Postgres at db: no connection: refused"
        );
    }

    #[test]
    fn names_do_not_reach_the_terminal_as_commands() {
        assert_eq!(name(Some("a\u{1b}[2Jb")), "a?[2Jb");
        assert_eq!(name(None), "-");
    }
}
