//! Secrets over several lines: what one line leaves open for the next, and the filter that reads a whole stream.

use super::keys::Found;
use super::text::{ident, quote};
use super::values::JUDGED_BYTES_MAX;
use super::{Finds, Redactor, csv, pem};
use std::io::{self, BufRead, Read, Write};

/// A private key has no more lines than this (4096 bits: 51; with headers and room).
const KEY_LINES_MAX: u16 = 128;
/// Lines between the head of a form's part and its value.
const PART_LINES_MAX: u8 = 3;
/// Lines of a variable's block before its default.
const DEFAULT_LINES_MAX: u8 = 6;
/// A longer line is taken in pieces, cut at a blank.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// A name that is kept for its value on the next line is no longer.
const NAME_BYTES_MAX: usize = 48;

/// What the lines so far leave open. A few numbers and a name: it cannot grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Lines of a private key still to come at most.
    key_lines: u16,
    open: Open,
    /// The value on the next line is a part of a form.
    part: bool,
    name: Name,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    /// In the head of a form's part; so many lines more.
    Head(u8),
    /// The next line is the value of the name.
    Value,
    /// `name: DB_PASSWORD` in a list: the next line may be `value: …`.
    Entry,
    /// `password: |`, indented so far.
    Block(u16),
    /// `variable "API_TOKEN" {`: so many lines more may be `default = …`.
    Default(u8),
    /// `name,password,role`: the lines that follow have so many commas, and so many before the secret.
    Column(u8, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Default for Name {
    fn default() -> Name {
        Name { bytes: [0; NAME_BYTES_MAX], length: 0 }
    }
}

impl Name {
    fn of(name: &[u8]) -> Name {
        let mut kept = Name::default();
        let from = name.len().saturating_sub(NAME_BYTES_MAX);
        kept.length = name.len() - from;
        kept.bytes[..kept.length].copy_from_slice(&name[from..]);
        kept
    }
}

impl Trail {
    /// True when the lines so far leave nothing open.
    pub fn is_closed(&self) -> bool {
        self.key_lines == 0 && self.open == Open::Nothing
    }

    /// What it costs the next line that the ones before left something open.
    pub(super) fn price(&self) -> usize {
        if self.open == Open::Nothing { 0 } else { ASKED_WORTH + JUDGED_BYTES_MAX * 2 }
    }

    /// Adds to `finds` what the lines before make secret in this one, and keeps what this one leaves open.
    pub(super) fn follow(&mut self, redactor: &Redactor, line: &[u8], finds: &mut Finds) {
        if self.key_lines > 0 || finds.key_open {
            self.follow_key(line, finds);
        } else if redactor.private_lines.find(&line[..line.len().min(64)]).is_some() {
            self.key_lines = KEY_LINES_MAX;
        }
        if self.open != Open::Nothing {
            self.go_on(redactor, line, finds);
        }
        if self.open == Open::Nothing {
            self.begin(redactor, line);
        }
    }

    fn follow_key(&mut self, line: &[u8], finds: &mut Finds) {
        if finds.key_open {
            self.key_lines = KEY_LINES_MAX;
            return;
        }
        if memchr::memmem::find(line, b"-----END").is_some() {
            self.key_lines = 0;
        } else if pem::pem_line(line) {
            let from = line.len() - line.trim_ascii_start().len();
            finds.ranges.push(Found::from(from..from + line.trim_ascii().len()));
        } else {
            finds.ranges.extend(pem::pem_runs(line).into_iter().map(Found::from));
        }
        self.key_lines = self.key_lines.saturating_sub(1);
    }

    fn go_on(&mut self, redactor: &Redactor, line: &[u8], finds: &mut Finds) {
        let trimmed = line.trim_ascii();
        let from = line.len() - line.trim_ascii_start().len();
        let cover = |finds: &mut Finds, from: usize, to: usize| {
            if to > from {
                finds.ranges.push(Found::from(from..to));
            }
        };
        self.open = match self.open {
            Open::Head(_) if trimmed.is_empty() => Open::Value,
            Open::Head(lines @ 1..) if trimmed.contains(&b':') => Open::Head(lines - 1),
            Open::Value => {
                // A word of its own, or a part of a form, which may hold blanks.
                let typed = match trimmed {
                    [b'<', b'a'..=b'z', ..] => memchr::memchr(b'>', trimmed),
                    _ if trimmed.starts_with(b"string(") => memchr::memchr(b' ', trimmed),
                    _ => None,
                };
                let (from, trimmed) = typed.map_or((from, trimmed), |at| (from + at + 1, &trimmed[at + 1..]));
                let quoted = usize::from(trimmed.first().is_some_and(|byte| quote(*byte)));
                let value = &trimmed[quoted..];
                let length = value.iter().position(|byte| quote(*byte) || *byte == b'<').unwrap_or(value.len());
                let value = &value[..length];
                let word = !value.contains(&b' ')
                    && redactor.takes(self.name(), if quoted == 1 { QUOTED } else { BARE }, value);
                if word || (self.part && !trimmed.starts_with(b"--")) {
                    cover(finds, from + quoted, from + quoted + length);
                }
                Open::Nothing
            }
            Open::Entry => {
                if let Some(value) = entry_value(trimmed) {
                    let value_from = from + trimmed.len() - value.len();
                    let inside = value.iter().take_while(|byte| !quote(**byte)).count();
                    if redactor.takes(self.name(), QUOTED, &value[..inside]) {
                        cover(finds, value_from, value_from + inside);
                    }
                }
                Open::Nothing
            }
            Open::Default(lines @ 1..) if trimmed != b"}" => {
                let value = assigned(trimmed, b"default").filter(|value| redactor.takes(self.name(), QUOTED, value));
                if let Some(value) = value {
                    let end = from + trimmed.len() - memchr::memrchr(b'"', trimmed).map_or(0, |at| trimmed.len() - at);
                    cover(finds, end - value.len(), end);
                }
                Open::Default(lines - 1)
            }
            Open::Column(commas, before) if memchr::memchr_iter(b',', line).count() == usize::from(commas) => {
                let cell = csv::cell(line, before.into());
                if redactor.takes(self.name(), QUOTED, &line[cell.clone()]) {
                    cover(finds, cell.start, cell.end);
                }
                self.open
            }
            Open::Block(outer) if trimmed.is_empty() || from > usize::from(outer) => {
                cover(finds, from, from + trimmed.len());
                Open::Block(outer)
            }
            _ => Open::Nothing,
        };
    }

    fn name(&self) -> &[u8] {
        &self.name.bytes[..self.name.length]
    }

    fn begin(&mut self, redactor: &Redactor, line: &[u8]) {
        let trimmed = line.trim_ascii();
        let (open, name) = match trimmed.last() {
            _ if part_name(trimmed).is_some() => (Open::Head(PART_LINES_MAX), part_name(trimmed)),
            Some(b'|' | b'>' | b'-' | b'+') if block_name(trimmed).is_some() => {
                let indent = line.iter().take_while(|byte| **byte == b' ').count();
                (Open::Block(indent as u16), block_name(trimmed))
            }
            Some(b'>') if trimmed.ends_with(b"</key>") => (Open::Value, element_text(trimmed)),
            Some(b':' | b'=' | b'>') => (Open::Value, last_name(trimmed)),
            Some(b'{') if trimmed.starts_with(b"variable ") => (Open::Default(DEFAULT_LINES_MAX), variable(trimmed)),
            _ => match csv::header(line, |name| redactor.names_secret(name)) {
                Some((commas, before)) => (Open::Column(commas, before), Some(&line[csv::cell(line, before.into())])),
                None => (Open::Entry, entry_name(trimmed)),
            },
        };
        if let Some(name) = name.filter(|name| redactor.names_secret(name)) {
            self.open = open;
            self.part = matches!(open, Open::Head(_));
            self.name = Name::of(name);
        }
    }
}

impl Redactor {
    /// True when what stands behind this name is secret, if it looks it.
    fn names_secret(&self, name: &[u8]) -> bool {
        self.takes(name, QUOTED, b"x7Kq9zR2mW4pT8vB1nL5cD3f")
    }

    /// True when this value is secret behind this name, dressed like this.
    fn takes(&self, name: &[u8], dress: [&[u8]; 3], value: &[u8]) -> bool {
        let name = &name[name.len().saturating_sub(NAME_BYTES_MAX)..];
        let value = &value[..value.len().min(JUDGED_BYTES_MAX)];
        let text = [dress[0], name, dress[1], value, dress[2]].concat();
        let mut finds = Finds::default();
        // What is too costly to look at is taken for one.
        let costly = self.scan(&text, 0, ASKED_WORTH, &mut finds).is_err();
        costly || finds.ranges.iter().any(|found| found.range.start >= name.len())
    }
}

/// What one such question may cost, in nanoseconds: a third of it is usual.
const ASKED_WORTH: usize = 400;

const QUOTED: [&[u8]; 3] = [b"", b"=\"", b"\""];
const BARE: [&[u8]; 3] = [b"and ", b": ", b""];

/// `Content-Disposition: form-data; name="password"` as a line of its own.
fn part_name(line: &[u8]) -> Option<&[u8]> {
    let head = b"content-disposition:";
    if line.len() < head.len() || !line[..head.len()].eq_ignore_ascii_case(head) {
        return None;
    }
    let name = &line[memchr::memmem::find(line, b"name=")? + 5..];
    let quoted = usize::from(name.first().is_some_and(|byte| quote(*byte)));
    let length = name[quoted..].iter().take_while(|byte| !quote(**byte) && **byte != b';').count();
    Some(&name[quoted..quoted + length])
}

/// `- name: DB_PASSWORD`, `"key": "DB_PASSWORD",`
fn entry_name(line: &[u8]) -> Option<&[u8]> {
    let name = member(line, &[b"name", b"key", b"Name", b"Key"])?;
    let length = name.iter().take_while(|byte| ident(**byte) || **byte == b'.').count();
    Some(&name[..length])
}

/// `value: …`, from where it begins.
fn entry_value(line: &[u8]) -> Option<&[u8]> {
    member(line, &[b"value", b"Value", b"val"]).filter(|value| !value.is_empty())
}

/// The value of a line that begins with one of these names.
fn member<'a>(line: &'a [u8], names: &[&[u8]]) -> Option<&'a [u8]> {
    let line = line.strip_prefix(b"- ").unwrap_or(line);
    let line = line.strip_prefix(b"\"").unwrap_or(line);
    let rest = names.iter().find_map(|name| line.strip_prefix(*name))?;
    let rest = rest.strip_prefix(b"\"").unwrap_or(rest).strip_prefix(b":")?.trim_ascii();
    Some(rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest))
}

/// `password: |`
fn block_name(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', &line[..line.len()]).filter(|colon| line.len() - colon <= 4)?;
    let mark = line[colon + 1..].trim_ascii();
    matches!(mark, b"|" | b">" | b"|-" | b">-" | b"|+" | b">+").then(|| last_name(&line[..=colon]))?
}

/// The name before a line's last mark: `password:`, `<password>`, `"password" =`, `["password"]=>`.
fn last_name(line: &[u8]) -> Option<&[u8]> {
    let line = line[..line.len() - 1].trim_ascii_end();
    let line = line.strip_suffix(b"]=").or_else(|| line.strip_suffix(b"=")).unwrap_or(line).trim_ascii_end();
    let line = line.strip_suffix(b"\"").or_else(|| line.strip_suffix(b"'")).unwrap_or(line);
    let length = line.iter().rev().take(NAME_BYTES_MAX).take_while(|byte| ident(**byte) || **byte == b'.').count();
    (length > 0).then(|| &line[line.len() - length..])
}

/// The text of a line's last element: `<key>password</key>`.
fn element_text(line: &[u8]) -> Option<&[u8]> {
    let text = &line[..memchr::memrchr(b'<', line)?];
    Some(&text[memchr::memrchr(b'>', text)? + 1..])
}

/// The name in `variable "API_TOKEN" {`.
fn variable(line: &[u8]) -> Option<&[u8]> {
    let name = &line[memchr::memchr(b'"', line)? + 1..];
    Some(&name[..memchr::memchr(b'"', name)?])
}

/// The inside of the quotes in `default = "…"`.
fn assigned<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let inside = value.strip_prefix(b"\"")?;
    Some(&inside[..memchr::memchr(b'"', inside)?])
}

/// Copies `input` to `output` without its secrets. Memory stays below a few hundred KiB whatever comes in.
///
/// # Errors
/// Reading or writing fails.
pub fn filter(redactor: &Redactor, mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut trail = Trail::default();
    let mut line = Vec::new();
    loop {
        let more = (&mut input).take(LINE_BYTES_MAX - line.len() as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return output.flush();
        }
        let ended = line.last() == Some(&b'\n');
        let cut = if ended || more == 0 { line.len() } else { piece(&line) };
        if cut == 0 {
            continue;
        }
        let whole = cut - usize::from(ended);
        output.write_all(&redactor.line_after(&line[..whole], &mut trail))?;
        output.write_all(&line[whole..cut])?;
        line.drain(..cut);
    }
}

/// Where a line that is too long is cut: at its last blank, where no secret of one word is.
fn piece(line: &[u8]) -> usize {
    if (line.len() as u64) < LINE_BYTES_MAX {
        return 0;
    }
    line.iter().rposition(u8::is_ascii_whitespace).filter(|at| *at > 0).unwrap_or(line.len())
}
