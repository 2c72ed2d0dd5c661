//! Small questions about bytes of a line, each charged to the line's account.

use std::cell::Cell;
use std::ops::Deref;

/// A line, and how much was looked at of it: many looks at the same bytes must not add up to more than the line is
/// worth.
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    /// Bytes looked at so far, about a nanosecond each.
    spent: Cell<usize>,
}

impl<'a> Text<'a> {
    /// A text of which so much was spent already.
    pub(super) fn new(bytes: &'a [u8], spent: usize) -> Text<'a> {
        Text { bytes, spent: Cell::new(spent) }
    }

    /// The text itself, for as long as it lives.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn spend(&self, bytes: usize) {
        self.spent.set(self.spent.get() + bytes);
    }

    pub(super) fn spent(&self) -> usize {
        self.spent.get()
    }
}

impl Deref for Text<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// Bytes that memchr walks over in the time that others take for one.
const SWIFT: usize = 16;

/// A letter or a digit.
pub(super) fn alnum(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// What a name in a program may hold.
pub(super) fn ident(byte: u8) -> bool {
    alnum(byte) || byte == b'_' || byte == b'-'
}

/// The alphabet of base64url, and of most tokens.
pub(super) fn url_safe(byte: u8) -> bool {
    ident(byte)
}

/// Base64 of both kinds.
pub(super) fn base64(byte: u8) -> bool {
    ident(byte) || matches!(byte, b'+' | b'/' | b'=')
}

/// What a value after `Bearer` may hold (RFC 6750 `b64token`), and a few that are seen.
pub(super) fn credential(byte: u8) -> bool {
    base64(byte) || matches!(byte, b'.' | b'~' | b':' | b'|' | b'%')
}

/// A quote of JSON, of a program or of a shell.
pub(super) fn quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}

/// The end of the run of bytes that begins at `from` and for which `member` holds.
pub(super) fn run(text: &Text<'_>, from: usize, member: impl Fn(u8) -> bool) -> usize {
    short_run(text, from, text.len(), member)
}

/// [`run`] that looks at `length_max` bytes at most.
pub(super) fn short_run(text: &Text<'_>, from: usize, length_max: usize, member: impl Fn(u8) -> bool) -> usize {
    let all = text.get(from..text.len().min(from.saturating_add(length_max))).unwrap_or_default();
    let length = all.iter().position(|byte| !member(*byte)).unwrap_or(all.len());
    text.spend(length);
    from + length
}

/// The first of `byte` in `from..to`.
pub(super) fn find(text: &Text<'_>, byte: u8, from: usize, to: usize) -> Option<usize> {
    let found = text.get(from..to).and_then(|part| memchr::memchr(byte, part)).map(|at| from + at);
    text.spend(found.unwrap_or(to).saturating_sub(from) / SWIFT);
    found
}

/// The first of `word` in `from..to`.
pub(super) fn find_word(text: &Text<'_>, word: &[u8], from: usize, to: usize) -> Option<usize> {
    let found = text.get(from..to).and_then(|part| memchr::memmem::find(part, word)).map(|at| from + at);
    text.spend(8 + found.unwrap_or(to).saturating_sub(from) / SWIFT);
    found
}

/// The last of `word` that ends in `from..to`.
pub(super) fn rfind_word(text: &Text<'_>, word: &[u8], from: usize, to: usize) -> Option<usize> {
    let part = text.get(from..to)?;
    let mut end = part.len();
    loop {
        let at = memchr::memrchr(word[0], &part[..end]);
        text.spend(8 + (end - at.unwrap_or(0)) / SWIFT);
        end = at?;
        if part[end..].starts_with(word) {
            return Some(from + end);
        }
    }
}

/// True where a word may begin: at the start, after anything but a letter or digit, after an escape.
pub(super) fn word_begins(text: &[u8], at: usize) -> bool {
    let Some(last) = at.checked_sub(1) else { return true };
    if !alnum(text[last]) {
        return true;
    }
    let escaped = matches!(text[last], b'n' | b'r' | b't' | b'f' | b'b') && at >= 2 && text[at - 2] == b'\\';
    let percent = at >= 3 && text[at - 3] == b'%' && text[at - 2..at].iter().all(u8::is_ascii_hexdigit);
    escaped || percent || (at >= 6 && text[at - 6..].starts_with(b"\\u00")) || coloured(text, last)
}

/// True for the `m` at `last` that ends a terminal's colour: `\x1b[31m`, or with the escape as a log shows it.
fn coloured(text: &[u8], last: usize) -> bool {
    if text[last] != b'm' {
        return false;
    }
    let parameters = text[..last].iter().rev().take(COLOUR_BYTES_MAX);
    let length = parameters.take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    text[..last - length].ends_with(b"[")
}

/// Parameters of a colour, in red, green and blue at most.
const COLOUR_BYTES_MAX: usize = 20;

/// True where a part of a name may begin: `DB_PASS`, `dbPass`, not `bypass`.
pub(super) fn part_begins(text: &[u8], at: usize) -> bool {
    word_begins(text, at) || (text[at].is_ascii_uppercase() && text[at - 1].is_ascii_lowercase())
}

/// Counters of eight bits in one word: a look at a byte is a sum and no branch.
const LANE: u32 = 8;
const DIGIT: u64 = 1;
const LOWER: u64 = 1 << LANE;
const UPPER: u64 = 1 << (2 * LANE);
const SYMBOL: u64 = 1 << (3 * LANE);
/// From the lane of capitals to that of capitals within words.
const INNER: u32 = 2 * LANE;

const KINDS: [u64; 256] = {
    let mut kinds = [SYMBOL; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' => LOWER,
            b'A'..=b'Z' => UPPER,
            b'_' | b'-' | b'.' => 0,
            _ => SYMBOL,
        };
        byte += 1;
    }
    kinds
};

/// What kinds of characters a word has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mix {
    pub(super) digits: usize,
    pub(super) lower: usize,
    /// Capitals, but for the first letter of a word.
    pub(super) inner_upper: usize,
    pub(super) upper: usize,
    /// Anything but letters, digits, `_`, `-`, `.`.
    pub(super) symbols: usize,
}

impl Mix {
    /// Looks at the first 32 bytes: random text shows by then.
    pub(super) fn of(word: &[u8]) -> Mix {
        let (mut counts, mut before) = (0u64, 0);
        for byte in word.iter().take(32) {
            let kind = KINDS[*byte as usize];
            counts += kind + ((kind & before) << INNER);
            // A capital behind a letter or digit is one within a word.
            before = (kind << (2 * LANE) | kind << LANE | kind) & UPPER;
        }
        let lane = |at: u32| (counts >> (at * LANE) & 0xff) as usize;
        Mix { digits: lane(0), lower: lane(1), upper: lane(2), symbols: lane(3), inner_upper: lane(4) }
    }

    /// Digits beside letters, or capitals within words beside small letters: what random text has and prose has not.
    pub(super) fn random(self) -> bool {
        (self.digits > 0 && self.lower + self.upper > 0) || (self.inner_upper > 1 && self.lower > 0)
    }
}

/// The end of a value that began with a quote `mark` behind `slashes` backslashes: the closing quote's first
/// backslash. Each level of JSON in JSON doubles the backslashes and adds one.
pub(super) fn closing(text: &Text<'_>, from: usize, mark: u8, slashes: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at = find(text, mark, at, text.len())?;
        let run = text[from..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        text.spend(12 + run);
        if run < slashes || ((run - slashes) / (slashes + 1)).is_multiple_of(2) {
            return Some(at - run.min(slashes));
        }
        at += 1;
    }
}

/// The first newline at or after `from`, real or escaped at any depth.
pub(super) fn line_end(text: &Text<'_>, from: usize) -> usize {
    line_end_before(text, from, text.len())
}

/// [`line_end`] that looks as far as `to`. Where backslashes stand close together memchr would not pay.
pub(super) fn line_end_before(text: &Text<'_>, from: usize, to: usize) -> usize {
    let (mut at, mut near) = (from, from + 32);
    while at < to {
        if at >= near {
            let far = memchr::memchr3(b'\n', b'\r', b'\\', &text[at..to]).unwrap_or(to - at);
            text.spend(40 + far / SWIFT);
            at += far;
            near = at + 32;
            continue;
        }
        match text[at] {
            b'\n' | b'\r' => break,
            b'\\' => {
                let after = run(text, at, |byte| byte == b'\\');
                if matches!(text.get(after), Some(b'n' | b'r')) {
                    break;
                }
                at = after;
            }
            _ => at += 1,
        }
    }
    text.spend(at.min(from + 32) - from);
    at.min(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Text<'_> {
        Text::new(bytes, 0)
    }

    #[test]
    fn quotes_close_at_their_own_depth() {
        assert_eq!(closing(&of(br#"ab"c"#), 0, b'"', 0), Some(2));
        assert_eq!(closing(&of(br#"a\"b"c"#), 0, b'"', 0), Some(4));
        assert_eq!(closing(&of(br#"a\\"c"#), 0, b'"', 0), Some(3));
        assert_eq!(closing(&of(br#"a\\\"b\"c"#), 0, b'"', 1), Some(6));
        assert_eq!(closing(&of(br#"abc"#), 0, b'"', 0), None);
        assert_eq!(closing(&of(br#"ab"c"#), 0, b'"', 1), Some(2));
    }

    #[test]
    fn words_begin_after_escapes_too() {
        assert!(word_begins(b"\\nhf_", 2));
        assert!(word_begins(b"%20hf_", 3));
        assert!(word_begins(b"=hf_", 1));
        assert!(!word_begins(b"nhf_", 1));
    }

    #[test]
    fn prose_is_not_random() {
        for word in ["password", "Password", "Basic-Auth", "my-token-name", "IDENTIFIED"] {
            assert!(!Mix::of(word.as_bytes()).random(), "{word}");
        }
        for word in ["aB3x", "dXNlcjpwYXNz", "abc123"] {
            assert!(Mix::of(word.as_bytes()).random(), "{word}");
        }
    }
}
