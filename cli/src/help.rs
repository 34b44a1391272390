//! `tidings --help`: the subcommands by what they are for. Clap has one list for all of them.

use std::fmt::Write as _;

use clap::Command;

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
            "gateway",
            "fanout-worker",
            "inbox-worker",
            "media",
            "health",
        ],
    ),
];

/// The command with its help by groups.
pub(crate) fn grouped(command: Command) -> Command {
    let styles = command.get_styles().clone();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let width = names(&command).map(str::len).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, names) in GROUPS {
        writeln!(text, "{header}{heading}:{header:#}").expect("a String takes everything");
        for name in names {
            let Some(about) = command.find_subcommand(name).and_then(Command::get_about) else {
                continue;
            };
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
    fn the_help_says_what_each_is_for() {
        let help = grouped(Cli::command()).render_help().to_string();
        for line in ["Look inside:", "  where ", "Options:", "  -h, --help"] {
            assert!(help.contains(line), "{help}");
        }
        assert!(!help.contains("{about") && !help.contains("{usage"), "{help}");
    }
}
