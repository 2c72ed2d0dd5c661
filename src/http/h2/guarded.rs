//! The stream below HTTP/2: what comes in is counted, what does not go out is timed, and h2's own answer is dressed.

use super::super::strict::Ledger;
use super::Pulse;
use super::bare::{self, Walk};
use super::frames::{Flood, Frames};
use crate::sys::clock;
use http::HeaderMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Answers that ended since the last read, of which each earns; more than may be under way count once.
const ANSWERS_MAX: usize = 64;

/// See above. `D` makes the fields of an answer that has none.
pub struct Guarded<S, D> {
    inner: S,
    frames: Frames,
    ledger: Arc<Ledger>,
    answered: u64,
    pulse: Arc<Pulse>,
    walk: Walk,
    /// A dressed answer, as far as it has not gone out.
    owed: Vec<u8>,
    dress: D,
}

impl<S, D: FnMut() -> HeaderMap> Guarded<S, D> {
    /// Over `inner`, whose first byte is the preface's.
    pub fn new(inner: S, ledger: Arc<Ledger>, pulse: Arc<Pulse>, dress: D) -> Self {
        let frames = Frames::new(now_s());
        Self { inner, frames, ledger, answered: 0, pulse, walk: Walk::default(), owed: Vec::new(), dress }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        let since_ms = &self.pulse.stalled_ms;
        match written {
            Poll::Pending if since_ms.load(Relaxed) == 0 => since_ms.store(clock::monotonic_ms(), Relaxed),
            Poll::Ready(_) if since_ms.load(Relaxed) != 0 => since_ms.store(0, Relaxed),
            _ => {}
        }
    }
}

impl<S: AsyncWrite + Unpin, D: FnMut() -> HeaderMap> Guarded<S, D> {
    /// Sends the dressed answer; ready once all of it went out.
    fn settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let written = Pin::new(&mut self.inner).poll_write(cx, &self.owed);
            self.wrote(&written);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.owed.drain(..bytes),
            };
        }
        Poll::Ready(Ok(()))
    }

    /// Takes over the bare answer at the front of `bytes`.
    fn take_over(&mut self, bytes: &[u8]) -> usize {
        self.owed = bare::dressed(bytes, &(self.dress)());
        self.walk.pass(bytes);
        bytes.len()
    }
}

impl<S: AsyncRead + Unpin, D: Unpin> AsyncRead for Guarded<S, D> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        let answered = this.ledger.answers();
        (this.answered..answered).take(ANSWERS_MAX).for_each(|_| this.frames.served());
        this.answered = answered;
        let seen = this.frames.see(&buffer.filled()[before..], now_s());
        Poll::Ready(seen.map_err(|Flood| io::Error::new(io::ErrorKind::InvalidData, "a flood of empty frames")))
    }
}

impl<S: AsyncWrite + Unpin, D: FnMut() -> HeaderMap + Unpin> AsyncWrite for Guarded<S, D> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.settle(cx))?;
        let bytes = match this.walk.find(bytes) {
            Some((0, length)) => return Poll::Ready(Ok(this.take_over(&bytes[..length]))),
            Some((before, _)) => &bytes[..before],
            None => bytes,
        };
        let written = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.wrote(&written);
        if let Poll::Ready(Ok(count)) = written {
            this.walk.pass(&bytes[..count]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.settle(cx))?;
        // Heads stand in the first part, a body's piece behind it; a bare answer is taken out of the first alone.
        let first = bufs.iter().position(|part| !part.is_empty()).unwrap_or(0);
        let mut ahead = this.walk.clone();
        for (number, part) in bufs.iter().enumerate().skip(first) {
            if ahead.find(part).is_some() {
                return match number == first {
                    true => self.poll_write(cx, part),
                    false => self.poll_write(cx, &bufs[first]),
                };
            }
            ahead.pass(part);
        }
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.wrote(&written);
        if let Poll::Ready(Ok(mut count)) = written {
            for part in bufs {
                let passed = count.min(part.len());
                this.walk.pass(&part[..passed]);
                count -= passed;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.settle(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.settle(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn now_s() -> u64 {
    clock::monotonic_ms() / 1000
}
