//! Finished lines on their way to one destination, one after the other in one buffer.

use std::ops::Range;

/// Lines with their newlines, and where each ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Which of them count here: the others are copies of lines that count elsewhere.
    homes: Vec<bool>,
}

impl Lines {
    /// Adds a line and its newline; it counts here when this is its home.
    pub(super) fn push(&mut self, home: bool, parts: &[&[u8]]) {
        self.homes.push(home);
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.push(b'\n');
        self.ends.push(self.bytes.len());
    }

    /// Everything, newlines included.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offsets of the ends of the lines.
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// How many lines.
    pub(super) fn count(&self) -> u64 {
        self.ends.len() as u64
    }

    /// How many of these lines have their home here.
    pub(super) fn homes(&self, lines: Range<usize>) -> u64 {
        self.homes.get(lines).map_or(0, |homes| homes.iter().filter(|home| **home).count() as u64)
    }

    /// How many lines have their home here.
    pub(super) fn all_homes(&self) -> u64 {
        self.homes(0..self.homes.len())
    }

    /// True without a line.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the lines, keeps the buffer.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.homes.clear();
    }
}
