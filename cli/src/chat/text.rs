//! Words from the network on a terminal: whatever could steer the terminal is taken out.

use tidings_protocol::Timestamp;
use time::UtcOffset;
use unicode_width::UnicodeWidthStr as _;

/// Columns of a line that mentions another chat.
const BRIEF_CHARS: usize = 48;

/// The text without control characters, and without those that turn the direction of writing. Lines after
/// the first are indented, so that nobody can fake a line of somebody else.
pub(crate) fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for character in text.trim_end_matches(['\r', '\n']).chars() {
        match character {
            '\n' => cleaned.push_str("\n    "),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {}
            // U+2028 and U+2029 end a line for some terminals.
            '\t' | '\u{2028}' | '\u{2029}' => cleaned.push(' '),
            character if character.is_control() => {}
            character => cleaned.push(character),
        }
    }
    cleaned
}

/// The beginning of a text, on one line.
pub(crate) fn brief(text: &str) -> String {
    let line = clean(text).replace("\n    ", " ");
    match line.char_indices().nth(BRIEF_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

/// How many rows of a terminal a line takes; the empty line takes one.
pub(crate) fn rows(text: &str, columns: usize) -> usize {
    let columns = columns.max(1);
    text.split('\n')
        .map(|line| line.width().div_ceil(columns).max(1))
        .sum()
}

/// The time of day where the user is; the date too if it was not within the last 12 hours.
pub(crate) fn time_of_day(at: Timestamp, now: Timestamp, offset: UtcOffset) -> String {
    let moment = at.to_datetime().to_offset(offset);
    let clock = format!("{:02}:{:02}", moment.hour(), moment.minute());
    if (now.0 - at.0).abs() < 12 * 60 * 60 * 1_000 {
        return clock;
    }
    format!(
        "{}-{:02}-{:02} {clock}",
        moment.year(),
        u8::from(moment.month()),
        moment.day()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_message_steers_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\u{7}\u{9b}31mc"), "a[2Jb31mc");
        assert_eq!(clean("left\u{202e}thgir"), "leftthgir");
        assert_eq!(clean("tab\there\r\n"), "tab here");
        assert_eq!(clean("zoë 漢字 👋🏽"), "zoë 漢字 👋🏽");
    }

    #[test]
    fn a_second_line_cannot_pass_for_another_message() {
        assert_eq!(clean("hi\n12:00 bob: I agree"), "hi\n    12:00 bob: I agree");
        assert_eq!(brief("hi\nthere"), "hi there");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(brief(&"ë".repeat(48)), "ë".repeat(48));
        assert_eq!(brief(&"ë".repeat(49)), format!("{}…", "ë".repeat(48)));
    }

    #[test]
    fn rows_are_counted_by_width() {
        assert_eq!(rows("", 80), 1);
        assert_eq!(rows(&"x".repeat(80), 80), 1);
        assert_eq!(rows(&"x".repeat(81), 80), 2);
        assert_eq!(rows(&"漢".repeat(41), 80), 2);
        assert_eq!(rows("a\nb", 80), 2);
    }

    #[test]
    fn old_times_have_a_date() {
        let now = Timestamp(1_764_072_000_000); // 2025-11-25T12:00:00Z
        let hour = 60 * 60 * 1_000;
        let show = |hours: i64| time_of_day(Timestamp(now.0 - hours * hour), now, UtcOffset::UTC);
        assert_eq!(show(1), "11:00");
        assert_eq!(show(12), "2025-11-25 00:00");
    }
}
