//! What a typed line asks for.

use std::path::PathBuf;

use tidings_protocol::UserId;

/// A typed line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Nothing.
    Nothing,
    /// Text for the chat that is open.
    Say(String),
    /// A file for the chat that is open, with a text.
    Send { file: PathBuf, text: String },
    /// A file that came, by its number, into a file or a folder.
    Save { number: usize, target: Option<PathBuf> },
    /// The chats.
    List,
    /// A new group.
    Create { name: String, users: Vec<UserId> },
    /// A chat by its number, its name, or the person in it.
    Open(String),
    /// Somebody into the chat.
    Add(UserId),
    /// Somebody out of it.
    Remove(UserId),
    /// Oneself out of it.
    Leave,
    /// The user's devices.
    Clients,
    /// Who is in the chat.
    Who,
    /// Which device to remove for this one.
    Replace(String),
    /// What can be typed.
    Help,
    /// The end.
    Quit,
}

/// What `/help` says.
pub(crate) const HELP: &[&str] = &[
    "text              sends it to the chat that is open; //text sends a text that begins with /",
    "/send FILE [TEXT]  sends a file; quote a name with spaces. The same again goes on where it stopped",
    "/save N [PATH]    saves the file with the number N, here or at PATH, and replaces nothing",
    "/list             your chats, with their numbers",
    "/open WHICH       opens a chat: its number, a group's name, or a user to talk to",
    "/create NAME USER…  makes a group; quote a name of several words: /create \"Lunch club\" bob carol",
    "/who              who is in this chat",
    "/add USER         adds somebody to this group",
    "/remove USER      removes somebody from this group",
    "/leave            leaves this group",
    "/clients          your devices",
    "/help             this list",
    "/quit             ends; Ctrl-D does too",
];

/// Reads a line. The error is a sentence for whoever typed it.
pub(crate) fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Ok(Command::Nothing);
    }
    let Some(rest) = line.strip_prefix('/') else {
        return Ok(Command::Say(line.to_owned()));
    };
    if rest.starts_with('/') {
        return Ok(Command::Say(rest.to_owned()));
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    let nothing_more = |command: Command| match rest {
        "" => Ok(command),
        _ => Err(format!("/{word} takes nothing more")),
    };
    match word {
        "list" | "l" => nothing_more(Command::List),
        "leave" => nothing_more(Command::Leave),
        "clients" => nothing_more(Command::Clients),
        "who" | "w" => nothing_more(Command::Who),
        "help" | "h" | "?" => nothing_more(Command::Help),
        "quit" | "q" | "exit" => nothing_more(Command::Quit),
        "send" => {
            let (file, text) = first(rest)?;
            match file.as_str() {
                "" => Err("as in: /send cat.png, or: /send \"my cat.png\" look at her".to_owned()),
                _ => Ok(Command::Send {
                    file: path(&file),
                    text,
                }),
            }
        }
        "save" => {
            let as_in = "as in: /save 1, or: /save 1 cat.png";
            let (number, target) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            let number = number.parse().map_err(|_| as_in.to_owned())?;
            let target = match target.trim() {
                "" => None,
                target => Some(path(&one(as_in, target)?)),
            };
            Ok(Command::Save { number, target })
        }
        "open" | "o" => one("/open 2, /open bob or /open Lunch", rest).map(Command::Open),
        "replace" => one("/replace 1", rest).map(Command::Replace),
        "add" => Ok(Command::Add(user(&one("/add dave", rest)?)?)),
        "remove" => Ok(Command::Remove(user(&one("/remove dave", rest)?)?)),
        "create" => {
            let mut words = words(rest)?.into_iter();
            let name = words.next().filter(|name| !name.is_empty());
            let name = name.ok_or("as in: /create Lunch bob carol")?;
            let users: Vec<UserId> = words.map(|word| user(&word)).collect::<Result<_, _>>()?;
            if users.is_empty() {
                return Err("who else is in it? As in: /create Lunch bob carol".to_owned());
            }
            Ok(Command::Create { name, users })
        }
        _ => Err(format!("there is no /{word}; /help shows what there is")),
    }
}

/// The whole rest, with or without quotes: names may have several words.
fn one(example: &str, rest: &str) -> Result<String, String> {
    let unquoted = rest
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(rest);
    match unquoted {
        "" => Err(format!("as in: {example}")),
        word => Ok(word.to_owned()),
    }
}

fn user(word: &str) -> Result<UserId, String> {
    UserId::new(word).map_err(|error| format!("{word:?}: {error}"))
}

/// Words, with double quotes around those that have spaces.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start().to_owned();
    while !rest.is_empty() {
        let word;
        (word, rest) = first(&rest)?;
        words.push(word);
    }
    Ok(words)
}

/// The first word, with or without quotes, and what follows it.
fn first(text: &str) -> Result<(String, String), String> {
    let (word, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or("a quote is not closed")?,
        None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
    };
    Ok((word.to_owned(), rest.trim_start().to_owned()))
}

/// No shell stands between the person and us.
fn path(text: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    match text.strip_prefix("~/").zip(home()) {
        Some((rest, home)) => home.join(rest),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bob() -> UserId {
        UserId::new("bob").expect("printable")
    }

    #[test]
    fn text_is_text() {
        assert_eq!(parse("hi there\n"), Ok(Command::Say("hi there".to_owned())));
        assert_eq!(parse("//etc"), Ok(Command::Say("/etc".to_owned())));
        assert_eq!(parse("  \n"), Ok(Command::Nothing));
    }

    #[test]
    fn commands_have_their_words() {
        assert_eq!(parse("/list"), Ok(Command::List));
        assert_eq!(
            parse("/open Lunch club"),
            Ok(Command::Open("Lunch club".to_owned()))
        );
        assert_eq!(
            parse("/open \"Lunch club\""),
            Ok(Command::Open("Lunch club".to_owned()))
        );
        assert_eq!(parse("/add bob "), Ok(Command::Add(bob())));
        let create = Command::Create {
            name: "Lunch club".to_owned(),
            users: vec![bob(), UserId::new("carol").expect("printable")],
        };
        assert_eq!(parse("/create \"Lunch club\" bob carol"), Ok(create));
        assert_eq!(parse("/quit"), Ok(Command::Quit));
    }

    #[test]
    fn files_are_sent_and_saved() {
        let send = |file: &str, text: &str| {
            let (file, text) = (file.into(), text.to_owned());
            Ok(Command::Send { file, text })
        };
        assert_eq!(parse("/send cat.png"), send("cat.png", ""));
        assert_eq!(parse("/send cat.png look at her"), send("cat.png", "look at her"));
        assert_eq!(parse("/send \"my cat.png\"  look"), send("my cat.png", "look"));
        let save = |number, target: Option<&str>| {
            let target = target.map(PathBuf::from);
            Ok(Command::Save { number, target })
        };
        assert_eq!(parse("/save 3"), save(3, None));
        assert_eq!(parse("/save 3 /tmp/a b.png"), save(3, Some("/tmp/a b.png")));
        assert_eq!(parse("/save 3 \"a b\""), save(3, Some("a b")));
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, word) in [
            ("/dance", "no /dance"),
            ("/open", "as in"),
            ("/create Lunch", "who else"),
            ("/create \"Lunch bob", "quote"),
            ("/add zoë", "printable"),
            ("/list all", "nothing more"),
            ("/send", "as in"),
            ("/send \"cat", "quote"),
            ("/save", "as in"),
            ("/save cat", "as in"),
            ("/save -1", "as in"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
