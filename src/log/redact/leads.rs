//! What stands between a name and its value: separators of programs and files, words of sentences, markup of documents.

use super::dress;
use super::names::Name;
use super::text::{
    Mix, Text, alnum, closing, find, ident, line_end_before, quote, rfind_word, run, short_run, url_safe,
};
use super::values::{self, Context, Strength};
use std::ops::Range;

/// The head of a form's part after its name, and what may stand between a name and its value.
const HEAD_BYTES_MAX: usize = 192;
/// Blanks that a separator may stand between.
const BLANKS_MAX: usize = 32;

/// Where the value begins, and how it was led in.
pub(super) struct Lead {
    pub(super) at: usize,
    pub(super) context: Context,
}

pub(super) fn blanks(text: &Text<'_>, from: usize) -> usize {
    short_run(text, from, BLANKS_MAX, |byte| byte == b' ' || byte == b'\t')
}

/// What stands between name and value.
pub(super) fn lead(text: &Text<'_>, name: &Name) -> Option<Lead> {
    if name.tag(text) {
        return Some(Lead { at: name.end + 1, context: Context::Tight });
    }
    if name.named(text) {
        return named_value(text, name).or_else(|| doubled(text, name.end));
    }
    if let Some(at) = attributed(text, name) {
        return Some(Lead { at, context: Context::Tight });
    }
    let undressed = markup(text, name, name.end);
    let at = blanks(text, undressed);
    let spaced = at > name.end;
    if let Some(lead) = called(text, name, at).or_else(|| shown(text, name, undressed, at)) {
        return Some(lead);
    }
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
        [b'=', b'=' | b'~', ..] => compared(text, at),
        [b':', b':', ..] => doubled(text, at),
        [b'T' | b't', b'O' | b'o', b' ', mark, ..] if spaced && quote(*mark) => {
            Some(Lead { at: at + 3, context: Context::List })
        }
        [b'=', b'>', ..] if bracketed(text, name) => Some(Lead { at: at + 2, context: Context::Tight }),
        [b'=', b'>', ..] | [b':', b'=', ..] => tight(2),
        [b'=', ..] => tight(1),
        [b':', ..] => typed(text, at).or_else(|| tight(1)),
        [b',', ..] if name.quote.is_some() && in_list(text, name) => Some(Lead { at: at + 1, context: Context::List }),
        [b',', ..] => tuple(text, name, at),
        [b'.', b' ', mark, ..] if spaced && quote(*mark) => Some(Lead { at: at + 2, context: Context::List }),
        [b'-', b' ', ..] if spaced && dashed(text, at + 2) => Some(Lead { at: at + 2, context: Context::Told }),
        _ if spaced && name.flag(text) => Some(Lead { at, context: Context::Flag }),
        [mark, ..] if spaced && quote(*mark) => {
            let context = if keyword(text, name) { Context::Quoted } else { Context::List };
            Some(Lead { at, context })
        }
        _ if spaced && netrc(text, name) => Some(Lead { at, context: Context::Flag }),
        _ if spaced && name.quote.is_none() && declared(text, at).is_some() => declared(text, at),
        _ if spaced && name.leads_line(text) && last_word(text, at) => Some(Lead { at, context: Context::Line }),
        _ if spaced => Some(verb(text, at)),
        _ => None,
    }
}

/// `[password] => …`: a member of an array as PHP prints it.
fn bracketed(text: &Text<'_>, name: &Name) -> bool {
    name.quote.is_none() && text[..name.begin].ends_with(b"[") && text[..name.end].ends_with(b"]")
}

/// `{:password "…"}`: a member of a map as Clojure prints it.
fn keyword(text: &Text<'_>, name: &Name) -> bool {
    name.quote.is_none() && matches!(text[..name.begin], [.., b'{' | b' ' | b',', b':'])
}

/// `?=`, `+=`, `||=`, `::=`: the `=`.
fn assignment(text: &Text<'_>, at: usize) -> usize {
    match &text[at..] {
        [b'?', b'?', b'=', ..] | [b'|', b'|', b'=', ..] | [b':', b':', b'=', ..] => at + 2,
        [b':', b':', b':', b'=', ..] => at + 3,
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

/// `password("…")`, `apiKey{"…"}`, `token { value: "…" }`
fn called(text: &Text<'_>, name: &Name, at: usize) -> Option<Lead> {
    let inside = blanks(text, at + 1);
    let lead = |at, context| Some(Lead { at, context });
    match text.get(at)? {
        b'(' if at == name.end && name.quote.is_none() => lead(inside, Context::Call),
        b'[' | b'{' if at == name.end && name.quote.is_none() && dress::bracketed(text, at).is_some() => {
            lead(inside, Context::Call)
        }
        b'{' if at == name.end && text.get(inside).is_some_and(|byte| quote(*byte)) => lead(inside, Context::Call),
        b'{' if at > name.end && name.quote.is_none() => {
            let word = short_run(text, inside, 24, ident);
            let value = blanks(text, word + 1);
            let member = word > inside && text.get(word) == Some(&b':');
            (member && text.get(value).is_some_and(|byte| quote(*byte)))
                .then_some(Lead { at: value, context: Context::Call })
        }
        _ => None,
    }
}

/// How documents and people show a value: `| password | … |`, `password ..... …`, `password -> …`.
fn shown(text: &Text<'_>, name: &Name, undressed: usize, at: usize) -> Option<Lead> {
    let loose = |at| Some(Lead { at, context: Context::Loose });
    let rest = &text[at..];
    let spaced = at > name.end;
    match rest {
        [b'|', ..] if cell(text, name, at) || expanded(text, name, at) => loose(at + 1),
        [b'-', b'>', ..] if spaced => loose(at + 2),
        [b'<', b'-', b' ', ..] if spaced && name.leads_line(text) => Some(Lead { at: at + 3, context: Context::List }),
        [0xe2, 0x86, 0x92, ..] => loose(at + 3),
        [mark @ (b'.' | b'-'), ..] if spaced && rest.starts_with(&[*mark; 3]) => {
            let end = run(text, at, |byte| byte == *mark);
            (text.get(end) == Some(&b' ')).then_some(Lead { at: end, context: Context::Loose })
        }
        // `<td>password</td><td>`
        _ if undressed > name.end
            && text[undressed - 1] == b'>'
            && text[name.end..undressed].iter().filter(|byte| **byte == b'<').count() > 1 =>
        {
            loose(at)
        }
        _ => None,
    }
}

/// `| password | … |`: a row of a table, and in its next cell one random word.
fn cell(text: &Text<'_>, name: &Name, bar: usize) -> bool {
    let from = blanks(text, bar + 1);
    let end = short_run(text, from, 256, |byte| !byte.is_ascii_whitespace() && byte != b'|');
    trimmed_before(text, name.begin).last() == Some(&b'|')
        && text.get(blanks(text, end)) == Some(&b'|')
        && Mix::of(&text[from..end]).random()
}

/// `password | …`: a line of a row that is shown with a column to a line.
fn expanded(text: &Text<'_>, name: &Name, bar: usize) -> bool {
    let from = blanks(text, bar + 1);
    let spaced = bar > name.end && from > bar + 1;
    name.leads_line(text) && last_word(text, from) && (spaced || dress::random_word(text, from))
}

/// What may stand around a name in a document: `**`, `</b>`.
fn markup(text: &Text<'_>, name: &Name, at: usize) -> usize {
    let first = text.get(at);
    let before = name.begin.checked_sub(1).map(|at| text[at]);
    match (first, before) {
        (Some(b'*'), Some(b'*')) => short_run(text, at, 3, |byte| byte == b'*'),
        (Some(b'`'), Some(b'`')) if text.get(blanks(text, at + 1)) == Some(&b'=') => at + 1,
        (Some(b'<'), Some(b'>')) if text.get(at + 1) == Some(&b'/') => tags(text, at),
        _ => at,
    }
}

/// Past tags that stand one after the other.
fn tags(text: &Text<'_>, from: usize) -> usize {
    let mut at = from;
    for _ in 0..TAGS_MAX {
        if text.get(at) != Some(&b'<') {
            break;
        }
        let end = short_run(text, at, 32, |byte| byte != b'>');
        if text.get(end) != Some(&b'>') {
            break;
        }
        at = end + 1;
    }
    at
}

/// Tags between a name and its value.
const TAGS_MAX: usize = 5;

/// Where the value begins that was led in to `at`: behind blanks and markup.
pub(super) fn value_begins(text: &Text<'_>, name: &Name, at: usize) -> usize {
    let dressed = name.begin.checked_sub(1).is_some_and(|before| matches!(text[before], b'*' | b'>'));
    let at = match text.get(at) {
        Some(b'*') if dressed => short_run(text, at, 3, |byte| byte == b'*'),
        Some(b'<') if dressed => tags(text, at),
        _ => at,
    };
    let at = blanks(text, at);
    if text.get(at..).is_some_and(|rest| rest.starts_with(b"<![CDATA[")) {
        return at + b"<![CDATA[".len();
    }
    let at = if name.leads_line(text) { dress::past_yaml(text, at) } else { at };
    let optional = text.get(at..).is_some_and(|rest| rest.starts_with(b"Optional["));
    if optional && trimmed_before(text, at).ends_with(b"=") { at + 9 } else { at }
}

/// `password == "…"`, and without quotes what can be no name of a program.
fn compared(text: &Text<'_>, at: usize) -> Option<Lead> {
    let value = blanks(text, short_run(text, at, 3, |byte| byte == b'='));
    match text.get(value) {
        Some(mark) if quote(*mark) => Some(Lead { at: value, context: Context::List }),
        Some(_) if mixed(text, value).is_some() => Some(Lead { at: value, context: Context::Told }),
        _ => None,
    }
}

/// The end of a word of capitals, small letters and digits, or of letters, digits and signs, that no program or test
/// gives to anything.
fn mixed(text: &Text<'_>, from: usize) -> Option<usize> {
    let end = short_run(text, from, 128, |byte| !byte.is_ascii_whitespace() && !quote(byte) && byte != b'\\');
    let word = &text[from..end];
    let mix = Mix::of(word);
    text.spend(word.len().min(32));
    let kinds = [mix.lower, mix.upper, mix.symbols].iter().filter(|count| **count > 0).count();
    let plain = !word.iter().any(|byte| matches!(byte, b'_' | b'/' | b'.' | b'(' | b'[' | b':' | b','));
    let numbered = word.iter().position(u8::is_ascii_digit).is_some_and(|at| at + 2 >= word.len());
    (word.len() >= 8 && mix.digits > 0 && kinds > 1 && plain && !numbered).then_some(end)
}

/// `PASS - …` and nothing more.
fn dashed(text: &Text<'_>, at: usize) -> bool {
    mixed(text, blanks(text, at)).is_some_and(|end| !matches!(text.get(end), Some(b' ' | b'\t')))
}

/// `{password, "…"}`, `{password, <<"…">>}`; `'API_KEY' , '"…"'`; a line `token,…,`.
fn tuple(text: &Text<'_>, name: &Name, comma: usize) -> Option<Lead> {
    let at = blanks(text, comma + 1);
    if name.quote.is_none() {
        let braced = name.begin.checked_sub(1).is_some_and(|before| text[before] == b'{');
        let end = short_run(text, at, 128, |byte| url_safe(byte) || matches!(byte, b'+' | b'/' | b'='));
        let ends = matches!(text.get(end), None | Some(b',' | b'\r' | b'\n'));
        let numbered = || dress::is_scattered(text, at..end);
        if ends && end - at >= 20 && numbered() && name.leads_line(text) {
            return Some(Lead { at, context: Context::Tight });
        }
        let at = if text[at..].starts_with(b"<<") { at + 2 } else { at };
        let quoted = text.get(short_run(text, at, 8, |byte| byte == b'\\')).is_some_and(|byte| quote(*byte));
        return (braced && quoted).then_some(Lead { at, context: Context::List });
    }
    // Of a list of headers and their values only what can be no other header.
    let listed = || text[name.begin..name.word_end].contains(&b'-') && text.get(at).is_some_and(|byte| quote(*byte));
    if listed() && dress::random_word(text, at + 1) {
        return Some(Lead { at, context: Context::List });
    }
    let inner = short_run(text, at + 1, 8, |byte| byte == b'\\');
    let nested = matches!((text.get(at), text.get(inner)), (Some(b'\''), Some(b'"')) | (Some(b'"'), Some(b'\'')));
    nested.then_some(Lead { at: at + 1, context: Context::List })
}

/// `<password kind="x">…</password>`: past the tag.
fn attributed(text: &Text<'_>, name: &Name) -> Option<usize> {
    let before = &text[name.begin.saturating_sub(24)..name.begin];
    // The name may be one of a namespace's: `<ns:password kind="x">`.
    let space = before.iter().rev().skip(1).take_while(|byte| ident(**byte)).count();
    let opened = match before {
        [.., b'<'] => true,
        [.., b':'] => before[..before.len() - 1 - space].ends_with(b"<"),
        _ => false,
    };
    if !opened || name.quote.is_some() || text.get(name.end) != Some(&b' ') {
        return None;
    }
    let close = find(text, b'>', name.end, text.len().min(name.end + HEAD_BYTES_MAX))?;
    let next = find(text, b'<', close, text.len().min(close + HEAD_BYTES_MAX))?;
    (text[close - 1] != b'/' && text.get(next + 1) == Some(&b'/')).then_some(close + 1)
}

/// `the password is …`, `the password was: …`, `the password of bob is …`, `your password for x: …`
fn verb(text: &Text<'_>, at: usize) -> Lead {
    text.spend(VERB_COST);
    for verb in [&b"is"[..], b"was"] {
        if text[at..].starts_with(verb) && matches!(text.get(at + verb.len()), Some(b' ' | b':')) {
            let end = at + verb.len() + usize::from(text[at + verb.len()] == b':');
            let at = blanks(text, end);
            return told(text, at).unwrap_or(Lead { at, context: Context::Sentence });
        }
    }
    for change in [&b"set to "[..], b"reset to ", b"changed to ", b"changed from ", b"updated to "] {
        if text[at..].starts_with(change) {
            return Lead { at: blanks(text, at + change.len()), context: Context::Told };
        }
    }
    // One digit says how the value is written: `enable password 7 …`.
    if text.get(at).is_some_and(u8::is_ascii_digit) && text.get(at + 1) == Some(&b' ') {
        return Lead { at: blanks(text, at + 1), context: Context::Told };
    }
    let is = |words: usize| rfind_word(text, b" is ", at, words).map(|is| is + b" is ".len());
    let words = words(text, at);
    let value = told(text, at).map(|lead| lead.at).or_else(|| is(words));
    value.map_or(Lead { at, context: Context::Sentence }, |value| Lead {
        at: blanks(text, value),
        context: Context::Told,
    })
}

/// What it costs to ask for the verbs that are known.
const VERB_COST: usize = 24;

/// `name::value`, where the value is no member of anything.
fn doubled(text: &Text<'_>, at: usize) -> Option<Lead> {
    let follows = text[at..].starts_with(b"::") && dress::random_word(text, at + 2);
    follows.then_some(Lead { at: at + 2, context: Context::Tight })
}

/// True when a sentence says what the name is: `the password is "…"`.
pub(super) fn states(text: &Text<'_>, lead: &Lead) -> bool {
    let before = trimmed_before(text, lead.at);
    [&b" is"[..], b" is:", b" was"].iter().any(|verb| before.ends_with(verb))
}

/// Several words and a colon or an equals sign, and then the value.
fn told(text: &Text<'_>, at: usize) -> Option<Lead> {
    let end = words(text, at);
    let separated = matches!(text.get(end), Some(b':' | b'=')) && text.get(end + 1) == Some(&b' ');
    (separated && end > at).then(|| Lead { at: blanks(text, end + 1), context: Context::Told })
}

fn words(text: &Text<'_>, at: usize) -> usize {
    short_run(text, at, TOLD_BYTES_MAX, |byte| {
        alnum(byte) || matches!(byte, b' ' | b'.' | b'-' | b'_' | b'@' | b'\'' | b'"' | b'/')
    })
}

/// Of a name that is a common word only what a sentence tells counts: `my api key is …`.
pub(super) fn said(text: &Text<'_>, lead: &Lead) -> Option<Lead> {
    states(text, lead).then_some(Lead { at: lead.at, context: Context::Told })
}

/// What may stand between a name in a sentence and its value.
const TOLD_BYTES_MAX: usize = 56;

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
    let mut word = short_run(text, name.end, 64, between);
    // The letters of escaped newlines.
    for _ in 0..2 {
        if text[name.end..word].ends_with(b"\\") && matches!(text.get(word), Some(b'n' | b'r')) {
            word = short_run(text, word + 1, 64, between);
        }
    }
    let at = word
        + if text[word..].starts_with(b"value") || text[word..].starts_with(b"Value") {
            5
        } else if text[word..].starts_with(b"content") {
            7
        } else if text[word..].starts_with(b"v\"") {
            1
        } else {
            return None;
        };
    let at = run(text, at, |byte| matches!(byte, b'\\' | b'"' | b'\''));
    let at = blanks(text, at);
    matches!(text.get(at), Some(b':' | b'=')).then_some(Lead { at: at + 1, context: Context::Entry })
}

/// `"value": "…", "name": "password"`, `value="…" type="password"`: the value that stands before its name.
pub(super) fn before(text: &Text<'_>, name: &Name, strength: Strength) -> Option<Range<usize>> {
    if strength == Strength::Strong && text[..name.begin].ends_with(b" is the ") {
        return told_before(text, name.begin - b" is the ".len());
    }
    if text[..name.begin].ends_with(b" == ") {
        return compared_before(text, name.begin - b" == ".len(), strength);
    }
    // Most names without a value stand in lists.
    let attribute = name.begin.checked_sub(2).is_some_and(|at| matches!(text[at], b':' | b'=' | b' ' | b'\\'));
    name.quote.filter(|_| attribute && name.named(text))?;
    let floor = name.begin.saturating_sub(ENTRY_BYTES_MAX);
    let word = rfind_word(text, b"value", floor, name.begin)? + b"value".len();
    let separator = blanks(text, short_run(text, word, 8, |byte| byte == b'\\' || quote(byte)));
    text.get(separator).filter(|byte| matches!(byte, b':' | b'='))?;
    let from = blanks(text, separator + 1);
    let mark = short_run(text, from, 8, |byte| byte == b'\\');
    let kind = *text.get(mark).filter(|byte| quote(**byte))?;
    let close = closing(text, mark + 1, kind, mark - from).filter(|close| *close < name.begin)?;
    let beside = &text[close..name.begin];
    let near = beside.len() < 40 && !beside.iter().any(|byte| matches!(byte, b'{' | b'}' | b'[' | b']' | b'<' | b'>'));
    let value = mark + 1..close;
    (near && values::weighed(text, value.clone(), Context::Entry, strength, true)).then_some(value)
}

/// `"…" == config.password`: the inside of the quotes that end at `end`.
fn compared_before(text: &Text<'_>, end: usize, strength: Strength) -> Option<Range<usize>> {
    let mark = *text[..end].last().filter(|byte| quote(**byte))?;
    let floor = end.saturating_sub(128);
    text.spend((end - floor) / 8);
    let from = floor + memchr::memrchr(mark, &text[floor..end - 1])? + 1;
    values::weighed(text, from..end - 1, Context::List, strength, true).then_some(from..end - 1)
}

/// `… is the password`: the word that ends at `end`.
fn told_before(text: &Text<'_>, end: usize) -> Option<Range<usize>> {
    let floor = end.saturating_sub(128);
    let mark = |byte: &u8| byte.is_ascii_whitespace() || quote(*byte) || matches!(byte, b'/' | b'*' | b'#' | b';');
    text.spend(end - floor);
    let from = floor + text[floor..end].iter().rposition(mark).map_or(0, |last| last + 1);
    (end > from && values::weighed(text, from..end, Context::Told, Strength::Strong, true)).then_some(from..end)
}

/// How far before a name its value may begin.
const ENTRY_BYTES_MAX: usize = 320;

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

/// `["authorization", "…"]`, `(b"x-api-key", b"…")`: a pair, not a sentence.
fn in_list(text: &Text<'_>, name: &Name) -> bool {
    let before = text[name.begin.saturating_sub(BACK_BYTES_MAX)..name.begin]
        .iter()
        .rev()
        .find(|byte| !quote(**byte) && !matches!(byte, b'\\' | b'b'));
    matches!(before, Some(b'(' | b'['))
}

/// What stands before `at` and the blanks there.
fn trimmed_before<'a>(text: &Text<'a>, at: usize) -> &'a [u8] {
    let near = text.bytes()[at.saturating_sub(BACK_BYTES_MAX)..at].trim_ascii_end();
    text.spend((at.min(BACK_BYTES_MAX) - near.len()) / 2);
    near
}

/// So many blanks are looked back over.
const BACK_BYTES_MAX: usize = 64;

/// `machine … login … password …`; `ENV NAME value`, `requirepass value`: files of words.
fn netrc(text: &Text<'_>, name: &Name) -> bool {
    let begins = text.starts_with(b"machine ") || text.starts_with(b"default ") || text.starts_with(b"login ");
    let word = &text[name.begin..name.word_end];
    let directive = word.eq_ignore_ascii_case(b"requirepass") || word.eq_ignore_ascii_case(b"masterauth");
    let before = trimmed_before(text, name.begin);
    let env = [&b"ENV"[..], b"ARG", b"setenv", b"SetEnv", b"-gx", b"-x"].iter().any(|word| before.ends_with(word));
    text.spend(24);
    (begins && name.begin < 256) || directive || env
}

/// A word and nothing after it.
fn last_word(text: &Text<'_>, at: usize) -> bool {
    let end = short_run(text, at, 256, |byte| !byte.is_ascii_whitespace());
    end > at && matches!(text.get(blanks(text, end)), None | Some(b'\n' | b'\r'))
}
