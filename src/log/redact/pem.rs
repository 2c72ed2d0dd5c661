//! Private keys in PEM, whole, on one line with escaped newlines, or cut in half.
//!
//! Certificates and public keys are no secrets and stay.

use super::text::{self, Mix, Text, alnum, find_word};
use std::ops::Range;

/// What a private key's mark covers. `start` is where `PRIVATE KEY` stands, `end` the end of its dashes.
pub(super) enum Pem {
    /// From the mark on to the end mark.
    Whole(Range<usize>),
    /// From the mark on to the end of the text: the rest may come in the next lines.
    Open(Range<usize>),
    /// From the text's beginning, or where the base64 begins, to the end mark.
    Tail(Range<usize>),
}

/// A private key around the mark that ends at `end`.
pub(super) fn pem(text: &Text<'_>, start: usize, end: usize) -> Pem {
    let before = &text[start.saturating_sub(48)..start];
    let last = |word: &[u8]| memchr::memmem::rfind(before, word);
    if last(b"END") > last(b"BEGIN") {
        let stop = start - before.len() + last(b"END").unwrap_or(0);
        let stop = stop - text[..stop].iter().rev().take_while(|byte| **byte == b'-').count();
        let from = text[..stop].iter().rposition(|byte| !pem_body(*byte)).map_or(0, |at| at + 1);
        text.spend(stop - from);
        return Pem::Tail(from..stop);
    }
    match find_word(text, b"-----END", end, text.len()) {
        Some(stop) => Pem::Whole(end..stop),
        None => {
            // Cut: to the quote that ends the text around it, if one does.
            let stop = text[end..].iter().position(|byte| matches!(byte, b'"' | b'\'' | b'<' | b'}'));
            let stop = stop.map_or(text.len(), |length| end + length);
            text.spend(stop - end);
            Pem::Open(end..stop)
        }
    }
}

/// Base64 in lines, with the newlines escaped or not.
fn pem_body(byte: u8) -> bool {
    alnum(byte) || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b'\r' | b'\n' | b' ' | b'%')
}

/// True when a line is nothing but base64: the inside of a key.
pub(super) fn pem_line(line: &[u8]) -> bool {
    let trimmed = line.trim_ascii();
    !trimmed.is_empty() && trimmed.iter().all(|byte| alnum(*byte) || matches!(byte, b'+' | b'/' | b'='))
}

/// Base64 runs of a key's line inside other text.
pub(super) fn pem_runs(line: &[u8]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < line.len() {
        let body = |byte: &&u8| alnum(**byte) || matches!(byte, b'+' | b'/' | b'=');
        let end = at + line[at..].iter().take_while(body).count();
        let quoted = at > 0
            && text::quote(line[at - 1])
            && line.get(end).is_some_and(|byte| text::quote(*byte) || *byte == b'\\');
        let long =
            end - at >= 40 || (end - at >= 8 && Mix::of(&line[at..end]).random() && (quoted || line[end - 1] == b'='));
        if long {
            runs.push(at..end);
        }
        at = end + 1;
    }
    runs
}
