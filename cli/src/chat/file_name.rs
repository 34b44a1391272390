//! Names of files that others chose: made harmless, and never those of files that are there.

use std::path::{Path, PathBuf};

/// Bytes of a name, of the 255 that file systems take; room for what is put before or behind it.
const NAME_BYTES_MAX: usize = 180;
/// Characters of the name of an attachment, as the protocol has it.
const SENT_CHARS_MAX: usize = 100;

/// What a name from elsewhere may be called here: one component, shown as it is, not hidden. None if nothing is
/// left of it.
pub(crate) fn harmless(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last.chars().filter(|character| !steers(*character)).collect();
    let kept = kept.trim().trim_start_matches('.').trim_start();
    let kept = shortened(kept, |text| text.len() <= NAME_BYTES_MAX);
    (!kept.is_empty()).then_some(kept)
}

/// What a file of ours is called for others.
pub(crate) fn sent(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let kept: String = name.chars().filter(|character| !character.is_control()).collect();
    let kept = shortened(&kept, |text| text.chars().count() <= SENT_CHARS_MAX);
    (!kept.is_empty()).then_some(kept)
}

/// A path in `folder` that nothing has yet: `cat.png`, else `cat-2.png` and so on.
pub(crate) fn free(folder: &Path, name: &str) -> PathBuf {
    let (stem, ending) = split(name);
    let mut number = 1;
    loop {
        let name = match number {
            1 => name.to_owned(),
            number => format!("{stem}-{number}{ending}"),
        };
        let path = folder.join(name);
        // Also a link that leads nowhere is there.
        if std::fs::symlink_metadata(&path).is_err() {
            return path;
        }
        number += 1;
    }
}

/// What ends a line, turns the direction of writing, hides, or means something to a terminal.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Before the last dot and from it on, if that is a short ending.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 16 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// As much of the stem as fits, with the ending.
fn shortened(name: &str, fits: impl Fn(&str) -> bool) -> String {
    let (stem, ending) = split(name);
    let mut stem = stem.to_owned();
    loop {
        let whole = format!("{stem}{ending}");
        if fits(&whole) || stem.pop().is_none() {
            return whole;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_lead_nowhere() {
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(harmless(name).as_deref(), expected, "{name:?}");
        check("cat.png", Some("cat.png"));
        check("../../etc/passwd", Some("passwd"));
        check("/etc/passwd", Some("passwd"));
        check("C:\\Windows\\x.exe", Some("x.exe"));
        check(".bashrc", Some("bashrc"));
        check("..", None);
        check("a/..", None);
        check("", None);
        check("\n\u{1b}[2J", Some("[2J"));
        check("gpj\u{202e}.exe", Some("gpj.exe"));
        check("zoë 漢字.txt", Some("zoë 漢字.txt"));
        let long = format!("{}.png", "ë".repeat(300));
        let short = harmless(&long).expect("something is left");
        assert!(
            short.len() <= NAME_BYTES_MAX && short.ends_with("ë.png"),
            "{short}"
        );
    }

    #[test]
    fn names_for_others_fit() {
        assert_eq!(sent(Path::new("/home/alice/cat.png")).as_deref(), Some("cat.png"));
        let long = PathBuf::from(format!("{}.tar.gz", "x".repeat(200)));
        let name = sent(&long).expect("a name");
        assert_eq!(name.chars().count(), SENT_CHARS_MAX);
    }

    #[test]
    fn nothing_is_taken_twice() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = |taken: &str| {
            let path = free(folder.path(), taken);
            std::fs::write(&path, "").expect("written");
            path.file_name().expect("a name").to_string_lossy().into_owned()
        };
        assert_eq!(
            [name("cat.png"), name("cat.png"), name("cat.png")],
            ["cat.png", "cat-2.png", "cat-3.png"]
        );
        std::os::unix::fs::symlink("/nowhere", folder.path().join("dog")).expect("linked");
        assert_eq!(name("dog"), "dog-2");
    }
}
