//! A line that is made to be slow to redact: from some point on nothing is looked at closely, and every long stretch
//! goes. What stays are the names of JSON members, short values, quotes and brackets.

use super::Finds;

/// A stretch of so many bytes may be, or hold, a secret.
const STRETCH_BYTES_MIN: usize = 8;
/// With fewer letters and digits it is a ruler or an ornament.
const WORD_BYTES_MIN: usize = 4;
/// A member's name that stays is no longer than this.
const NAME_BYTES_MAX: usize = 24;
/// How far before the point the first stretch may begin: a literal that was not read to its end.
const BACK_BYTES: usize = 40;

/// What this costs for eight bytes, in nanoseconds.
pub(super) const EIGHT_BYTES_COST: usize = 10;

/// Covers the stretches of `line` from about `at` on.
pub(super) fn rest(line: &[u8], at: usize, finds: &mut Finds) {
    let floor = character_begins(line, at.min(line.len()).saturating_sub(BACK_BYTES));
    let before = line[..floor].iter().rev().take(BACK_BYTES).position(|byte| ENDS[usize::from(*byte)]);
    let mut from = before.map_or(floor, |count| floor - count);
    finds.stretches.reserve((line.len() - from) / (STRETCH_BYTES_MIN + 1) + 1);
    while from < line.len() {
        let length = line[from..].iter().position(|byte| ENDS[usize::from(*byte)]).unwrap_or(line.len() - from);
        if length >= STRETCH_BYTES_MIN && wordy(&line[from..from + length]) && !member(line, from, length) {
            finds.stretches.push((from as u32, (from + length) as u32));
        }
        from += length + 1;
    }
    finds.key_open |= key_open(&line[floor..]);
}

/// Where the character begins that `at` is in: half of one would make the line no UTF-8.
fn character_begins(line: &[u8], at: usize) -> usize {
    let inside = line[at..].first().is_some_and(|byte| byte & 0xc0 == 0x80);
    let before = line[..at].iter().rev().take(3).position(|byte| byte & 0xc0 != 0x80);
    before.filter(|_| inside).map_or(at, |steps| at - steps - 1)
}

/// Letters and digits enough.
fn wordy(stretch: &[u8]) -> bool {
    stretch.iter().filter(|byte| byte.is_ascii_alphanumeric()).take(WORD_BYTES_MIN).count() == WORD_BYTES_MIN
}

/// A private key begins and does not end.
fn key_open(rest: &[u8]) -> bool {
    memchr::memmem::find(rest, b"PRIVATE KEY").is_some()
        && memchr::memmem::rfind(rest, b"PRIVATE KEY") > memchr::memmem::rfind(rest, b"-----END")
}

/// What ends a stretch.
const ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut mark = 0;
    while mark < MARKS.len() {
        ends[MARKS[mark] as usize] = true;
        mark += 1;
    }
    ends
};
const MARKS: &[u8; 5] = b"\"{}[]";

/// `"duration_ms":`, and a number between members: `:12.5,`.
fn member(line: &[u8], from: usize, length: usize) -> bool {
    let inside = &line[from..from + length];
    let before = from.checked_sub(1).map(|at| line[at]);
    let name = length <= NAME_BYTES_MAX
        && before == Some(b'"')
        && line[from + length..].starts_with(b"\":")
        && inside.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_');
    let number = before == Some(b'"')
        && inside.starts_with(b":")
        && length <= NAME_BYTES_MAX
        && inside[1..].iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b',' | b' '));
    name || number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_begins_with_a_character() {
        let line = "a\u{200b}=0123456789abcdef".repeat(20);
        for at in 0..line.len() {
            let mut finds = Finds::default();
            rest(line.as_bytes(), at, &mut finds);
            assert!(finds.stretches.iter().all(|(from, to)| line.get(*from as usize..*to as usize).is_some()), "{at}");
            assert!(at < BACK_BYTES || !finds.stretches.is_empty());
        }
    }
}
