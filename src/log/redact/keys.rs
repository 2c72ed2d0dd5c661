//! Secrets that stand behind a name: `password=…`, `"token": "…"`, `<secret>…</secret>`, `--api-key …`.
//!
//! ```text
//! name ─ closing quote? ─ separator ─ opening quote? ─ value ─ is it one? (values)
//! ```

use super::dress;
use super::leads::{self, Lead, blanks, lead};
use super::names::{NAME_BYTES_MAX, Name, generic_name};
use super::text::{Mix, Text, closing, find, ident, line_end, quote, run, short_run};
use super::tokens::Memo;
use super::values::{self, Context, Strength};
use std::cmp::Reverse;
use std::ops::Range;

/// The text of an element is looked at so far.
const HEAD_BYTES_MAX: usize = 192;
/// An object in a secret's place is looked at so far.
const OBJECT_BYTES_MAX: usize = 1024;

/// What it costs to ask what follows a name, and what a value is dressed in, beside the bytes.
const NAME_COST: usize = 20;
const LEAD_COST: usize = 25;

/// A value to cut out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) range: Range<usize>,
    /// Quotes that the mark needs, so that JSON stays JSON: the quote and its backslashes.
    pub(super) wrap: Option<(u8, usize)>,
}

impl Found {
    /// What finds are ordered by: the longer one of two that begin together comes first.
    pub(super) fn place(&self) -> (usize, Reverse<usize>) {
        (self.range.start, Reverse(self.range.end))
    }
}

impl From<Range<usize>> for Found {
    fn from(range: Range<usize>) -> Found {
        Found { range, wrap: None }
    }
}

/// The value behind the name whose last word is `text[start..end]`.
pub(super) fn value(text: &Text<'_>, start: usize, end: usize, strength: Strength, memo: &mut Memo) -> Option<Found> {
    let name = Name::read(text, start, end)?;
    text.spend(NAME_COST);
    if strength == Strength::Generic && !generic_name(text, name.begin, start) {
        return None;
    }
    if let Some(value) = column(text, &name) {
        return Some(value.into());
    }
    if let Some(value) = element(text, &name) {
        return values::weighed(text, value.clone(), Context::Entry, strength, true).then(|| value.into());
    }
    let Some(lead) = lead(text, &name) else { return leads::before(text, &name, strength).map(Found::from) };
    text.spend(LEAD_COST);
    let strength = if strength == Strength::Weak && name.owned(text) { Strength::Strong } else { strength };
    let lead = match (lead.context, strength) {
        (Context::Sentence, Strength::Strong) => lead,
        (Context::Sentence, _) => leads::said(text, &lead)?,
        _ => lead,
    };
    let at = leads::value_begins(text, &name, lead.at);
    if lead.context == Context::Part {
        return part(text, at);
    }
    // `if password { return }` holds none.
    let held = !matches!(lead.context, Context::Sentence | Context::Told);
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

/// The text of `<property name="password">…</property>`.
fn element(text: &Text<'_>, name: &Name) -> Option<Range<usize>> {
    if name.quote.is_none() || text.get(name.end) != Some(&b'>') || !name.named(text) {
        return None;
    }
    let from = name.end + 1;
    let end = short_run(text, from, HEAD_BYTES_MAX, |byte| !matches!(byte, b'<' | b'>' | b'"' | b'\n'));
    (end > from && text.get(end) == Some(&b'<')).then_some(from..end)
}

fn part(text: &Text<'_>, at: usize) -> Option<Found> {
    let end = line_end(text, at);
    let end = find(text, b'"', at, end).unwrap_or(end);
    let end = at + text[at..end].iter().rposition(|byte| *byte != b'\\').map_or(0, |last| last + 1);
    (end > at).then(|| (at..end).into())
}

/// `INSERT INTO t (user, password) VALUES ('…', '…')`: the value at the name's place.
fn column(text: &Text<'_>, name: &Name) -> Option<Range<usize>> {
    let end = name.end + usize::from(text.get(name.end) == Some(&b'`'));
    if !matches!(text.get(end), Some(b',' | b')')) {
        return None;
    }
    let near = |from: usize| text.len().min(from + COLUMNS_BYTES_MAX);
    let close = find(text, b')', end, near(end))?;
    let word = blanks(text, close + 1);
    if !text.get(word..word + 6)?.eq_ignore_ascii_case(b"values") {
        return None;
    }
    let floor = name.begin.saturating_sub(COLUMNS_BYTES_MAX);
    let open = floor + memchr::memrchr(b'(', &text[floor..name.begin])?;
    let place = memchr::memchr_iter(b',', &text[open..name.begin]).count();
    text.spend(COLUMNS_BYTES_MAX / 4);
    let mut at = find(text, b'(', word, near(word))? + 1;
    for step in 0..=place {
        let value = argument(text, blanks(text, at))?;
        if step == place {
            return (value.len() >= 4 && !matches!(text[value.start], b'$' | b':' | b'@' | b'?' | b'%'))
                .then_some(value);
        }
        at = find(text, b',', value.end, near(value.end))? + 1;
    }
    None
}

/// The inside of a quoted argument, or a bare one.
fn argument(text: &Text<'_>, at: usize) -> Option<Range<usize>> {
    match opening(text, at) {
        Some((from, mark, slashes, _)) => Some(from..closing(text, from, mark, slashes)?),
        None => Some(at..short_run(text, at, 128, |byte| !matches!(byte, b',' | b')'))),
    }
}

/// The columns of a statement are looked at so far.
const COLUMNS_BYTES_MAX: usize = 512;

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
    text.spend(values::PROSE_COST * inside.len().min(256));
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

/// An opening quote at `at`, perhaps behind a prefix (`b"`, `@"`, `Some("`, `String::from("`): where the inside begins,
/// the quote, its backslashes, and whether it is the argument of a call.
fn opening(text: &Text<'_>, at: usize) -> Option<(usize, u8, usize, bool)> {
    if let Some((from, close, unsure)) = dress::opening(text, at) {
        return Some((from, close, 0, unsure));
    }
    let (mut from, mut call) = (at, false);
    for _ in 0..CALLS_MAX {
        let word = short_run(text, from, 32, |byte| ident(byte) || matches!(byte, b':' | b'.' | b'@' | b'$' | b'#'));
        if text.get(word) != Some(&b'(') {
            let prefix = &text[from..word];
            let prefixes = |byte: &u8| {
                matches!(byte.to_ascii_lowercase(), b'b' | b'r' | b'f' | b'u' | b'n' | b'l' | b'@' | b'$' | b'#')
            };
            from = if prefix.len() <= 2 && prefix.iter().all(prefixes) { word } else { from };
            break;
        }
        if text[from..word].contains(&b'.') {
            return None;
        }
        // `string(20) "…"` says the length of what follows.
        let length = short_run(text, word + 1, 6, |byte| byte.is_ascii_digit());
        if length > word + 1 && text[length..].starts_with(b") ") {
            from = length + 2;
            break;
        }
        call |= !matches!(&text[from..word], b"Some" | b"Optional" | b"String");
        from = word + 1;
    }
    let mark = short_run(text, from, 16, |byte| byte == b'\\');
    let byte = *text.get(mark).filter(|byte| quote(**byte))?;
    // A triple quote is one quote.
    let triple = if text[mark..].starts_with(&[byte; 3]) { 2 } else { 0 };
    Some((mark + 1 + triple, byte, mark - from, call))
}

/// `Some(String("…"))`
const CALLS_MAX: usize = 3;

fn quoted(
    text: &Text<'_>,
    from: usize,
    mark: (u8, usize),
    lead: &Lead,
    strength: Strength,
    call: bool,
) -> Option<Found> {
    let closes = closing(text, from, mark.0, mark.1).map(|close| joined(text, close, mark));
    let end = closes.unwrap_or(text.len());
    let context = match lead.context {
        Context::Sentence if closes.is_some() && leads::states(text, lead) => Context::Quoted,
        Context::Sentence => Context::List,
        Context::List | Context::Flag | Context::Call => lead.context,
        Context::Told => Context::List,
        _ if call => Context::Call,
        _ => Context::Quoted,
    };
    let judged = (end - from).min(values::JUDGED_BYTES_MAX);
    let words = memchr::memchr(b' ', &text[from..from + judged]).is_some();
    text.spend(values::VALUE_COST + if words { values::PROSE_COST * judged } else { judged });
    let secret = |value: Range<usize>| values::secret(&text[value], context, strength, true);
    match changed(text, end + mark.1, mark) {
        Some(new) if secret(from..end) || secret(new.clone()) => Some((from..new.end).into()),
        _ => secret(from..end).then(|| (from..end).into()),
    }
}

/// `'it''s'`: a quote that closes and opens at once is inside, or joins two words of a shell.
fn joined(text: &Text<'_>, close: usize, (mark, slashes): (u8, usize)) -> usize {
    let mut end = close;
    for _ in 0..JOINED_MAX {
        let goes_on = mark == b'\'' && slashes == 0 && text[end..].starts_with(b"''");
        match closing(text, end + 2, mark, slashes).filter(|_| goes_on) {
            Some(next) => end = next,
            None => break,
        }
    }
    end
}

/// Quotes within a value.
const JOINED_MAX: usize = 4;

/// `"old" -> "new"`: the new value, behind the old one's quote at `at`.
fn changed(text: &Text<'_>, at: usize, (mark, slashes): (u8, usize)) -> Option<Range<usize>> {
    let rest = text.get(at + 1..)?.strip_prefix(b" -> ")?;
    let from = at + 5 + slashes + 1;
    (*rest.get(slashes)? == mark).then_some(from..closing(text, from, mark, slashes)?)
}

fn bare(text: &Text<'_>, at: usize, name: &Name, lead: &Lead, strength: Strength, memo: &mut Memo) -> Option<Found> {
    if lead.context == Context::List {
        return None;
    }
    if lead.context == Context::Call {
        let bracketed = dress::bracketed(text, name.end).filter(|_| name.quote.is_none());
        return bracketed.map(Found::from).or_else(|| enclosed(text, at, name, strength));
    }
    match text.get(at) {
        Some(b'|' | b'>') => return block(text, at),
        Some(b'<') if strength != Strength::Generic => return dress::angled(text, at).map(Found::from),
        _ => {}
    }
    let json = name.quote.is_some();
    let form = !json && matches!(lead.context, Context::Tight | Context::Entry);
    let end = memo.bare(at, (json, form), || bare_end(text, at, json, form));
    let end = if strength == Strength::Generic { run(text, at, values::of_keys).min(end) } else { end };
    if strength == Strength::Generic && matches!(text.get(end), Some(b'(' | b'[' | b'!')) {
        return None;
    }
    let word = &text[at..end];
    text.spend(values::VALUE_COST + word.len() / 8 + 2 * word.len().min(values::JUDGED_BYTES_MAX));
    let alone = matches!(
        text.get(blanks(text, end)),
        None | Some(b'\n' | b'\r' | b'\\' | b'"' | b'\'' | b'`' | b',' | b';' | b'#' | b'&' | b'}' | b')')
    );
    if lead.context == Context::Line && !alone {
        let end = line_value_end(text, at);
        let value = &text[at..end];
        text.spend((1 + values::PROSE_COST) * value.len().min(256));
        let phrase = strength == Strength::Strong && values::passphrase(value);
        return (phrase || (!values::prose(value) && values::secret(word, Context::Line, strength, false)))
            .then(|| (at..end).into());
    }
    if values::path_of_pwd(&text[name.begin..name.word_end], word) {
        return None;
    }
    let context =
        if json && !matches!(lead.context, Context::Sentence | Context::Told) { Context::Loose } else { lead.context };
    let wrap = name.quote;
    // What a sentence says of `access_token` is no id.
    let context = match context {
        Context::Told if name.compound(text) && values::long_id(word) => Context::Tight,
        _ => context,
    };
    values::secret(word, context, strength, alone).then_some(Found { range: at..end, wrap })
}

/// `PASSWORD(value)`
fn enclosed(text: &Text<'_>, at: usize, name: &Name, strength: Strength) -> Option<Found> {
    let end =
        short_run(text, at, 64, |byte| !byte.is_ascii_whitespace() && !quote(byte) && !matches!(byte, b')' | b'='));
    let name = &text[name.begin..name.word_end];
    let camel = Mix::of(name).inner_upper > 0 && name.iter().any(u8::is_ascii_lowercase);
    let closed = end > at && text.get(end) == Some(&b')') && !camel && Mix::of(&text[at..end]).digits > 0;
    (closed && values::weighed(text, at..end, Context::Told, strength, true)).then(|| (at..end).into())
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
    if long {
        return None;
    }
    let stop = memo.bare(end, (false, true), || bare_end(text, end, false, true));
    if !matches!(before, Some(b'?' | b'&' | b';')) {
        // A form or a signed address that was cut: only what is long, and a code only in a form.
        let code = text[start..end].eq_ignore_ascii_case(b"code=");
        let value = &text[end..stop];
        let form = code && text.get(stop) == Some(&b'&');
        let enough = value.len() >= if form { 10 } else { 20 } && (form || !code);
        let begins = before.is_none_or(|byte| byte.is_ascii_whitespace() || quote(byte));
        text.spend(values::VALUE_COST);
        return (begins
            && enough
            && Mix::of(value).random()
            && values::secret(value, Context::Flag, Strength::Token, true))
        .then(|| (end..stop).into());
    }
    values::weighed(text, end..stop, Context::Flag, Strength::Token, true).then(|| (end..stop).into())
}
