//! What people say: mostly a few words, now and then many, of which can be told whether all of them came.

/// How often somebody says much: enough to meet every fault, and few enough that the others are not slowed.
const MANY_EVERY: u64 = 8;
/// Lines of who says much; one has 16 bytes. So that bodies are on both sides of what fan-out workers store once.
const LINES: std::ops::Range<u64> = 150..2_500;

/// The words of a message, by its number.
pub(super) fn words(number: u64) -> String {
    if number % MANY_EVERY != MANY_EVERY - 1 {
        return format!("words {number}");
    }
    let lines = LINES.start + number * 977 % (LINES.end - LINES.start);
    let line = format!("words {lines:05}/{:03}\n", number % 1_000);
    line.repeat(lines as usize)
}

/// Whether nothing is missing from words.
pub(super) fn are_whole(text: &str) -> bool {
    let Some((line, _)) = text.split_once('\n') else {
        return true;
    };
    let lines = line.get(6..11).and_then(|lines| lines.parse::<usize>().ok());
    lines.is_some_and(|lines| {
        text.len() == lines * (line.len() + 1) && text.lines().all(|other| other == line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_when_words_are_missing() {
        for number in 0..2_000 {
            let words = words(number);
            assert!(are_whole(&words), "{number}");
            assert!(words.len() < 65_536, "{number}");
            if words.len() > 100 {
                assert!(!are_whole(&words[..words.len() - 16]) && !are_whole(&words[1..]));
                assert!(!are_whole(&words.replacen('/', ":", 1)));
            }
        }
        assert!(are_whole("the last words"));
    }
}
