//! hyper's two traits, and the way out.

use super::{End, LINGER_BYTES_MAX, Overdue, Phase, SCRATCH, Strict};
use crate::sys::clock::coarse_ms;
use hyper::rt::ReadBufCursor;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

impl<S: AsyncRead + AsyncWrite + Unpin> Strict<S> {
    /// One read of the socket; false when it has ended.
    fn fill(&mut self, context: &mut Context<'_>, cursor: &mut ReadBufCursor<'_>) -> Poll<io::Result<bool>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = scratch.len().min(cursor.remaining());
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
            let fresh = buffer.filled();
            if fresh.is_empty() {
                return Poll::Ready(Ok(false));
            }
            let fresh = match self.kept {
                Some(_) => self.answered_here(fresh, context)?,
                None => fresh,
            };
            if !fresh.is_empty() {
                self.take_in(fresh, cursor);
            }
            Poll::Ready(Ok(true))
        })
    }
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Without hyper: waits until the client says more, which is held for whoever reads then; false when the connection is to end.
    pub fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.forget();
        loop {
            if let Some(order) = self.ledger.order() {
                self.obey(order);
            }
            if self.end != End::Open {
                return Poll::Ready(Ok(self.end == End::Marked || self.ready > 0));
            }
            if self.ready > 0 {
                return Poll::Ready(Ok(true));
            }
            let filled = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
                self.hold(buffer.filled());
                Poll::Ready(io::Result::Ok(!buffer.filled().is_empty()))
            });
            match filled {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.ended(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.wait(context);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Throws away what the client still sends, until it ends, errs, has sent enough or is overdue.
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.discarded < LINGER_BYTES_MAX && self.ledger.order() != Some(Overdue::Linger) {
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                Pin::new(&mut self.inner).poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
            });
            match read {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(bytes)) => self.discarded += bytes as u64,
                Poll::Pending => {
                    self.wake_by(context);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = cursor.remaining();
        while cursor.remaining() == room && room > 0 {
            ready!(this.poll_pay(context))?;
            if this.ready > 0 {
                this.hand_over(&mut cursor);
                break;
            }
            match this.end {
                End::Open => {}
                End::Marked => return Poll::Pending,
                End::Broken(refusal) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.sentence())));
                }
                End::Leaving if !this.left() => {
                    this.wake_by(context);
                    return Poll::Pending;
                }
                End::Leaving | End::Eof => break,
            }
            if let Some(order) = this.ledger.order() {
                this.obey(order);
                if this.end != End::Open {
                    continue;
                }
            }
            match this.fill(context, &mut cursor) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => this.ended(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.wait(context);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for Strict<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_pay(context))?;
        if self.given_up() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.wrote(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_pay(context))?;
        if self.given_up() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, bufs);
        self.wrote(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pay(context))?;
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.all_taken();
        self.flushed = self.ledger.answers();
        if self.end == End::Leaving && self.left() {
            // hyper waits for a read that was not ready; no socket will wake it for an end that was seen before.
            context.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ledger.at_rest() {
            return Poll::Ready(Ok(()));
        }
        if !this.shut {
            ready!(this.poll_pay(context))?;
            ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
            this.shut = true;
            this.ledger.enter(Phase::Linger, coarse_ms());
        }
        match this.drain(context) {
            Poll::Pending if this.client_goes_on() => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}
