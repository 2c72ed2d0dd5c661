//! A line that is made to be slow to redact: from some point on nothing is looked at closely, and every long stretch
//! goes. What stays are the names of JSON members, short values, quotes and brackets.

use super::Finds;
use super::keys::Found;

/// A stretch of so many bytes may be, or hold, a secret.
const STRETCH_BYTES_MIN: usize = 8;
/// With fewer letters and digits it is a ruler or an ornament.
const WORD_BYTES_MIN: usize = 4;
/// A member's name that stays is no longer than this.
const NAME_BYTES_MAX: usize = 24;
/// How far before the point the first stretch may begin: a literal that was not read to its end.
const BACK_BYTES: usize = 40;

/// What this costs for eight bytes, in nanoseconds.
pub(super) const EIGHT_BYTES_COST: usize = 12;

/// Covers the stretches of `line` from about `at` on.
pub(super) fn rest(line: &[u8], at: usize, finds: &mut Finds) {
    let floor = at.min(line.len()).saturating_sub(BACK_BYTES);
    let mut from =
        line[..floor].iter().rev().take(BACK_BYTES).position(|byte| ends(*byte)).map_or(floor, |n| floor - n);
    let (first, mut letters, mut stretches) = (from, 0, Vec::new());
    for at in first..=line.len() {
        let kind = line.get(at).map_or(END, |byte| KINDS[usize::from(*byte)]);
        if kind != END {
            letters += usize::from(kind);
            continue;
        }
        let length = at - from;
        if length >= STRETCH_BYTES_MIN && letters >= WORD_BYTES_MIN && !member(line, from, length) {
            stretches.push(Found::from(from..at));
        }
        (from, letters) = (at + 1, 0);
    }
    merge(&mut finds.ranges, stretches);
    finds.key_open |= key_open(&line[floor..]);
}

/// Takes the stretches, which are in order, among what was found before; in linear time but for the few finds.
fn merge(found: &mut Vec<Found>, stretches: Vec<Found>) {
    found.sort_unstable_by_key(Found::place);
    let mut merged = Vec::with_capacity(found.len() + stretches.len());
    let mut before = found.drain(..).peekable();
    for stretch in stretches {
        while let Some(earlier) = before.next_if(|earlier| earlier.place() <= stretch.place()) {
            merged.push(earlier);
        }
        merged.push(stretch);
    }
    merged.extend(before);
    *found = merged;
}

/// A private key begins and does not end.
fn key_open(rest: &[u8]) -> bool {
    memchr::memmem::find(rest, b"PRIVATE KEY").is_some()
        && memchr::memmem::rfind(rest, b"PRIVATE KEY") > memchr::memmem::rfind(rest, b"-----END")
}

const fn ends(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

/// 1 for a letter or a digit, [`END`] for what ends a stretch.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let of = byte as u8;
        kinds[byte] = if ends(of) { END } else { of.is_ascii_alphanumeric() as u8 };
        byte += 1;
    }
    kinds
};
const END: u8 = 2;

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
