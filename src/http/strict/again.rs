//! A request that is, byte for byte, one that was just answered, and whose answer depends on next to nothing: answered
//! here, before hyper, while that holds.
//!
//! ```text
//!   service: repeats ──▶ ledger: "keep the next" ──▶ filter keeps that request's bytes, and its number
//!   service: repeats, and kept ──▶ ledger: an `Again` ──▶ filter: the same bytes again ──▶ Again::again ──▶ socket
//!                                                                                     └─ false ──▶ hyper, as ever
//! ```
//! Equal bytes on one connection are the same request of the same client, so nothing is parsed twice; what the answer
//! depends on (how the model is, whether the limits still refuse) is asked each time. A balancer that asks for the health
//! on one connection for ever, and a client that goes on in spite of a 429, thus cost as little as they can. Answers stay
//! in order: here one is given only when everything that went to hyper has been answered and is written.

use super::{End, Ledger, Strict};
use crate::http::head::Place;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// The longest request that is kept, in bytes, and how much one read may answer before the client must take it.
const KEPT_BYTES_MAX: usize = 4096;
const ANSWER_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Answers a kept request once more.
pub trait Again: Send + Sync {
    /// Appends the whole answer, and accounts for it in `ledger` as for every request; false when hyper must see the request,
    /// then nothing has happened.
    fn again(&self, ledger: &Arc<Ledger>, answer: &mut Vec<u8>) -> bool;
}

/// Where the two sides of a connection stand with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stand {
    Nothing,
    /// The service would like the next request's bytes to be kept.
    Wanted,
    /// They are; its number is in the ledger.
    Kept,
    /// The service told how to answer it again.
    Offered,
}

/// A request's bytes.
pub(super) struct Kept {
    number: u64,
    bytes: Box<[u8]>,
    again: Option<Box<dyn Again>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "request {}, {} bytes", self.number, self.bytes.len())
    }
}

impl<S> Strict<S> {
    /// Keeps `bytes`, all that one read gave and hyper got, if they are wanted and one whole request from its first
    /// byte. `before`: how many requests there were then, between two of them: the end of a body is no part of the next.
    pub(super) fn keep(&mut self, bytes: &[u8], passed: usize, before: u64) {
        let whole = passed == bytes.len() && self.scanner.place() == Place::Between;
        if !whole || self.scanner.requests() != before + 1 || bytes.len() > KEPT_BYTES_MAX {
            return;
        }
        let number = self.scanner.requests();
        self.kept = Some(Box::new(Kept { number, bytes: bytes.into(), again: None }));
        self.ledger.kept(number);
    }

    /// Lets go of it.
    pub(super) fn forget(&mut self) {
        if self.kept.take().is_some() {
            self.ledger.forgotten();
        }
    }

    /// True when the next request may be answered here. What was kept and not offered is let go of.
    fn may_answer(&mut self) -> bool {
        let Some(kept) = &mut self.kept else { return false };
        let settled = self.flushed == self.scanner.requests() && self.held.is_empty() && self.end == End::Open;
        if !settled || self.scanner.place() != Place::Between {
            return false;
        }
        if kept.again.is_none() {
            kept.again = self.ledger.take_offer();
        }
        let may = kept.again.is_some();
        if !may {
            self.forget();
        }
        may
    }

    /// Answers as many of the requests in `bytes` as it can, and says how many bytes they were.
    fn answer_again(&mut self, bytes: &[u8], answer: &mut Vec<u8>) -> usize {
        let mut rest = bytes;
        while let Some(kept) = &self.kept
            && answer.len() < ANSWER_BYTES_MAX
            && rest.starts_with(&kept.bytes)
        {
            if !kept.again.as_ref().is_some_and(|again| again.again(&self.ledger, answer)) {
                self.forget();
                break;
            }
            rest = &rest[kept.bytes.len()..];
            self.scanner.repeated();
            self.flushed += 1;
        }
        bytes.len() - rest.len()
    }
}

impl<S: AsyncWrite + Unpin> Strict<S> {
    /// What of `fresh` is left for hyper.
    pub(super) fn answered_here<'a>(&mut self, fresh: &'a [u8], context: &mut Context<'_>) -> io::Result<&'a [u8]> {
        if !self.may_answer() {
            return Ok(fresh);
        }
        ANSWER.with_borrow_mut(|answer| {
            answer.clear();
            let taken = self.answer_again(fresh, answer);
            self.came(&fresh[..taken]);
            let written = match Pin::new(&mut self.inner).poll_write(context, answer) {
                _ if answer.is_empty() => 0,
                written => match self.wrote(written, context) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => 0,
                },
            };
            self.owed.extend_from_slice(&answer[written..]);
            self.unflushed |= taken > 0;
            Ok(&fresh[taken..])
        })
    }

    /// Writes what is owed of such answers; until then hyper may not write.
    pub(super) fn poll_pay(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            if self.given_up() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let written = Pin::new(&mut self.inner).poll_write(context, &self.owed);
            match ready!(self.wrote(written, context))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.owed.drain(..written)),
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(context))?;
            self.unflushed = false;
            self.owed = Vec::new();
            self.all_taken();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
