//! A head so far: its lines are read as they come, and judged together at the end.

use super::fields::Fields;
use super::line::same_authority;
use super::lines::{Bounds, Lines};
use super::{Limits, Refusal, line};
use std::ops::Range;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A body of so many bytes; 0 is none.
    Length(u64),
    /// A chunked body.
    Chunked,
}

/// A head so far.
#[derive(Clone, Debug, Default)]
pub struct Partial {
    lines: Lines,
    empty_line: bool,
    line: Option<Line>,
    fields: Fields,
}

#[derive(Clone, Debug)]
struct Line {
    old: bool,
    authority: Option<Range<usize>>,
    default_port: &'static [u8],
}

impl Partial {
    /// The bytes of all lines that were read.
    pub fn consumed(&self) -> usize {
        self.lines.consumed()
    }

    /// True when the head's last line has been read.
    #[inline]
    pub fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        if self.line.is_none() && !self.read_line(bytes, limits)? {
            return Ok(false);
        }
        let bounds = bounds(limits.field_bytes_max, Refusal::FieldTooLong, limits);
        while let Some(range) = self.lines.next(bytes, true, &bounds)? {
            if range.is_empty() {
                return Ok(true);
            }
            self.fields.add(bytes, range, limits.fields_max)?;
        }
        Ok(false)
    }

    /// The request line; one empty line may stand before it (RFC 9112, section 2.2).
    #[inline]
    fn read_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<bool, Refusal> {
        let bounds = bounds(limits.request_line_bytes_max, Refusal::LineTooLong, limits);
        while let Some(range) = self.lines.next(bytes, false, &bounds)? {
            if range.is_empty() && !self.empty_line {
                self.empty_line = true;
                continue;
            }
            let line = line::parse(&bytes[range.clone()])?;
            let authority = line.authority.map(|found| found.start + range.start..found.end + range.start);
            self.line = Some(Line { old: line.old, authority, default_port: line.default_port });
            return Ok(true);
        }
        Ok(false)
    }

    /// What follows the head, once all of it is known.
    #[inline]
    pub fn framing(&self, bytes: &[u8]) -> Result<Framing, Refusal> {
        let Some(line) = &self.line else { return Err(Refusal::RequestLine) };
        self.check_host(line, bytes)?;
        match (self.fields.length, self.fields.chunked) {
            (Some(_), true) => Err(Refusal::LengthAndEncoding),
            (None, true) if line.old => Err(Refusal::EncodingInOldVersion),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::Length(0)),
        }
    }

    fn check_host(&self, line: &Line, bytes: &[u8]) -> Result<(), Refusal> {
        match (&self.fields.host, &line.authority) {
            (None, _) if line.old => Ok(()),
            (None, _) => Err(Refusal::HostMissing),
            (Some(host), Some(authority))
                if !same_authority(&bytes[host.clone()], &bytes[authority.clone()], line.default_port) =>
            {
                Err(Refusal::HostDiffers)
            }
            _ => Ok(()),
        }
    }

    /// Whether more has come than an empty line.
    pub fn begun(&self) -> bool {
        self.lines.seen() > 2 * usize::from(self.empty_line)
    }
}

fn bounds(line_bytes_max: usize, too_long: Refusal, limits: &Limits) -> Bounds {
    Bounds { line: (line_bytes_max, too_long), block: (limits.head_bytes_max, Refusal::HeadTooLarge) }
}
