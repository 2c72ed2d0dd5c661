//! What a child prints on its stderr or stdout, put together into lines: a print may come in pieces.

use super::record::RECORD_BYTES_MAX;
use crate::sys::clock;

/// A line that does not end is taken as it is after so many milliseconds.
const PATIENCE_MS: u64 = 200;

/// Text of one sender that is no line yet.
#[derive(Default)]
pub(super) struct Raw {
    text: Vec<u8>,
    since_ms: u64,
}

impl Raw {
    /// Adds a piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.text.is_empty() {
            self.since_ms = clock::monotonic_ms();
        }
        self.text.extend_from_slice(piece);
    }

    /// The next whole line, or what has become too long for one: cut between words, where a secret has none.
    pub(super) fn next_line(&mut self) -> Option<Vec<u8>> {
        if let Some(end) = memchr::memchr(b'\n', &self.text) {
            let mut line: Vec<u8> = self.text.drain(..=end).collect();
            line.truncate(end - usize::from(end > 0 && line[end - 1] == b'\r'));
            return Some(line);
        }
        if self.text.len() < 2 * RECORD_BYTES_MAX {
            return None;
        }
        let head = &self.text[..RECORD_BYTES_MAX];
        let end = head.iter().rposition(u8::is_ascii_whitespace).filter(|end| *end > 0).unwrap_or(self.text.len());
        Some(self.text.drain(..end).collect())
    }

    /// What is left, when it has waited long enough or `now`.
    pub(super) fn rest(&mut self, now: bool) -> Option<Vec<u8>> {
        let due = now || self.due_ms().is_some_and(|due| clock::monotonic_ms() >= due);
        (due && !self.text.is_empty()).then(|| std::mem::take(&mut self.text))
    }

    /// When the rest is due, in monotonic milliseconds.
    pub(super) fn due_ms(&self) -> Option<u64> {
        (!self.text.is_empty()).then_some(self.since_ms + PATIENCE_MS)
    }
}
