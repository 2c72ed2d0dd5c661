//! Secrets that stand behind a name: `password=…`, `"token": "…"`, `<secret>…</secret>`, `--api-key …`.
//!
//! ```text
//! name ─ closing quote? ─ separator ─ opening quote? ─ value ─ is it one? (values)
//! ```

use super::names::{NAME_BYTES_MAX, Name, generic_name};
use super::text::{Text, closing, find, ident, line_end, line_end_before, quote, run, short_run};
use super::tokens::Memo;
use super::values::{self, Context, Strength};
use std::ops::Range;

/// An object in a secret's place is looked at so far.
const OBJECT_BYTES_MAX: usize = 1024;
/// The head of a form's part after its name, and what may stand between a name and its value.
const HEAD_BYTES_MAX: usize = 192;
/// What it costs to judge a value, beside its bytes.
const VALUE_COST: usize = 16;
/// Blanks that a separator may stand between.
const BLANKS_MAX: usize = 32;

/// A value to cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) range: Range<usize>,
    /// Quotes that the mark needs, so that JSON stays JSON: the quote and its backslashes.
    pub(super) wrap: Option<(u8, usize)>,
}

impl From<Range<usize>> for Found {
    fn from(range: Range<usize>) -> Found {
        Found { range, wrap: None }
    }
}

/// Where the value begins, and how it was led in.
struct Lead {
    at: usize,
    context: Context,
}

/// The value behind the name whose last word is `text[start..end]`.
pub(super) fn value(text: &Text<'_>, start: usize, end: usize, strength: Strength, memo: &mut Memo) -> Option<Found> {
    let name = Name::read(text, start, end)?;
    if strength == Strength::Generic && !generic_name(text, name.begin, start) {
        return None;
    }
    let lead = lead(text, &name)?;
    if lead.context == Context::Sentence && strength != Strength::Strong {
        return None;
    }
    let at = blanks(text, lead.at);
    if lead.context == Context::Part {
        return part(text, at);
    }
    // `if password { return }` holds none.
    let held = lead.context != Context::Sentence;
    if let Some(list) = list(text, at).filter(|_| held) {
        return Some(Found { range: list, wrap: name.quote });
    }
    if let Some(object) = object(text, at, strength).filter(|_| held) {
        return Some(Found { range: object, wrap: name.quote });
    }
    match opening(text, at) {
        Some((from, mark, slashes, call)) => quoted(text, from, (mark, slashes), &lead, strength, call),
        None => bare(text, at, &name, &lead, strength, memo),
    }
}

fn blanks(text: &Text<'_>, from: usize) -> usize {
    short_run(text, from, BLANKS_MAX, |byte| byte == b' ' || byte == b'\t')
}

/// What stands between name and value.
fn lead(text: &Text<'_>, name: &Name) -> Option<Lead> {
    if name.tag(text) {
        return Some(Lead { at: name.end + 1, context: Context::Tight });
    }
    if name.named(text) {
        return named_value(text, name);
    }
    let at = blanks(text, name.end);
    let spaced = at > name.end;
    let at = assignment(text, at);
    let rest = &text[at..];
    let tight = |length: usize| {
        let follows = text.get(at + length).is_some_and(|byte| *byte == b' ' || *byte == b'\t');
        let context = match (spaced || follows, name.quote.is_some()) {
            (_, true) => Context::Quoted,
            (false, false) => Context::Tight,
            (true, false) if rest[0] == b':' && !spaced && name.leads_line(text) => Context::Line,
            (true, false) => Context::Loose,
        };
        Some(Lead { at: at + length, context })
    };
    match rest {
        [b'=', b'=' | b'~', ..] | [b':', b':', ..] => None,
        [b'=', b'>', ..] | [b':', b'=', ..] => tight(2),
        [b'=', ..] => tight(1),
        [b':', ..] => typed(text, at).or_else(|| tight(1)),
        [b',', ..] if name.quote.is_some() && in_list(text, name) => Some(Lead { at: at + 1, context: Context::List }),
        _ if spaced && name.flag(text) => Some(Lead { at, context: Context::Flag }),
        [mark, ..] if spaced && quote(*mark) => Some(Lead { at, context: Context::List }),
        _ if spaced && netrc(text, name) => Some(Lead { at, context: Context::Flag }),
        _ if spaced && name.quote.is_none() && declared(text, at).is_some() => declared(text, at),
        _ if spaced && name.leads_line(text) && last_word(text, at) => Some(Lead { at, context: Context::Line }),
        _ if spaced => Some(Lead { at: verb(text, at), context: Context::Sentence }),
        _ => None,
    }
}

/// `?=`, `+=`, `||=`, `::=`: the `=`.
fn assignment(text: &Text<'_>, at: usize) -> usize {
    match &text[at..] {
        [b'?', b'?', b'=', ..] | [b'|', b'|', b'=', ..] | [b':', b':', b'=', ..] => at + 2,
        [b'?' | b'+' | b'.', b'=', after, ..] if *after != b'=' => at + 1,
        _ => at,
    }
}

/// `name string = "…"`: a type, then an assignment of a quoted value.
fn declared(text: &Text<'_>, at: usize) -> Option<Lead> {
    let end = short_run(text, at, 24, |byte| ident(byte) || matches!(byte, b'*' | b'[' | b']' | b'.' | b'<' | b'>'));
    let equals = blanks(text, end);
    let value = blanks(text, equals + 1);
    let assigned =
        end > at && equals > end && text.get(equals) == Some(&b'=') && text.get(value).is_some_and(|byte| quote(*byte));
    assigned.then_some(Lead { at: equals + 1, context: Context::Loose })
}

/// `the password is …`, `the password was: …`
fn verb(text: &Text<'_>, at: usize) -> usize {
    let rest = &text[at..];
    let verb = if rest.starts_with(b"is ") || rest.starts_with(b"is:") {
        2
    } else if rest.starts_with(b"was ") || rest.starts_with(b"was:") {
        3
    } else {
        return at;
    };
    blanks(text, at + verb + usize::from(rest[verb] == b':'))
}

/// `: str = ` between a name and its value: a type, then the separator that counts.
fn typed(text: &Text<'_>, colon: usize) -> Option<Lead> {
    let from = blanks(text, colon + 1);
    let end = short_run(text, from, 48, |byte| {
        ident(byte) || matches!(byte, b'&' | b'<' | b'>' | b'[' | b']' | b'*' | b':' | b'.')
    });
    let equals = blanks(text, end);
    let is_type = end > from && equals > end && equals < text.len();
    (is_type && text.get(equals) == Some(&b'=')).then_some(Lead { at: equals + 1, context: Context::Loose })
}

/// `name="password"` and then its value: `value="…"`, `"value": "…"`, or the part of a form after an empty line.
fn named_value(text: &Text<'_>, name: &Name) -> Option<Lead> {
    let end = line_end_before(text, name.end, text.len().min(name.end + HEAD_BYTES_MAX));
    if let Some(skip) = empty_line(text, end) {
        return Some(Lead { at: skip, context: Context::Part });
    }
    let between = |byte| matches!(byte, b'\\' | b'"' | b'\'' | b' ' | b',' | b'\n');
    let word = short_run(text, name.end, 64, between);
    if !text[word..].starts_with(b"value") {
        return None;
    }
    let at = word + 5;
    let at = run(text, at, |byte| matches!(byte, b'\\' | b'"' | b'\''));
    let at = blanks(text, at);
    matches!(text.get(at), Some(b':' | b'=')).then_some(Lead { at: at + 1, context: Context::Entry })
}

/// After the head of a form's part: past an empty line, whose newlines may be escaped.
fn empty_line(text: &Text<'_>, from: usize) -> Option<usize> {
    let to = text.len().min(from + HEAD_BYTES_MAX);
    let mut newlines = 0;
    let mut at = from;
    while at < to && newlines < 8 {
        let slashes = run(text, at, |byte| byte == b'\\') - at;
        match text.get(at + slashes) {
            Some(b'\n') => newlines += 4,
            Some(b'n') if slashes > 0 => newlines += 4,
            Some(b'\r') => {}
            Some(b'r') if slashes > 0 => {}
            _ if newlines >= 8 => break,
            _ if newlines > 0 && slashes == 0 => {
                // Another line of the part's head, such as its content type.
                at = line_end_before(text, at, to);
                newlines = 0;
                continue;
            }
            _ => return None,
        }
        at += slashes + 1;
    }
    (newlines >= 8).then_some(at)
}

fn part(text: &Text<'_>, at: usize) -> Option<Found> {
    let end = line_end(text, at);
    let end = find(text, b'"', at, end).unwrap_or(end);
    let end = at + text[at..end].iter().rposition(|byte| *byte != b'\\').map_or(0, |last| last + 1);
    (end > at).then(|| (at..end).into())
}

/// `["authorization", "…"]`, `(b"x-api-key", b"…")`: a pair, not a sentence.
fn in_list(text: &Text<'_>, name: &Name) -> bool {
    let before = text[..name.begin].iter().rev().find(|byte| !quote(**byte) && !matches!(byte, b'\\' | b'b'));
    matches!(before, Some(b'(' | b'['))
}

/// `machine … login … password …`; `ENV NAME value`, `requirepass value`: files of words.
fn netrc(text: &Text<'_>, name: &Name) -> bool {
    let begins = text.starts_with(b"machine ") || text.starts_with(b"default ") || text.starts_with(b"login ");
    let word = &text[name.begin..name.word_end];
    let directive = word.eq_ignore_ascii_case(b"requirepass") || word.eq_ignore_ascii_case(b"masterauth");
    let before = text[..name.begin].trim_ascii_end();
    let env = [&b"ENV"[..], b"ARG", b"setenv", b"SetEnv", b"-gx", b"-x"].iter().any(|word| before.ends_with(word));
    text.spend(24);
    (begins && name.begin < 256) || directive || env
}

/// A word and nothing after it.
fn last_word(text: &Text<'_>, at: usize) -> bool {
    let end = short_run(text, at, 256, |byte| !byte.is_ascii_whitespace());
    end > at && matches!(text.get(blanks(text, end)), None | Some(b'\n' | b'\r'))
}

/// The inside of `["…", "…"]`.
fn list(text: &Text<'_>, at: usize) -> Option<Range<usize>> {
    if text.get(at) != Some(&b'[') {
        return None;
    }
    let from = blanks(text, at + 1);
    let mark = short_run(text, from, 16, |byte| byte == b'\\');
    text.get(mark).filter(|byte| matches!(byte, b'"' | b'\''))?;
    let close = find(text, b']', mark, text.len()).unwrap_or(text.len());
    let inside = &text[from..close];
    (!values::prose(inside)).then_some(from..close)
}

/// All of `{"value": "…"}` when something in it is a secret.
fn object(text: &Text<'_>, at: usize, strength: Strength) -> Option<Range<usize>> {
    if text.get(at) != Some(&b'{') {
        return None;
    }
    let window = &text[at..text.len().min(at + OBJECT_BYTES_MAX)];
    let end = memchr::memchr(b'}', window)? + 1;
    text.spend(4 * end);
    let words = window[..end].split(|byte| quote(*byte) || matches!(byte, b'\\' | b',' | b':' | b'{' | b'}'));
    let strength = if strength == Strength::Generic { strength } else { Strength::Token };
    let secret = |word: &[u8]| values::secret(word, Context::Quoted, strength, true);
    words.into_iter().any(secret).then(|| at..at + end)
}

/// An opening quote at `at`, perhaps behind a prefix (`b"`, `Some("`, `String::from("`): where the inside begins, the
/// quote, its backslashes, and whether it is the argument of a call.
fn opening(text: &Text<'_>, at: usize) -> Option<(usize, u8, usize, bool)> {
    let mut from = at;
    let word = short_run(text, at, 32, |byte| ident(byte) || byte == b':' || byte == b'.');
    let mut call = false;
    if text.get(word) == Some(&b'(') {
        from = word + 1;
        call = &text[at..word] != b"Some";
        if text[at..word].contains(&b'.') {
            return None;
        }
    } else if word - at <= 2
        && text[at..word].iter().all(|byte| matches!(byte, b'b' | b'r' | b'f' | b'u' | b'B' | b'R'))
    {
        from = word;
    }
    let mark = short_run(text, from, 16, |byte| byte == b'\\');
    let byte = *text.get(mark).filter(|byte| quote(**byte))?;
    // A triple quote is one quote.
    let triple = if text[mark..].starts_with(&[byte; 3]) { 2 } else { 0 };
    Some((mark + 1 + triple, byte, mark - from, call))
}

fn quoted(
    text: &Text<'_>,
    from: usize,
    mark: (u8, usize),
    lead: &Lead,
    strength: Strength,
    call: bool,
) -> Option<Found> {
    let end = closing(text, from, mark.0, mark.1).unwrap_or(text.len());
    let context = match lead.context {
        Context::Sentence => Context::List,
        Context::List | Context::Flag => lead.context,
        _ if call => Context::Call,
        _ => Context::Quoted,
    };
    text.spend(VALUE_COST + (end - from).min(256));
    values::secret(&text[from..end], context, strength, true).then(|| (from..end).into())
}

fn bare(text: &Text<'_>, at: usize, name: &Name, lead: &Lead, strength: Strength, memo: &mut Memo) -> Option<Found> {
    if lead.context == Context::List {
        return None;
    }
    if matches!(text.get(at), Some(b'|' | b'>')) {
        return block(text, at);
    }
    let json = name.quote.is_some();
    let form = !json && matches!(lead.context, Context::Tight | Context::Entry);
    let end = memo.bare(at, (json, form), || bare_end(text, at, json, form));
    let end = if strength == Strength::Generic { run(text, at, values::of_keys).min(end) } else { end };
    if strength == Strength::Generic && matches!(text.get(end), Some(b'(' | b'[' | b'!')) {
        return None;
    }
    let word = &text[at..end];
    text.spend(VALUE_COST + word.len());
    let alone = matches!(
        text.get(blanks(text, end)),
        None | Some(b'\n' | b'\r' | b'\\' | b'"' | b'\'' | b'`' | b',' | b';' | b'#' | b'&' | b'}' | b')')
    );
    if lead.context == Context::Line && !alone {
        let end = line_value_end(text, at);
        let value = &text[at..end];
        text.spend(2 * value.len().min(256));
        let phrase = strength == Strength::Strong && values::passphrase(value);
        return (phrase || (!values::prose(value) && values::secret(word, Context::Line, strength, false)))
            .then(|| (at..end).into());
    }
    if values::path_of_pwd(&text[name.begin..name.word_end], word) {
        return None;
    }
    let context = if json && lead.context != Context::Sentence { Context::Loose } else { lead.context };
    let wrap = name.quote;
    values::secret(word, context, strength, alone).then_some(Found { range: at..end, wrap })
}

/// `password: |` and its lines, when they stand in one text with escaped newlines.
fn block(text: &Text<'_>, at: usize) -> Option<Found> {
    let head = line_end(text, at);
    if head - at > 3 || head == text.len() {
        return None;
    }
    let newline = run(text, head, |byte| matches!(byte, b'\\' | b'\r' | b'\n'));
    let from = blanks(text, newline + usize::from(matches!(text.get(newline), Some(b'n'))));
    let end = line_value_end(text, from);
    (end > from).then(|| (from..end).into())
}

/// The end of a line's value: before an escaped or real newline, or the quote that ends the text around it.
fn line_value_end(text: &Text<'_>, at: usize) -> usize {
    let end = line_end(text, at);
    let end = memchr::memchr2(b'"', b'\'', &text[at..end]).map_or(end, |quote| at + quote);
    text.spend((end - at) / 8);
    at + text[at..end].iter().rposition(|byte| !matches!(byte, b' ' | b'\\')).map_or(0, |last| last + 1)
}

/// The end of a value without quotes. Beside a quoted name it is JSON, and a comma ends it; elsewhere only a comma
/// and the like that ends a word does, for passwords hold anything.
fn bare_end(text: &Text<'_>, from: usize, json: bool, form: bool) -> usize {
    let mut at = from;
    while let Some(byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'"' | b'\'' | b'`' | b'<' => break,
            b'&' if form => break,
            b'\\' => {
                let after = run(text, at, |byte| byte == b'\\');
                if text.get(after).is_none_or(|next| matches!(next, b'n' | b'r' | b't' | b'"' | b'\'' | b'`')) {
                    break;
                }
                at = after;
                continue;
            }
            b',' | b';' | b')' | b'}' | b']' | b'|' if json || ends_word(text.get(at + 1)) => break,
            _ => {}
        }
        at += 1;
    }
    text.spend(2 * (at - from));
    at
}

fn ends_word(next: Option<&u8>) -> bool {
    next.is_none_or(|byte| {
        byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`' | b'\\' | b',' | b')' | b'}' | b']' | b';')
    })
}

/// A value of a query: `?sig=…`, whose name is too common elsewhere.
pub(super) fn query(text: &Text<'_>, start: usize, end: usize, memo: &mut Memo) -> Option<Found> {
    let floor = start.saturating_sub(NAME_BYTES_MAX);
    let before = text[floor..start].iter().rposition(|byte| !ident(*byte)).map(|at| text[floor + at]);
    text.spend(8);
    // `partition_key=…`: a name of several parts is looked at by its own word.
    let long = text[start..end].eq_ignore_ascii_case(b"key=") && start > 0 && ident(text[start - 1]);
    if long || !matches!(before, Some(b'?' | b'&' | b';')) {
        return None;
    }
    let stop = memo.bare(end, (false, true), || bare_end(text, end, false, true));
    values::secret(&text[end..stop], Context::Flag, Strength::Token, true).then(|| (end..stop).into())
}
