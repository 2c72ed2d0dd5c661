//! Secrets that a word or a place announces: `Bearer …`, `Basic …`, `scheme://user:password@host`, headers.

use super::keys::Found;
use super::text::{
    Mix, Text, alnum, base64, closing, credential, find, find_word, line_end, quote, run, short_run, word_begins,
};
use super::tokens::Memo;
use super::values;
use std::ops::Range;

/// Longest authority of a URL that is looked at.
const AUTHORITY_BYTES_MAX: usize = 512;

/// The value after `Bearer` or `Token`; `dressed`: quotes may stand between.
pub(super) fn scheme(text: &Text<'_>, start: usize, end: usize, least: usize, dressed: bool) -> Option<Found> {
    if !word_begins(text, start) {
        return None;
    }
    let from = short_run(text, end, 12, if dressed { between } else { |byte| byte == b' ' });
    if from == end || (text[from - 1] == b'\\' && !text[from..].starts_with(b"\\")) {
        return None;
    }
    let stop = end_of_word(text, from, run(text, from, credential));
    let value = &text[from..stop];
    let enough = value.len() >= least && (Mix::of(value).random() || value.len() >= 40);
    (enough && memchr::memmem::find(&value[..value.len().min(16)], b"://").is_none()).then(|| (from..stop).into())
}

/// What stands between a scheme and its value.
fn between(byte: u8) -> bool {
    blank(byte) || byte == b'\\' || quote(byte)
}

fn blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b':' | b'=' | b'+')
}

fn end_of_word(text: &[u8], from: usize, to: usize) -> usize {
    let tail = text[from..to].iter().rev().take_while(|byte| matches!(byte, b'.' | b':')).count();
    to - tail
}

/// The value after `Basic`: base64 of `user:password`.
pub(super) fn basic(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    if !word_begins(text, start) {
        return None;
    }
    let from = short_run(text, end, 12, between);
    let stop = run(text, from, |byte| base64(byte) || byte == b'%');
    text.spend(2 * (stop - from).min(344));
    let enough = from > end && stop - from >= 6 && (pair_inside(&text[from..stop]) || stop - from >= 40);
    enough.then(|| (from..stop).into())
}

/// True when base64 decodes to text with a colon.
fn pair_inside(encoded: &[u8]) -> bool {
    let mut decoded = Vec::with_capacity(264);
    for group in encoded[..encoded.len().min(344)].chunks(4) {
        let count = group.iter().take_while(|byte| sextet(**byte).is_some()).count();
        let bits = group[..count].iter().fold(0u32, |bits, byte| bits << 6 | sextet(*byte).unwrap_or(0));
        let bytes = (bits << (6 * (4 - count as u32))).to_be_bytes();
        decoded.extend_from_slice(&bytes[1..][..(count * 6) / 8]);
    }
    // A cut may have split the last character.
    let text = match std::str::from_utf8(&decoded) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&decoded[..error.valid_up_to()]).unwrap_or(""),
        Err(_) => return false,
    };
    text.contains(':') && !text.chars().any(char::is_control)
}

fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

/// The user's part of a URL's authority, which begins at `from`.
pub(super) fn userinfo(text: &Text<'_>, from: usize, memo: &mut Memo) -> Option<Found> {
    if memo.at_sign(text, from) - from > AUTHORITY_BYTES_MAX {
        return None;
    }
    let stop =
        short_run(text, from, AUTHORITY_BYTES_MAX, |byte| !ends_url(byte) && !matches!(byte, b'/' | b'?' | b'#'));
    text.spend((stop - from) / 8);
    let at = match memchr::memrchr(b'@', &text[from..stop]) {
        Some(at) => from + at,
        None => late_at(text, from, stop)?,
    };
    let user = &text[from..at];
    let wrong = user.is_empty() || user[0] == b'[';
    let enough = match memchr::memchr(b':', user) {
        Some(colon) => colon + 1 < user.len() && !template(&user[colon + 1..]),
        None => user.len() >= 16 && Mix::of(user).random(),
    };
    (!wrong && enough).then(|| (from..at).into())
}

fn ends_url(byte: u8) -> bool {
    byte <= b' ' || quote(byte) || matches!(byte, b'<' | b'>' | b'\\' | b',')
}

fn template(value: &[u8]) -> bool {
    value.starts_with(b"${")
        || value.starts_with(b"{")
        || value.iter().all(|byte| *byte == b'*')
        || value.starts_with(b"[REDACTED")
}

/// A password with an unescaped slash: `user:pa/ss@host`. What follows the colon is no port then.
fn late_at(text: &Text<'_>, from: usize, stop: usize) -> Option<usize> {
    let colon = find(text, b':', from, stop)?;
    if text[colon + 1..stop].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let end = short_run(text, stop, 128, |byte| !ends_url(byte));
    memchr::memrchr(b'@', &text[stop..end]).map(|at| stop + at)
}

/// The value of an `Authorization` header, in any dress.
pub(super) fn authorization(text: &Text<'_>, end: usize) -> Option<Found> {
    let (from, mark) = header_value(text, end)?;
    let stop = match mark {
        Some((mark, slashes)) => closing(text, from, mark, slashes).unwrap_or(text.len()),
        None => line_value(text, from),
    };
    let value = &text[from..stop];
    let value = &Text::new(value, 0);
    let word = run(value, 0, |byte| byte != b' ' && byte != b',' && byte != b'+');
    let rest = run(value, word, |byte| byte == b' ' || byte == b'+');
    let credentials = &value[rest..run(value, rest, |byte| byte != b' ' && byte != b',')];
    text.spend(values::VALUE_COST + value.spent() + values::PROSE_COST * value.len().min(256));
    let known = SCHEMES.iter().any(|scheme| value[..word].eq_ignore_ascii_case(scheme));
    if known && rest > word {
        // Digest and signatures go on with names and quotes of their own.
        if credentials.contains(&b'=') && matches!(value[0] | 0x20, b'd' | b'a' | b'h' | b's') {
            return Some((from..if mark.is_some() { stop } else { parameters_end(text, from) }).into());
        }
        let template = matches!(credentials.first(), Some(b'$' | b'{' | b'<' | b'%' | b'*'));
        let enough = !template
            && credentials.len() >= 6
            && (Mix::of(credentials).random() || credentials.len() >= 20 || mark.is_some());
        let stop = if mark.is_some() { stop } else { from + rest + credentials.len() };
        return (enough && !values::prose(value)).then(|| (from..stop).into());
    }
    if let Some(range) = other_scheme(value, word, rest, credentials) {
        return Some((from + range.start..from + range.end).into());
    }
    let first = &value[..word];
    let random = Mix::of(first).random() || first.len() >= 24;
    let enough = first.len() >= 8 && random && !values::prose(value) && (mark.is_some() || !values::looks_code(first));
    enough.then(|| (from..if mark.is_some() { stop } else { from + word }).into())
}

/// The credentials of a scheme that few use: a word, a blank, one random word and nothing more, or a word's parameters.
fn other_scheme(value: &[u8], word: usize, rest: usize, credentials: &[u8]) -> Option<Range<usize>> {
    let named = word > 1 && rest > word && value[..word].iter().all(|byte| alnum(*byte) || *byte == b'-');
    let end = rest + credentials.len();
    let alone = value[end..].trim_ascii().is_empty() || (end < value.len() && credentials.contains(&b'='));
    let random = credentials.len() >= 8 && Mix::of(credentials).random() && !values::looks_code(credentials);
    (named && alone && random && !values::prose(&value[..end])).then_some(rest..value.len())
}

/// The end of `name="value", …`: the line's, or inside a JSON string the quote that has no backslash.
fn parameters_end(text: &Text<'_>, from: usize) -> usize {
    let end = line_end(text, from);
    let escaped = find_word(text, b"=\\\"", from, end).is_some();
    let close = if escaped { closing(text, from, b'"', 0).filter(|close| *close < end) } else { None };
    close.unwrap_or(end)
}

const SCHEMES: [&[u8]; 14] = [
    b"basic",
    b"bearer",
    b"token",
    b"digest",
    b"negotiate",
    b"ntlm",
    b"apikey",
    b"key",
    b"aws4-hmac-sha256",
    b"signature",
    b"hmac",
    b"hawk",
    b"oauth",
    b"aws",
];

/// The value of a `Cookie` or `Set-Cookie` header.
pub(super) fn cookie(text: &Text<'_>, end: usize) -> Option<Found> {
    let (from, mark) = header_value(text, end)?;
    let stop = match mark {
        Some((mark, slashes)) => closing(text, from, mark, slashes).unwrap_or(text.len()),
        None => line_value(text, from),
    };
    let value = &text[from..stop];
    let word = value.iter().position(|byte| matches!(byte, b' ' | b';' | b',')).unwrap_or(value.len());
    text.spend(values::VALUE_COST + 2 * word);
    let pair = memchr::memchr(b'=', &value[..word]).is_some_and(|equals| equals > 0 && equals + 1 < word);
    let enough = pair || (value.len() >= 8 && word == value.len() && Mix::of(value).random());
    (enough && !values::prose(&value[..word])).then(|| (from..stop).into())
}

/// Where a header's value begins: after the closing quote of its name, a separator, and the opening quote.
fn header_value(text: &Text<'_>, end: usize) -> Option<(usize, Option<(u8, usize)>)> {
    let name_end = short_run(text, end, 16, |byte| byte == b'\\' || quote(byte) || byte == b']');
    let separator = short_run(text, name_end, 8, |byte| byte == b' ');
    if !matches!(text.get(separator), Some(b':' | b'=' | b',')) || text.get(separator + 1) == Some(&b':') {
        return None;
    }
    if text[separator] == b',' && name_end == end {
        return None;
    }
    let arrow = usize::from(text[separator] == b'=' && text.get(separator + 1) == Some(&b'>'));
    let at = short_run(text, separator + 1 + arrow, 16, |byte| matches!(byte, b' ' | b'[' | b'b' | b'+'));
    let at = if text.get(at).is_some_and(|byte| quote(*byte) || *byte == b'\\') {
        at
    } else {
        short_run(text, separator + 1 + arrow, 16, |byte| matches!(byte, b' ' | b'+'))
    };
    let mark = short_run(text, at, 16, |byte| byte == b'\\');
    match text.get(mark) {
        Some(byte) if quote(*byte) => Some((mark + 1, Some((*byte, mark - at)))),
        Some(_) => Some((at, None)),
        None => None,
    }
}

/// So many quotes are asked whether they end a value, and what each costs.
const QUOTES_MAX: usize = 64;
const QUOTE_COST: usize = 6;

/// The end of a header's value without quotes of its own.
fn line_value(text: &Text<'_>, from: usize) -> usize {
    // Of `="` what follows says whether it opens a value or ends one in base64.
    let opens = |inside: &[u8], at: usize| {
        inside[..at].ends_with(b"=") && !matches!(inside.get(at + 1), None | Some(b',' | b'}' | b']'))
    };
    let end = line_end(text, from);
    let inside = &text[from..end];
    // The quote that ends it is the one of the text around it; a Digest value has quotes of its own.
    let mut quotes = 0;
    let close = memchr::memchr2_iter(b'"', b'\'', inside).take(QUOTES_MAX).find(|at| {
        quotes += 1;
        !opens(inside, *at) && closes(&inside[*at + 1..])
    });
    text.spend(QUOTE_COST * quotes);
    let end = close.map_or(end, |at| from + at);
    text.spend((end - from) / 4);
    from + text[from..end].iter().rposition(|byte| !matches!(byte, b'\\' | b' ')).map_or(0, |last| last + 1)
}

fn closes(after: &[u8]) -> bool {
    after.first().is_none_or(|byte| matches!(byte, b' ' | b',' | b'}' | b']' | b')' | b'\\' | b':') || alnum(*byte))
}
