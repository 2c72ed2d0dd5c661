//! Strict HTTP/1 framing in front of hyper: a pure machine that says how much of what the socket gave may go on.
//!
//! ```text
//!            whole head is right                    length counted down
//!   Head ──┬──────────────────────► Length(n) ─────────────────────────────┐
//!    ▲     ├──────────────────────► Chunks ──► Trailers ───────────────────┤
//!    │     └─ no body ─────────────────────────────────────────────────────┤
//!    └─────────────────────────────────────────────────────────────────────┘
//!   any ──► Refused: nothing passes any more
//! ```
//! hyper takes a missing or double Host, Content-Length beside Transfer-Encoding, `identity, chunked` and bare LF, and answers
//! what it does not take without our headers. So no byte of a head goes on before the whole head is right, and the machine
//! counts bodies in order to find the next head. What it lets pass, hyper must read in the same way: a disagreement is a smuggling hole.
//!
//! Deliberately absent: I/O, clocks, routes, and every judgement about a request that is well framed.

pub mod bytes;
mod chunk;
mod fields;
mod line;
mod lines;
mod partial;
mod refusal;

pub use line::{is_authority, is_path};
pub use refusal::Refusal;

use chunk::{Chunks, Piece};
use lines::{Bounds, Lines};
use partial::{Framing, Partial};

/// All trailers of a body, in bytes; hyper gives up at 16 KiB.
const TRAILERS_BYTES_MAX: usize = 8190;
/// Trailers of a body.
const TRAILERS_MAX: usize = 32;

/// How large a head may be. The defaults are those of `--limit-request-line`, `-field-size`, `-fields` and `--limit-head`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The request line without its CR LF.
    pub request_line_bytes_max: usize,
    /// One field, name to value, without its CR LF.
    pub field_bytes_max: usize,
    /// Fields of a head; hyper's own limit must not be lower (its default is 100).
    pub fields_max: usize,
    /// The whole head with all line ends; hyper's `max_buf_size` must be higher.
    pub head_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request_line_bytes_max: 8190, field_bytes_max: 8190, fields_max: 100, head_bytes_max: 65_536 }
    }
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A part of a head or of trailers: present it again with more behind it.
    More,
    /// A whole head of so many bytes: one request.
    Head(usize),
    /// So many bytes of a body.
    Data(usize),
    /// So many bytes of chunk framing or trailers.
    Framing(usize),
    /// Nothing more may pass.
    Refused(Refusal),
}

/// What [`Scanner::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// So many bytes from the front may go on; the rest is to be presented again.
    pub pass: usize,
    /// Why nothing behind them ever may.
    pub refusal: Option<Refusal>,
}

/// Where in the stream the scanner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between requests: no byte of the next head but perhaps one empty line.
    Between,
    /// A head has begun.
    Head,
    /// A body has not ended.
    Body,
    /// A head was refused.
    RefusedHead,
    /// A body's framing was refused.
    RefusedBody,
}

/// The machine; one for each connection.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    state: State,
    requests: u64,
    body_bytes: u64,
}

#[derive(Clone, Debug)]
enum State {
    Head(Partial),
    Length(u64),
    Chunks(Chunks),
    Trailers(Lines, usize),
    Refused(Refusal, Place),
}

impl Scanner {
    /// A scanner at the start of a connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Head(Partial::default()), requests: 0, body_bytes: 0 }
    }

    /// How much of `bytes` may go on. `bytes` begins with the first byte that has not passed yet.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Scan {
        let mut pass = 0;
        loop {
            match self.step(&bytes[pass..]) {
                Step::More => return Scan { pass, refusal: None },
                Step::Head(taken) | Step::Data(taken) | Step::Framing(taken) => pass += taken,
                Step::Refused(refusal) => return Scan { pass, refusal: Some(refusal) },
            }
            if pass == bytes.len() {
                return Scan { pass, refusal: None };
            }
        }
    }

    /// The next piece of `bytes`, which begin with the first byte that has not passed yet.
    #[inline]
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if bytes.is_empty() && !matches!(self.state, State::Refused(..)) {
            return Step::More;
        }
        let step = match &mut self.state {
            State::Head(_) => self.head(bytes),
            State::Length(rest) => {
                let taken = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len());
                *rest -= taken as u64;
                if *rest == 0 {
                    self.state = State::Head(Partial::default());
                }
                Ok(Step::Data(taken))
            }
            State::Chunks(chunks) => match chunks.next(bytes) {
                Ok(Piece::Framing(taken)) => Ok(Step::Framing(taken)),
                Ok(Piece::Data(taken)) => Ok(Step::Data(taken)),
                Ok(Piece::Trailers) => {
                    self.state = State::Trailers(Lines::default(), 0);
                    self.trailers(bytes)
                }
                Err(refusal) => Err(refusal),
            },
            State::Trailers(..) => self.trailers(bytes),
            State::Refused(refusal, _) => Err(*refusal),
        };
        if let Ok(Step::Data(taken)) = step {
            self.body_bytes += taken as u64;
        }
        step.unwrap_or_else(|refusal| self.refuse(refusal))
    }

    /// Refuses what comes next, for a reason from outside (a time limit). The first refusal stays.
    pub fn refuse(&mut self, refusal: Refusal) -> Step {
        let place = match self.place() {
            Place::Between | Place::Head => Place::RefusedHead,
            Place::Body => Place::RefusedBody,
            Place::RefusedHead | Place::RefusedBody => {
                return self.refusal().map_or(Step::More, Step::Refused);
            }
        };
        self.state = State::Refused(refusal, place);
        Step::Refused(refusal)
    }

    /// The refusal, once there is one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self.state {
            State::Refused(refusal, _) => Some(refusal),
            _ => None,
        }
    }

    /// Where we are.
    #[inline]
    pub fn place(&self) -> Place {
        match &self.state {
            State::Head(partial) if partial.begun() => Place::Head,
            State::Head(_) => Place::Between,
            State::Refused(_, place) => *place,
            _ => Place::Body,
        }
    }

    /// One more request passed by, between two others, that is not presented here: its bytes are known.
    pub fn repeated(&mut self) {
        self.requests += 1;
    }

    /// Whole heads so far: so many requests are seen, in this order, and not one more.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Bytes of the newest request's body so far, without framing.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    #[inline]
    fn head(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        let State::Head(partial) = &mut self.state else { return Ok(Step::More) };
        if !partial.read(bytes, &self.limits)? {
            return Ok(Step::More);
        }
        let taken = partial.consumed();
        match partial.framing(bytes)? {
            Framing::Length(0) => *partial = Partial::default(),
            Framing::Length(length) => self.state = State::Length(length),
            Framing::Chunked => self.state = State::Chunks(Chunks::default()),
        }
        self.requests += 1;
        self.body_bytes = 0;
        Ok(Step::Head(taken))
    }

    fn trailers(&mut self, bytes: &[u8]) -> Result<Step, Refusal> {
        let State::Trailers(lines, count) = &mut self.state else { return Ok(Step::More) };
        let bounds = Bounds {
            line: (TRAILERS_BYTES_MAX, Refusal::TrailersTooLarge),
            block: (TRAILERS_BYTES_MAX, Refusal::TrailersTooLarge),
        };
        while let Some(range) = lines.next(bytes, true, &bounds)? {
            if range.is_empty() {
                let taken = lines.consumed();
                self.state = State::Head(Partial::default());
                return Ok(Step::Framing(taken));
            }
            fields::check_trailer(&bytes[range])?;
            *count += 1;
            if *count > TRAILERS_MAX {
                return Err(Refusal::TrailersTooLarge);
            }
        }
        Ok(Step::More)
    }
}

#[cfg(test)]
mod tests;
