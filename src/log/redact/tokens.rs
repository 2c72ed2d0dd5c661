//! Secrets that their makers gave a shape: a prefix and an alphabet.

use super::makers::Needs::{Capitals, Length, Random, RandomWord};
use super::makers::{
    ALNUM, CAPITAL, CLASSES, DASH, DIGIT, DOT, DOTTED, LOWER, NAME, REST, Shape, TILDE, UNDERSCORE, UPPER, URL_SAFE,
};
use super::text::{Mix, Text, alnum, find, run, short_run, url_safe, word_begins};
use std::ops::Range;

/// What was measured last: many names in one long word, or many URLs without a user, must not be measured again and
/// again.
#[derive(Default)]
pub(super) struct Memo {
    at_sign: Option<(usize, usize)>,
    bare: Option<(usize, usize, (bool, bool))>,
}

impl Memo {
    /// The first `@` at or after `from`; the end of the text without one.
    pub(super) fn at_sign(&mut self, text: &Text<'_>, from: usize) -> usize {
        match self.at_sign {
            Some((asked, found)) if asked <= from && from <= found => found,
            _ => {
                let found = find(text, b'@', from, text.len()).unwrap_or(text.len());
                self.at_sign = Some((from, found));
                found
            }
        }
    }

    /// The end of a value without quotes that begins at `from`, asked of `measure` once a value.
    pub(super) fn bare(&mut self, from: usize, kind: (bool, bool), measure: impl FnOnce() -> usize) -> usize {
        match self.bare {
            Some((asked, found, of)) if asked <= from && from < found && of == kind => found,
            _ => {
                let found = measure();
                self.bare = Some((from, found, kind));
                found
            }
        }
    }
}

impl Shape {
    /// The secret whose prefix ends at `end`. Its first bytes decide; only then all of it is measured.
    pub(super) fn at(&self, text: &Text<'_>, start: usize, end: usize) -> Option<Range<usize>> {
        if &text[start..end] != self.prefix.as_bytes() {
            return None;
        }
        let word = matches!(self.needs, RandomWord | Capitals(_));
        if word && !word_begins(text, start) {
            return None;
        }
        let head = self.run(text, end, end + self.least.max(HEAD_BYTES));
        let enough = head.len() >= self.least
            && match self.needs {
                Length => true,
                Random | RandomWord => random(head),
                Capitals(length) => head.len() == length || head.len() < 24 && head.iter().any(u8::is_ascii_digit),
            };
        // A word that is long enough was looked at for what is random in it, and its parts again.
        text.spend(if head.len() < self.least { 3 * head.len() / 2 } else { 3 * head.len() });
        if !enough {
            return None;
        }
        let to = end + self.run(text, end, text.len()).len();
        text.spend(to - end);
        let stop = trimmed(text, end, to);
        let stop = if matches!(self.needs, Capitals(_)) { beside(text, stop) } else { longer(text, stop) };
        (stop - end >= self.least).then_some(start..stop)
    }

    /// What belongs to the token at `from`, to `limit` at most.
    fn run<'a>(&self, text: &'a [u8], from: usize, limit: usize) -> &'a [u8] {
        let all = &text[from..limit.min(text.len())];
        let length = all.iter().position(|byte| CLASSES[*byte as usize] & self.alphabet == 0);
        &all[..length.unwrap_or(all.len())]
    }
}

/// An id and its secret, side by side: `AKIA… , …`.
fn beside(text: &Text<'_>, id_end: usize) -> usize {
    let from = short_run(text, id_end, 8, |byte| !alnum(byte) && !matches!(byte, b'+' | b'/'));
    let to = short_run(text, from, 44, |byte| alnum(byte) || matches!(byte, b'+' | b'/' | b'='));
    if from > id_end && (40..=43).contains(&(to - from)) && every_kind(&text[from..to]) { to } else { id_end }
}

/// A token that holds what its maker's tokens do not is cut out whole, when what follows is as random.
fn longer(text: &Text<'_>, stop: usize) -> usize {
    if !matches!(text.get(stop), Some(b'-' | b'_')) {
        return stop;
    }
    let end = run(text, stop, url_safe);
    let part = &text[stop + 1..end];
    if part.len() >= 8 && Mix::of(part).random() { end } else { stop }
}

/// Capitals, small letters and digits.
fn every_kind(word: &[u8]) -> bool {
    let mix = Mix::of(word);
    mix.digits > 0 && mix.lower > 0 && mix.upper > 0
}

/// So many bytes show whether a word is random.
const HEAD_BYTES: usize = 48;
/// Small letters alone are a token when there are so many without a break.
const SMALL_BYTES_MIN: usize = 30;

/// A sentence's last point or dash is not the token's.
pub(super) fn trimmed(text: &[u8], from: usize, to: usize) -> usize {
    let tail = text[from..to].iter().rev().take_while(|byte| matches!(byte, b'.' | b'-' | b'/')).count();
    to - tail
}

/// Random text, and in it one stretch that no name or path has: digits within letters, or capitals within. The
/// beginning decides.
fn random(head: &[u8]) -> bool {
    let head = &head[..head.len().min(HEAD_BYTES)];
    let small = head.iter().take(SMALL_BYTES_MIN).take_while(|byte| byte.is_ascii_lowercase()).count();
    if small == head.len().min(SMALL_BYTES_MIN) {
        return small == SMALL_BYTES_MIN;
    }
    let mix = Mix::of(head);
    mix.random() && head.split(|byte| !alnum(*byte)).any(|part| part.len() >= 6 && Mix::of(part).random())
        || head.len() >= 20 && mix.digits > 3 && mix.lower + mix.upper > 3
        || head.len() >= 20 && 2 * mix.digits + mix.inner_upper > 3 && mix.lower > 2
        || head.len() >= 30 && head.iter().all(u8::is_ascii_alphanumeric)
}

/// What a maker wrote into the middle or at the end of a secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct Infix {
    pub(super) word: &'static str,
    alphabet: u16,
    /// Bytes before and after it, at least and at most.
    before: (usize, usize),
    after: (usize, usize),
    /// Before it stand digits, or hexadecimal digits, alone.
    head: fn(&u8) -> bool,
}

const LONG: usize = 4096;

pub(super) const INFIXES: &[Infix] = &[
    Infix { word: ":APA91b", alphabet: URL_SAFE, before: (11, 11), after: (40, LONG), head: any },
    Infix { word: ":AA", alphabet: URL_SAFE, before: (8, 10), after: (30, 48), head: u8::is_ascii_digit },
    Infix { word: "Q~", alphabet: DOTTED | TILDE, before: (4, 4), after: (28, 40), head: any },
    Infix { word: ".atlasv1.", alphabet: URL_SAFE, before: (14, 14), after: (20, LONG), head: any },
    Infix { word: "T3BlbkFJ", alphabet: URL_SAFE, before: (8, LONG), after: (8, LONG), head: any },
    Infix { word: "JQQJ9", alphabet: ALNUM, before: (52, 52), after: (27, 27), head: any },
    Infix { word: "AzSe", alphabet: ALNUM, before: (42, 42), after: (6, 6), head: any },
    Infix { word: "AzFu", alphabet: ALNUM | REST, before: (44, 44), after: (6, 8), head: any },
    Infix { word: "ACDb", alphabet: ALNUM | REST, before: (76, 76), after: (6, 8), head: base64 },
    Infix { word: "APIM", alphabet: ALNUM | REST, before: (76, 76), after: (6, 8), head: base64 },
    Infix { word: "+ASt", alphabet: ALNUM | REST, before: (76, 76), after: (6, 8), head: base64 },
    Infix { word: "+ACR", alphabet: ALNUM | REST, before: (42, 42), after: (6, 6), head: base64 },
    Infix { word: "+ASb", alphabet: ALNUM | REST, before: (33, 33), after: (5, 8), head: base64 },
    Infix { word: "+AEh", alphabet: ALNUM | REST, before: (33, 33), after: (5, 8), head: base64 },
    Infix { word: "AIoT", alphabet: ALNUM | REST, before: (33, 33), after: (5, 8), head: base64 },
    Infix { word: "AzCa", alphabet: ALNUM | REST, before: (33, 33), after: (5, 8), head: base64 },
    Infix { word: "_mmk", alphabet: NAME, before: (36, 36), after: (0, 0), head: any },
    Infix { word: "NRAL", alphabet: ALNUM, before: (36, 36), after: (0, 0), head: u8::is_ascii_hexdigit },
    Infix { word: "-us", alphabet: DIGIT, before: (32, 32), after: (1, 2), head: u8::is_ascii_hexdigit },
];

fn base64(byte: &u8) -> bool {
    alnum(*byte) || matches!(byte, b'+' | b'/')
}

fn any(byte: &u8) -> bool {
    CLASSES[*byte as usize] & URL_SAFE != 0
}

impl Infix {
    /// The secret around the word at `start..end`.
    pub(super) fn at(&self, text: &Text<'_>, start: usize, end: usize) -> Option<Range<usize>> {
        if &text[start..end] != self.word.as_bytes() {
            return None;
        }
        let after = text[end..].iter().take(self.after.1 + 1);
        let after = after.take_while(|byte| CLASSES[**byte as usize] & self.alphabet != 0).count();
        text.spend(after);
        let fits = |(least, most): (usize, usize), count| count >= least && count <= most;
        if !fits(self.after, after) {
            return None;
        }
        let before = text[..start].iter().rev().take(self.before.1 + 1).take_while(|byte| (self.head)(byte)).count();
        text.spend(3 * before);
        // An escape before it makes it longer: `\n`, `%3D`.
        let from = start - before.min(self.before.1);
        let begins = before <= self.before.1 || word_begins(text, from);
        (before >= self.before.0 && begins).then(|| from..end + after)
    }
}

/// A token of exact parts behind a short prefix.
pub(super) fn exact(text: &Text<'_>, start: usize, end: usize, parts: &[(u16, usize)]) -> Option<Range<usize>> {
    if !word_begins(text, start) {
        return None;
    }
    let mut at = end;
    for (alphabet, length) in parts {
        let part = text.get(at..at + length)?;
        if !part.iter().all(|byte| CLASSES[*byte as usize] & alphabet != 0) {
            return None;
        }
        at += length;
    }
    text.spend(at - start);
    let ends = text.get(at).is_none_or(|byte| CLASSES[*byte as usize] & URL_SAFE == 0);
    (ends && Mix::of(&text[end..at]).digits > 0).then_some(start..at)
}

const HEX4: [(u16, usize); 2] = [(DASH, 1), (LOWER | UPPER | DIGIT, 4)];

/// Prefixes that are too short to mean anything, and the exact parts that follow them.
pub(super) const EXACT: &[(&str, &[(u16, usize)])] = &[
    ("pat", &[(ALNUM, 14), (DOT, 1), (ALNUM, 64)]),
    ("re_", &[(ALNUM, 8), (UNDERSCORE, 1), (ALNUM, 24)]),
    ("test_", &[(ALNUM, 35)]),
    ("pk_", &[(ALNUM, 34)]),
    ("pk_", &[(DIGIT, 8), (UNDERSCORE, 1), (ALNUM, 32)]),
    ("pk_", &[(DIGIT, 9), (UNDERSCORE, 1), (ALNUM, 32)]),
    ("key_", &[(ALNUM, 64)]),
    ("key_", &[(LOWER | DIGIT, 28)]),
    ("pk.", &[(ALNUM, 60), (DOT, 1), (ALNUM, 22)]),
    ("sq0", &[(LOWER, 3), (DASH, 1), (URL_SAFE, 22)]),
    ("sq0", &[(LOWER, 3), (DASH, 1), (URL_SAFE, 43)]),
    (
        "A3-",
        &[
            (CAPITAL, 6),
            (DASH, 1),
            (CAPITAL, 11),
            (DASH, 1),
            (CAPITAL, 5),
            (DASH, 1),
            (CAPITAL, 5),
            (DASH, 1),
            (CAPITAL, 5),
        ],
    ),
    ("4b1d", &[(ALNUM, 38)]),
    ("YCA", &[(URL_SAFE, 37)]),
    ("ak-", &[(ALNUM, 22)]),
    ("as-", &[(ALNUM, 22)]),
    ("oauth:", &[(ALNUM, 30)]),
    ("sdk-", &[(ALNUM, 8), HEX4[0], HEX4[1], HEX4[0], HEX4[1], HEX4[0], HEX4[1], (DASH, 1), (ALNUM, 12)]),
    ("mob-", &[(ALNUM, 8), HEX4[0], HEX4[1], HEX4[0], HEX4[1], HEX4[0], HEX4[1], (DASH, 1), (ALNUM, 12)]),
    ("api-", &[(ALNUM, 8), HEX4[0], HEX4[1], HEX4[0], HEX4[1], HEX4[0], HEX4[1], (DASH, 1), (ALNUM, 12)]),
];

/// `SK` or `AC` and a hexadecimal digit: 32 of them in all.
pub(super) fn sid(text: &Text<'_>, start: usize) -> Option<Range<usize>> {
    let prefix = &text[start..start + 2];
    if !(prefix == b"SK" || prefix == b"AC") || !word_begins(text, start) {
        return None;
    }
    let end = short_run(text, start + 2, 33, |byte| byte.is_ascii_hexdigit());
    (end == start + 34 && !text.get(end).is_some_and(|byte| alnum(*byte))).then_some(start..end)
}

/// True where [`dotted`] may find something; most points are nothing to it.
#[inline]
pub(super) fn may_be_dotted(text: &[u8], dot: usize) -> bool {
    text.get(dot + 7) == Some(&b'.') || dot > 0 && text[dot - 1] == b's'
}

/// What two old shapes have in the middle: a bot's token of three base64 parts, the first of 24 to 28, the second of
/// six; a vault's `s.` and 24 letters and digits.
pub(super) fn dotted(text: &Text<'_>, dot: usize) -> Option<Range<usize>> {
    if text.get(dot + 7) == Some(&b'.') {
        text.spend(12);
        let first = text[..dot].iter().rev().take(29).take_while(|byte| url_safe(**byte)).count();
        // An escaped newline's letter before it is not its own.
        let start = dot - if text[..dot - first].ends_with(b"\\") { first.saturating_sub(1) } else { first };
        let middle = text[dot + 1..dot + 7].iter().all(|byte| url_safe(*byte));
        let end = short_run(text, dot + 8, 48, url_safe);
        let fits = (24..=28).contains(&(dot - start)) && matches!(text[start], b'M'..=b'O') && end - dot >= 8 + 27;
        return (fits && middle && word_begins(text, start)).then_some(start..end);
    }
    let vault = dot > 0 && text[dot - 1] == b's' && word_begins(text, dot - 1);
    let end = if vault { short_run(text, dot + 1, 25, alnum) } else { dot };
    (end == dot + 25 && every_kind(&text[dot + 1..end])).then(|| dot - 1..end)
}

/// A JSON Web Token, signed (three parts) or encrypted (five), whole or cut: `eyJ` begins the base64 of `{"`.
pub(super) fn jwt(text: &Text<'_>, start: usize) -> Option<Range<usize>> {
    if !text[start..].starts_with(b"eyJ") || !word_begins(text, start) {
        return None;
    }
    let mut end = run(text, start, url_safe);
    let mut parts = 1;
    while parts < 5 && text.get(end) == Some(&b'.') {
        let next = run(text, end + 1, url_safe);
        if next - end < 5 {
            break;
        }
        (end, parts) = (next, parts + 1);
    }
    let header = HEADERS.iter().any(|header| text[start..].starts_with(header)) && end - start >= 16;
    (header || parts > 1 && end - start >= 16).then_some(start..end)
}

/// How the base64 of a token's header begins: `{"alg`, `{"typ`, `{"kid`, `{"enc`, `{"x5t`, `{"cty`, `{"jku`, `{"iss`.
const HEADERS: [&[u8]; 8] =
    [b"eyJhbGci", b"eyJ0eXAi", b"eyJraWQi", b"eyJlbmMi", b"eyJ4NXQi", b"eyJjdHki", b"eyJqa3Ui", b"eyJpc3Mi"];

#[cfg(test)]
mod tests {
    use super::super::makers::SHAPES;
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let bytes = text.as_bytes();
        let mut found = Vec::new();
        for shape in SHAPES {
            for (start, _) in text.match_indices(shape.prefix) {
                let whole = Text::new(bytes, 0);
                found.extend(shape.at(&whole, start, start + shape.prefix.len()).map(|range| &text[range]));
            }
        }
        found
    }

    #[test]
    fn names_and_prose_have_no_shape() {
        for text in [
            "hf_hub_download hf_transfer hf_token",
            "task-oriented disk-usage sk-learn-like-names sk-SK",
            "npm_config_cache npm_lifecycle_event",
            "ghp_your_token_here",
            "AKIA AKIABC",
            "sk-fading-circle-dots-and-more",
            "pypi-publish-action",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text}");
        }
    }

    fn whole(text: &[u8]) -> Option<Range<usize>> {
        jwt(&Text::new(text, 0), 0)
    }

    #[test]
    fn jwts_are_found_whole_and_cut() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP";
        assert_eq!(whole(token.as_bytes()), Some(0..token.len()));
        assert_eq!(whole(&token.as_bytes()[..20]), Some(0..20));
        assert_eq!(whole(b"eyJzdWIiOiIxIn0.dBjftJeZ4CVP"), Some(0..28));
        assert_eq!(whole(b"eyJub3RlIjoiaGVsbG8ifQ"), None);
    }
}
