//! `tidings --help`: the subcommands by what they are for. Clap has one list for all of them.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use clap::Command;
use unicode_width::UnicodeWidthStr as _;

/// Headings, and the subcommands under each in the order in which somebody meets them.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Try it on this machine", &["up", "chat", "token", "bench"]),
    (
        "Look inside",
        &[
            "top",
            "where",
            "clients",
            "inbox",
            "chat-info",
            "explain",
            "decode",
        ],
    ),
    (
        "Put right",
        &["kick", "remove", "suspend", "resume", "dead-letters"],
    ),
    (
        "Run it",
        &[
            "setup",
            "nats-users",
            "gateway",
            "fanout-worker",
            "inbox-worker",
            "media",
            "health",
        ],
    ),
];

/// Longer lines are hard to read; where there is no terminal, they are as long.
const COLUMNS_MAX: usize = 110;
/// What is left for words beside the names on the narrowest terminal.
const WORDS_MIN: usize = 20;

/// The command with its help by groups.
pub(crate) fn grouped(command: Command) -> Command {
    let styles = command.get_styles().clone();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let columns = columns();
    let width = names(&command).map(str::len).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in GROUPS {
        writeln!(text, "{header}{heading}:{header:#}").expect("a String takes everything");
        for name in names {
            let Some(about) = command.find_subcommand(name).and_then(Command::get_about) else {
                continue;
            };
            let about = wrapped(&about.to_string(), columns.saturating_sub(width + 4));
            let about = about.join(&format!("\n{:1$}", "", width + 4));
            writeln!(text, "  {literal}{name:width$}{literal:#}  {about}")
                .expect("a String takes everything");
        }
        text.push('\n');
    }
    let usage = styles.get_usage();
    command.help_template(format!(
        "{{about-with-newline}}\n{usage}Usage:{usage:#} {{usage}}\n\n{text}{header}Options:{header:#}\n{{options}}\n"
    ))
}

/// How wide the help may be. Asked only of a terminal: elsewhere the library would start a program to find out.
fn columns() -> usize {
    let terminal = std::io::stdout().is_terminal();
    let size = terminal.then(crossterm::terminal::size).and_then(Result::ok);
    size.map_or(COLUMNS_MAX, |(columns, _)| usize::from(columns).min(COLUMNS_MAX))
}

/// A sentence in lines of so many columns.
fn wrapped(sentence: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(WORDS_MIN);
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The subcommands, clap's own `help` aside.
fn names(command: &Command) -> impl Iterator<Item = &str> {
    command.get_subcommands().map(Command::get_name)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Cli;

    #[test]
    fn every_subcommand_is_in_one_group() {
        let command = Cli::command();
        for name in names(&command) {
            let groups = GROUPS.iter().filter(|(_, names)| names.contains(&name));
            assert_eq!(groups.count(), 1, "{name}: add it to GROUPS");
        }
    }

    #[test]
    fn sentences_are_wrapped_between_words() {
        assert_eq!(
            wrapped("a sentence of several words", 20),
            ["a sentence of", "several words"]
        );
        assert_eq!(wrapped("a sentence", 1), ["a sentence"]);
        assert_eq!(
            wrapped("an-extraordinarily-long-word x", 20),
            ["an-extraordinarily-long-word", "x"]
        );
    }

    #[test]
    fn the_help_says_what_each_is_for() {
        let help = grouped(Cli::command()).render_help().to_string();
        for line in ["Look inside:", "  where ", "Options:", "  -h, --help"] {
            assert!(help.contains(line), "{help}");
        }
        assert!(!help.contains("{about") && !help.contains("{usage"), "{help}");
    }
}
