//! The strict filter as I/O: hyper reads and writes through it, and sees only what [`head`](super::head) let pass.
//!
//! ```text
//!   socket ──► scratch (one a thread) ──► Scanner ──pass──► hyper's buffer
//!                                            │ incomplete head or trailers
//!                                            ▼
//!                                          held (≤ head_bytes_max) ──► hyper, once whole
//!   refused head:  hyper gets the marker request in its place, then silence; the service answers it with the refusal
//!   refused body:  hyper gets an error; whoever reads the body asks the ledger why
//!   hyper ──► socket; at the end a client that still sends is drained, so that a reset does not eat the answer
//! ```
//! A connection holds no buffer of its own unless a head came in parts, or its last requests were such as repeat ([`again`]). No clock
//! is read on a request that came and went whole.
//!
//! Deliberately absent: timers (a sweeper orders through the [`Ledger`]), TLS, and every thought about what a request means.

mod again;
mod io;
mod ledger;

pub use again::Again;
pub use ledger::{Ledger, MARKER, MARKER_OF_HEAD, MARKER_PATH, Overdue, Phase, Times};

use super::head::{Limits, Place, Refusal, Scanner};
use crate::sys::clock::coarse_ms;
use again::Kept;
use hyper::rt::ReadBufCursor;
use std::cell::RefCell;
use std::io::Result;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// One read; larger than hyper's first buffer, and small enough to stay in a core's cache.
const SCRATCH_BYTES: usize = 32 * 1024;
/// What is thrown away at most after the last answer, in bytes.
pub const LINGER_BYTES_MAX: u64 = 1024 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// A byte stream as hyper may see it: `hyper::rt::{Read, Write}` over tokio's.
#[derive(Debug)]
pub struct Strict<S> {
    inner: S,
    scanner: Scanner,
    ledger: Arc<Ledger>,
    /// Bytes for hyper (`ready` of them), then a head that is not whole.
    held: Vec<u8>,
    ready: usize,
    end: End,
    phase: Phase,
    phase_request: u64,
    /// The request whose body has not come whole; 0: none.
    uploading: u64,
    bytes_in: u64,
    bytes_out: u64,
    discarded: u64,
    stalled: bool,
    shut: bool,
    waker: Option<Waker>,
    /// Answers that have ended and are written: hyper forgets what it has not written when it hears of the client's end.
    flushed: u64,
    kept: Option<Box<Kept>>,
    /// Of answers that were given here.
    owed: Vec<u8>,
    unflushed: bool,
}

/// How the reading side goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// The marker was the last: silence, for an end would make hyper drop the answers that it owes.
    Marked,
    Broken(Refusal),
    /// The client has ended its side, but answers are owed. hyper takes an end for a client that left and drops them, so it
    /// hears of this one when they are given, or when the sweeper has looked: a quick answer still reaches `printf | nc -N`.
    Leaving,
    Eof,
}

impl<S> Strict<S> {
    /// Puts the filter over `inner`, whose first byte is the first of a request.
    pub fn new(inner: S, limits: Limits, ledger: Arc<Ledger>) -> Self {
        Self {
            inner,
            scanner: Scanner::new(limits),
            ledger,
            held: Vec::new(),
            ready: 0,
            end: End::Open,
            phase: Phase::Idle,
            phase_request: 0,
            uploading: 0,
            bytes_in: 0,
            bytes_out: 0,
            discarded: 0,
            stalled: false,
            shut: false,
            waker: None,
            flushed: 0,
            kept: None,
            owed: Vec::new(),
            unflushed: false,
        }
    }

    /// The stream below.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Whether our side is shut.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Passes on what is whole, keeps what is not, and replaces what is refused.
    fn take_in(&mut self, fresh: &[u8], cursor: &mut ReadBufCursor<'_>) {
        if !self.held.is_empty() {
            return self.hold(fresh);
        }
        self.came(fresh);
        let before = (self.scanner.place() == Place::Between).then(|| self.scanner.requests());
        let scan = self.scanner.scan(fresh);
        cursor.put_slice(&fresh[..scan.pass]);
        if let Some(before) = before.filter(|_| self.ledger.wants_kept()) {
            self.keep(fresh, scan.pass, before);
        }
        self.held.extend_from_slice(&fresh[scan.pass..]);
        self.judged(scan.refusal);
    }

    /// The same, but what is whole is kept, too.
    fn hold(&mut self, fresh: &[u8]) {
        self.came(fresh);
        self.held.extend_from_slice(fresh);
        let scan = self.scanner.scan(&self.held[self.ready..]);
        self.ready += scan.pass;
        self.judged(scan.refusal);
    }

    fn came(&mut self, fresh: &[u8]) {
        self.bytes_in += fresh.len() as u64;
        self.ledger.set_bytes_in(self.bytes_in);
    }

    fn judged(&mut self, refusal: Option<Refusal>) {
        if let Some(refusal) = refusal {
            self.refuse(refusal);
        }
        let place = self.scanner.place();
        if self.phase != Phase::Idle && place == Place::Between {
            self.phase = Phase::Idle;
            self.ledger.idle();
        }
        let uploading = if place == Place::Body { self.scanner.requests() } else { 0 };
        if uploading != self.uploading {
            self.uploading = uploading;
            self.ledger.set_uploading(uploading);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.scanner.refuse(refusal);
        let head = &self.held[self.ready..];
        let marker = if head.trim_ascii_start().starts_with(b"HEAD ") { MARKER_OF_HEAD } else { MARKER };
        if self.scanner.place() == Place::RefusedHead {
            self.ledger.refused_head(head);
        }
        self.held.truncate(self.ready);
        if self.scanner.place() == Place::RefusedHead {
            self.ledger.refuse(refusal, self.scanner.requests() + 1);
            self.held.extend_from_slice(marker);
            self.ready = self.held.len();
            self.end = End::Marked;
        } else {
            self.ledger.refuse_body(refusal, self.scanner.requests());
            self.end = End::Broken(refusal);
        }
    }

    fn hand_over(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let taken = self.ready.min(cursor.remaining());
        cursor.put_slice(&self.held[..taken]);
        self.held.drain(..taken);
        self.ready -= taken;
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Does what the sweeper ordered, if it is still so.
    fn obey(&mut self, order: Overdue) {
        match (order, self.scanner.place()) {
            (Overdue::Head, Place::Head) => self.refuse(Refusal::HeadTimeout),
            (Overdue::Body, Place::Body) => self.refuse(Refusal::BodyTimeout),
            (Overdue::Idle, Place::Between) if self.ledger.answered_all(self.scanner.requests()) => self.end = End::Eof,
            (Overdue::Stall | Overdue::Linger | Overdue::Leaving, _) => return,
            _ => {}
        }
        self.ledger.clear_order();
    }

    /// The socket has ended.
    fn ended(&mut self) {
        let owed = self.flushed < self.scanner.requests();
        self.end = if owed && self.scanner.place() != Place::Body { End::Leaving } else { End::Eof };
        if self.end == End::Leaving {
            self.phase = Phase::Leaving;
            self.ledger.enter(Phase::Leaving, coarse_ms());
        }
    }

    /// Whether a client that ended its side has nothing more to get.
    fn left(&self) -> bool {
        self.flushed >= self.scanner.requests() || self.ledger.order() == Some(Overdue::Leaving)
    }

    /// Tells the ledger what is waited for; a clock is read only when that is new and not idleness.
    fn wait(&mut self, context: &Context<'_>) {
        self.wake_by(context);
        let phase = match self.scanner.place() {
            Place::Head => Phase::Head,
            Place::Body => Phase::Body,
            Place::Between | Place::RefusedHead | Place::RefusedBody => Phase::Idle,
        };
        if phase == Phase::Body {
            self.ledger.set_body_bytes(self.scanner.body_bytes());
        }
        if phase == Phase::Idle {
            if self.phase != Phase::Idle {
                self.ledger.idle();
            }
        } else if phase != self.phase || self.phase_request != self.scanner.requests() {
            self.ledger.enter(phase, coarse_ms());
        }
        self.phase = phase;
        self.phase_request = self.scanner.requests();
    }

    fn wake_by(&mut self, context: &Context<'_>) {
        let waker = context.waker();
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
            self.ledger.wake_by(waker.clone());
        }
    }

    fn wrote(&mut self, written: Poll<Result<usize>>, context: &Context<'_>) -> Poll<Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.bytes_out += *bytes as u64;
                self.ledger.set_bytes_out(self.bytes_out);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                self.wake_by(context);
                if !self.stalled {
                    self.stalled = true;
                    self.ledger.stalled(Some(coarse_ms()));
                }
            }
        }
        written
    }

    /// Whether the sweeper found that the client does not take its answer.
    fn given_up(&self) -> bool {
        self.stalled && self.ledger.order() == Some(Overdue::Stall)
    }

    fn all_taken(&mut self) {
        if self.stalled {
            self.stalled = false;
            self.ledger.stalled(None);
            self.ledger.clear_order();
        }
    }

    /// Whether closing now could reset the connection under the last answer: the client has not said all it meant to.
    fn client_goes_on(&self) -> bool {
        match self.end {
            End::Open => self.scanner.place() != Place::Between,
            End::Marked | End::Broken(_) => true,
            End::Leaving | End::Eof => false,
        }
    }
}

#[cfg(test)]
mod tests;
