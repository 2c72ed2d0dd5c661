//! Lines of a head, found once: what was searched is not searched again when more bytes come.

use super::Refusal;
use super::bytes::next_control;
use std::ops::Range;

/// How long a line and the whole block may be, and what to say when they are longer.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A line without its CR LF, in bytes, and the refusal of a longer one.
    pub line: (usize, Refusal),
    /// All lines with their CR LF, in bytes, and the refusal of more.
    pub block: (usize, Refusal),
}

/// The place in a block of lines that is always presented from its first byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    start: usize,
    searched: usize,
}

impl Lines {
    /// The next line's range without its CR LF; `None` when its end is not here yet. A tab counts as text when `tabs` is set.
    ///
    /// The answer depends on the bytes alone, not on how they were cut.
    ///
    /// # Errors
    /// A control byte, a bare CR or LF, or a limit that is passed.
    #[inline]
    pub fn next(&mut self, bytes: &[u8], tabs: bool, bounds: &Bounds) -> Result<Option<Range<usize>>, Refusal> {
        loop {
            let at = next_control(bytes, self.searched);
            self.searched = at;
            if at - self.start > bounds.line.0 {
                return Err(bounds.line.1);
            }
            if at + 2 > bounds.block.0 {
                return Err(bounds.block.1);
            }
            match bytes.get(at) {
                None => return Ok(None),
                Some(b'\t') if tabs => self.searched = at + 1,
                Some(b'\r') => return self.end(at, bytes.get(at + 1)),
                Some(b'\n') => return Err(Refusal::BareLineEnd),
                Some(_) => return Err(Refusal::ControlByte),
            }
        }
    }

    /// Where the next line begins: the number of bytes behind us.
    pub fn consumed(&self) -> usize {
        self.start
    }

    /// The bytes looked at so far; a CR whose LF is missing is not among them.
    pub fn seen(&self) -> usize {
        self.searched
    }

    fn end(&mut self, at: usize, follower: Option<&u8>) -> Result<Option<Range<usize>>, Refusal> {
        match follower {
            None => Ok(None),
            Some(b'\n') => {
                let line = self.start..at;
                self.start = at + 2;
                self.searched = self.start;
                Ok(Some(line))
            }
            Some(_) => Err(Refusal::BareLineEnd),
        }
    }
}
