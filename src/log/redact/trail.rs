//! Secrets over several lines: what one line leaves open for the next, and the filter that reads a whole stream.

use super::keys::Found;
use super::text::quote;
use super::{Finds, Redactor, pem};
use std::io::{self, BufRead, Read, Write};

/// A private key has no more lines than this (4096 bits: 51; with headers and room).
const KEY_LINES_MAX: u16 = 128;
/// Lines between the head of a form's part and its value.
const PART_LINES_MAX: u8 = 3;
/// A longer line is taken in pieces, cut at a blank.
const LINE_BYTES_MAX: u64 = 256 * 1024;

/// What the lines so far leave open. A few numbers: it cannot grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Lines of a private key still to come at most.
    key_lines: u16,
    part: Part,
    /// The indentation of a block of YAML that is a secret.
    block: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    None,
    /// In the head of a secret part of a form; so many lines more.
    Head(u8),
    /// The next line is its value.
    Value,
    /// `name: DB_PASSWORD` in a list of YAML: the next line may be `value: …`.
    Entry,
}

impl Trail {
    /// Adds to `finds` what the lines before make secret in this one, and keeps what this one leaves open.
    pub(super) fn follow(&mut self, line: &[u8], finds: &mut Finds) {
        self.follow_part(line, finds);
        self.follow_block(line, finds);
        self.follow_key(line, finds);
    }

    fn follow_key(&mut self, line: &[u8], finds: &mut Finds) {
        if finds.key_open {
            self.key_lines = KEY_LINES_MAX;
            return;
        }
        if self.key_lines == 0 {
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

    fn follow_part(&mut self, line: &[u8], finds: &mut Finds) {
        let trimmed = line.trim_ascii();
        self.part = match self.part {
            Part::Value => {
                if !trimmed.is_empty() && !trimmed.starts_with(b"--") {
                    finds.ranges.push(Found::from(0..line.len() - usize::from(line.ends_with(b"\r"))));
                }
                Part::None
            }
            Part::Entry if trimmed.starts_with(b"value:") => {
                let from = line.len() - line.trim_ascii_start().len() + 6;
                let value = line[from..].trim_ascii();
                if !value.is_empty() {
                    let from = from + line[from..].iter().take_while(|byte| **byte == b' ').count();
                    finds.ranges.push(Found::from(from..from + value.len()));
                }
                Part::None
            }
            Part::Head(_) if trimmed.is_empty() => Part::Value,
            Part::Head(lines @ 1..) if trimmed.contains(&b':') => Part::Head(lines - 1),
            _ if secret_part(trimmed) => Part::Head(PART_LINES_MAX),
            _ if secret_entry(trimmed) => Part::Entry,
            _ => Part::None,
        };
    }

    fn follow_block(&mut self, line: &[u8], finds: &mut Finds) {
        let indent = line.iter().take_while(|byte| **byte == b' ').count();
        if let Some(outer) = self.block {
            let blank = line.trim_ascii().is_empty();
            if !blank && indent > usize::from(outer) {
                finds.ranges.push(Found::from(indent..line.len()));
            } else if !blank {
                self.block = None;
            }
        }
        if self.block.is_none() && block_begins(line) {
            self.block = Some(indent as u16);
        }
    }
}

/// `Content-Disposition: form-data; name="password"` as a line of its own.
fn secret_part(line: &[u8]) -> bool {
    let head = b"content-disposition:";
    if line.len() < head.len() || !line[..head.len()].eq_ignore_ascii_case(head) {
        return false;
    }
    let Some(at) = memchr::memmem::find(line, b"name=") else { return false };
    let name = &line[at + 5..];
    let name: Vec<u8> = name.iter().copied().skip_while(|byte| quote(*byte)).take_while(|byte| !quote(*byte)).collect();
    ends_secret(&name)
}

/// `- name: DB_PASSWORD`
fn secret_entry(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"-").unwrap_or(line).trim_ascii();
    let name = line.strip_prefix(b"name:").or_else(|| line.strip_prefix(b"key:"));
    name.is_some_and(|name| ends_secret(name.trim_ascii()))
}

/// `password: |`
fn block_begins(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let Some(colon) = memchr::memrchr(b':', line) else { return false };
    let mark = line[colon + 1..].trim_ascii();
    (mark == b"|" || mark == b">" || mark == b"|-" || mark == b">-" || mark == b"|+" || mark == b">+")
        && ends_secret(line[..colon].trim_ascii())
}

fn ends_secret(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.strip_suffix(b"\"").unwrap_or(&name);
    [&b"password"[..], b"passwd", b"passphrase", b"pwd", b"secret", b"token", b"api_key", b"apikey", b"api-key"]
        .iter()
        .chain(&[&b"private_key"[..], b"privatekey", b"access_key", b"secret_key", b"authorization", b"cookie"])
        .any(|word| name.ends_with(word))
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
