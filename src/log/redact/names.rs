//! The names before secrets: where one begins and ends, what it is part of, and which are none.

use super::text::{Mix, Text, ident, short_run};

/// A name's longest part before the word that makes it a secret's.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// The name, and the quote around it.
pub(super) struct Name {
    pub(super) begin: usize,
    pub(super) word_end: usize,
    pub(super) end: usize,
    pub(super) quote: Option<(u8, usize)>,
}

impl Name {
    pub(super) fn read(text: &Text<'_>, start: usize, end: usize) -> Option<Name> {
        let floor = start.saturating_sub(NAME_BYTES_MAX);
        let begin = text[floor..start].iter().rposition(|byte| !ident(*byte) && *byte != b'.');
        let begin = begin.map_or(floor, |at| floor + at + 1);
        text.spend(start - begin);
        let word_end = suffix_end(text, short_run(text, end, 2, |byte| byte.is_ascii_digit()));
        if text.get(word_end).is_some_and(|byte| ident(*byte)) {
            return None;
        }
        let mut name = Name { begin, word_end, end: word_end, quote: None };
        let after = short_run(text, word_end, 16, |byte| byte == b'\\');
        if let Some(mark) = text.get(after).filter(|byte| matches!(byte, b'"' | b'\'')) {
            name.quote = Some((*mark, after - word_end));
            name.end = after + 1;
        }
        name.end += usize::from(text.get(name.end) == Some(&b']'));
        name.end += if text[name.end..].starts_with(b"[]") { 2 } else { 0 };
        Some(name)
    }

    /// A name of several parts: `access_token`, `clientSecret`.
    pub(super) fn compound(&self, text: &Text<'_>) -> bool {
        let word = &text[self.begin..self.word_end];
        let inner = || Mix::of(word).inner_upper > 0 && word.iter().any(u8::is_ascii_lowercase);
        word.iter().any(|byte| matches!(byte, b'_' | b'-')) || inner()
    }

    /// `db_pass`, `smtpPass`: whose password it is says that it is one.
    pub(super) fn owned(&self, text: &Text<'_>) -> bool {
        let word = &text[self.begin..self.word_end];
        let Some(owner) = word.len().checked_sub(4).map(|at| &word[..at]) else { return false };
        let owner = owner.strip_suffix(b"_").or_else(|| owner.strip_suffix(b"-")).unwrap_or(owner);
        let last = owner.iter().rposition(|byte| matches!(byte, b'_' | b'-' | b'.')).map_or(0, |at| at + 1);
        let owner = &owner[last..];
        word[word.len() - 4..].eq_ignore_ascii_case(b"pass") && OWNERS.iter().any(|of| owner.eq_ignore_ascii_case(of))
    }

    /// `--password`.
    pub(super) fn flag(&self, text: &Text<'_>) -> bool {
        text[self.begin..].starts_with(b"-") && self.quote.is_none()
    }

    /// `<password>`.
    pub(super) fn tag(&self, text: &Text<'_>) -> bool {
        let before = self.begin.checked_sub(1).map(|at| text[at]);
        matches!(before, Some(b'<' | b':')) && text.get(self.end) == Some(&b'>')
    }

    /// The name is the value of an attribute called `name`: a form's part, an input, an entry of a list.
    pub(super) fn named(&self, text: &Text<'_>) -> bool {
        if self.quote.is_none() && !matches!(text[..self.begin], [.., b':' | b'=', b' '] | [.., b':' | b'=']) {
            return false;
        }
        let floor = self.begin.saturating_sub(16);
        let dress = |byte: &u8| matches!(byte, b'\\' | b'"' | b'\'' | b' ');
        let undress = |to: usize| floor + text[floor..to].iter().rposition(|byte| !dress(byte)).map_or(0, |at| at + 1);
        let separator = undress(self.begin);
        if separator == floor || !matches!(text[separator - 1], b'=' | b':') {
            return false;
        }
        let before = &text[floor..undress(separator - 1)];
        let kind = before.ends_with(b"type") && text[self.begin..self.word_end].eq_ignore_ascii_case(b"password");
        kind || [&b"name"[..], b"key", b"Name", b"Key", b"\"n", b"'n"].iter().any(|word| before.ends_with(word))
    }

    /// The first thing on its line, but for blanks, a dash and quotes.
    pub(super) fn leads_line(&self, text: &Text<'_>) -> bool {
        let floor = self.begin.saturating_sub(NAME_BYTES_MAX);
        let before = &text[floor..self.begin];
        let shut = before.iter().rposition(|byte| !matches!(byte, b' ' | b'\t' | b'-' | b'#'));
        text.spend(4 + before.len() - shut.unwrap_or(0));
        match shut {
            None => floor == 0,
            Some(at) => {
                let at = floor + at;
                matches!(text[at], b'\n' | b'\r') || (at > 0 && text[at - 1] == b'\\' && text[at] == b'n')
            }
        }
    }
}

/// Who has a `…_pass`: other passes are those of compilers, renderers and streets.
#[rustfmt::skip]
const OWNERS: [&[u8]; 37] = [
    b"user", b"usr", b"db", b"database", b"root", b"admin", b"smtp", b"imap", b"mail", b"email", b"mysql", b"pg",
    b"postgres", b"mongo", b"redis", b"rabbitmq", b"amqp", b"ftp", b"sftp", b"ssh", b"sudo", b"ldap", b"proxy", b"http",
    b"basic", b"auth", b"login", b"wifi", b"keystore", b"truststore", b"cert", b"pfx", b"sql", b"app", b"api", b"svc",
    b"vpn",
];

/// What may follow the word that makes a name a secret's: `API_KEY_PROD`, `passwordValue`.
fn suffix_end(text: &Text<'_>, at: usize) -> usize {
    if !text.get(at).is_some_and(|byte| ident(*byte)) {
        return at;
    }
    let end = short_run(text, at, SUFFIX_BYTES_MAX, ident);
    let word = &text[at..end];
    let word = word.strip_prefix(b"_").or_else(|| word.strip_prefix(b"-")).unwrap_or(word);
    if SUFFIXES.iter().any(|suffix| word.eq_ignore_ascii_case(suffix)) { end } else { at }
}

const SUFFIX_BYTES_MAX: usize = 12;
#[rustfmt::skip]
const SUFFIXES: [&[u8]; 25] = [
    b"prod", b"production", b"dev", b"development", b"test", b"testing", b"stage", b"staging", b"live", b"sandbox",
    b"old", b"new", b"value", b"val", b"string", b"str", b"b64", b"base64", b"hex", b"primary", b"secondary", b"main",
    b"default", b"raw", b"base",
];

/// A name of several parts that ends in `key` or `pat`, and is none of those that programs give to what is no secret.
pub(super) fn generic_name(text: &Text<'_>, begin: usize, start: usize) -> bool {
    let before = &text[begin..start];
    let part = match before.last() {
        Some(b'_' | b'-' | b'.') => &before[..before.len() - 1],
        Some(letter) if letter.is_ascii_lowercase() && text[start].is_ascii_uppercase() => before,
        _ => return false,
    };
    text.spend(OPEN_KEYS.len() / 2);
    let [.., first, last] = part else { return !part.is_empty() };
    let tail = u16::from_be_bytes([*first, *last].map(|byte| byte.to_ascii_lowercase()));
    let ends = |word: &[u8]| part.len() >= word.len() && part[part.len() - word.len()..].eq_ignore_ascii_case(word);
    !OPEN_TAILS.iter().zip(OPEN_KEYS).any(|(of, word)| *of == tail && ends(word))
}

/// The last two bytes of each of [`OPEN_KEYS`]: one comparison for most.
const OPEN_TAILS: [u16; OPEN_KEYS.len()] = {
    let mut tails = [0; OPEN_KEYS.len()];
    let mut at = 0;
    while at < tails.len() {
        let word = OPEN_KEYS[at];
        tails[at] = u16::from_be_bytes([word[word.len() - 2], word[word.len() - 1]]);
        at += 1;
    }
    tails
};

#[rustfmt::skip]
const OPEN_KEYS: [&[u8]; 58] = [
    b"public", b"pub", b"primary", b"foreign", b"partition", b"sort", b"cache", b"idempotency", b"object", b"routing",
    b"row", b"group", b"hash", b"lookup", b"natural", b"unique", b"index", b"composite", b"join", b"map", b"dedup",
    b"message", b"event", b"item", b"bucket", b"s3", b"memo", b"translation", b"i18n", b"order", b"tag", b"label", b"host",
    b"hot", b"short", b"arrow", b"issue", b"project", b"file", b"config", b"feature", b"lock", b"redis", b"site",
    b"publishable", b"region", b"limit", b"next", b"prev", b"last", b"first", b"start", b"end", b"data", b"context", b"state",
    b"sec-websocket", b"session-ticket",
];
