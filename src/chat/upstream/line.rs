//! One connection to an upstream, and those that rest.
//!
//! ```text
//! connected ─▶ asked ─▶ head ─▶ body ─▶ its end ─▶ rests in the pool ─▶ asked …
//!                └────────┴───────┴── dropped, broken, or something came behind the end: closed
//! ```
//! Whoever waits for an answer reads the socket itself: no task and no channel stands between, so a socket that becomes
//! ready wakes the right one at once, and what is dropped is closed. A connection holds no buffer: bytes come through
//! one a thread, and only data is copied out of it.

use super::connector::Socket;
use super::http1::{Framing, HEAD_BYTES_MAX, Head, Malformed, Taken};
use crate::sys::clock;
use bytes::{Bytes, BytesMut};
use hyper::rt::{Read, ReadBuf, Write};
use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// One read; it stays in a core's cache.
const SCRATCH_BYTES: usize = 32 << 10;
/// Idle connections kept to each upstream by a runtime thread.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Shorter than what servers commonly keep, so that a kept connection is rarely a dead one.
const IDLE_KEPT_MS: u64 = 20_000;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// A request as it is sent.
#[derive(Clone)]
pub struct Message {
    /// Ends with the empty line, and with the body where that is short.
    pub head: Vec<u8>,
    /// The body where it is not.
    pub body: Bytes,
}

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub enum Broken {
    /// The connection closed without a word.
    Silent,
    /// It closed in the middle.
    Early,
    /// The answer is longer than was allowed.
    Long,
    /// The answer is no HTTP.
    Malformed(Malformed),
    /// The kernel's or TLS's.
    Io(io::Error),
}

impl Broken {
    /// True when a connection that has rested may have been given up by the other side before it heard the request.
    pub fn is_stale(&self) -> bool {
        match self {
            Broken::Silent => true,
            Broken::Io(error) => matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            Broken::Early | Broken::Long | Broken::Malformed(_) => false,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Silent => f.write_str("it was closed without an answer"),
            Broken::Early => f.write_str("it was closed in the middle of an answer"),
            Broken::Long => f.write_str("the answer does not end"),
            Broken::Malformed(Malformed(why)) => f.write_str(why),
            Broken::Io(error) => error.fmt(f),
        }
    }
}

/// A connection that nobody uses.
pub struct Line {
    socket: Socket,
}

impl Line {
    /// A fresh one.
    pub fn new(socket: Socket) -> Line {
        Line { socket }
    }

    /// Asks, and waits for the answer's head. Dropped before that, it closes the connection.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn ask(mut self, message: &Message, pool: &Arc<Pool>) -> Result<(Head, Body), Broken> {
        let mut asking = Asking { message, sent: 0, flushed: false, failed: None, held: Vec::new() };
        let (head, mut body) = poll_fn(|context| asking.poll(&mut self.socket, context)).await?;
        body.keeps = head.keeps && body.keeps && asking.flushed;
        body.pool = Some(pool.clone());
        body.line = Some(self);
        body.settle();
        Ok((head, body))
    }

    /// Looks without waiting: false when the other side has closed, or has said something that nobody asked for.
    fn is_quiet(&mut self) -> bool {
        read(&mut self.socket, &mut Context::from_waker(Waker::noop()), |_| ()).is_pending()
    }
}

/// One read of a socket, through the thread's buffer.
fn read<T>(socket: &mut Socket, context: &mut Context<'_>, take: impl FnOnce(&mut [u8]) -> T) -> Poll<io::Result<T>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(socket).poll_read(context, buffer.unfilled()))?;
        let length = buffer.filled().len();
        Poll::Ready(Ok(take(&mut scratch[..length])))
    })
}

/// A request on its way, until its answer's head is there.
struct Asking<'a> {
    message: &'a Message,
    sent: usize,
    flushed: bool,
    failed: Option<io::Error>,
    /// A head that is not whole.
    held: Vec<u8>,
}

impl Asking<'_> {
    /// An answer may come before all is sent: a refusal of a long body.
    fn poll(&mut self, socket: &mut Socket, context: &mut Context<'_>) -> Poll<Result<(Head, Body), Broken>> {
        self.send(socket, context);
        loop {
            match read(socket, context, |fresh| self.take(fresh)) {
                Poll::Ready(Ok(Ok(None))) => {}
                Poll::Ready(Ok(Ok(Some(answer)))) => return Poll::Ready(Ok(answer)),
                Poll::Ready(Ok(Err(broken))) => return Poll::Ready(Err(broken)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Io(error))),
                Poll::Pending => {
                    return self.failed.take().map_or(Poll::Pending, |error| Poll::Ready(Err(Broken::Io(error))));
                }
            }
        }
    }

    fn send(&mut self, socket: &mut Socket, context: &mut Context<'_>) {
        let (head, body) = (self.message.head.as_slice(), self.message.body.as_ref());
        while !self.flushed && self.failed.is_none() {
            let rest = match head.get(self.sent..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &body[self.sent - head.len()..],
            };
            let done = match rest.is_empty() {
                true => Pin::new(&mut *socket).poll_flush(context).map_ok(|()| self.flushed = true),
                false => Pin::new(&mut *socket).poll_write(context, rest).map(|wrote| match wrote? {
                    0 => Err(ErrorKind::WriteZero.into()),
                    bytes => {
                        self.sent += bytes;
                        Ok(())
                    }
                }),
            };
            match done {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.failed = Some(error),
                Poll::Pending => return,
            }
        }
    }

    /// `None`: the head is not whole yet.
    fn take(&mut self, fresh: &mut [u8]) -> Result<Option<(Head, Body)>, Broken> {
        if fresh.is_empty() {
            return Err(match (self.failed.take(), self.held.is_empty()) {
                (Some(error), _) => Broken::Io(error),
                (None, true) => Broken::Silent,
                (None, false) => Broken::Early,
            });
        }
        if self.held.is_empty() {
            if let Some((head, length)) = Head::parse(fresh).map_err(Broken::Malformed)? {
                return Body::begin(head, &mut fresh[length..]).map(Some);
            }
            self.held.extend_from_slice(fresh);
            return Ok(None);
        }
        self.held.extend_from_slice(fresh);
        // A head ends with a line.
        if self.held.len() <= HEAD_BYTES_MAX && memchr::memchr(b'\n', fresh).is_none() {
            return Ok(None);
        }
        match Head::parse(&self.held).map_err(Broken::Malformed)? {
            Some((head, length)) => Body::begin(head, &mut self.held[length..]).map(Some),
            None => Ok(None),
        }
    }
}

/// The body of an answer. With its end the connection goes to rest; dropped before that, it is closed.
pub struct Body {
    line: Option<Line>,
    framing: Framing,
    /// What came with the head.
    first: Bytes,
    keeps: bool,
    pool: Option<Arc<Pool>>,
}

impl Body {
    fn begin(head: Head, bytes: &mut [u8]) -> Result<(Head, Body), Broken> {
        let mut body = Body { line: None, framing: head.framing, first: Bytes::new(), keeps: true, pool: None };
        body.first = body.take(bytes)?;
        Ok((head, body))
    }

    /// The data of the body's next bytes.
    fn take(&mut self, bytes: &mut [u8]) -> Result<Bytes, Broken> {
        let Taken { used, data } = self.framing.take(bytes).map_err(Broken::Malformed)?;
        self.keeps &= used == bytes.len();
        Ok(Bytes::copy_from_slice(&bytes[..data]))
    }

    /// With the last byte, the connection goes to rest.
    fn settle(&mut self) {
        if self.framing.is_done()
            && let Some(line) = self.line.take()
            && let Some(pool) = self.pool.take()
            && self.keeps
        {
            pool.put(line);
        }
    }

    /// True when nothing is to come, read or unread.
    pub fn is_done(&self) -> bool {
        self.line.is_none() && self.first.is_empty()
    }

    /// The next data, as it arrived; `None` at the end.
    ///
    /// # Errors
    /// See [`Broken`]. The last that comes.
    pub fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        loop {
            let Some(mut line) = self.line.take() else { return Poll::Ready(None) };
            let fresh = match read(&mut line.socket, context, |bytes| (!bytes.is_empty()).then(|| self.take(bytes))) {
                Poll::Pending => {
                    self.line = Some(line);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(Broken::Io(error)))),
                Poll::Ready(Ok(None)) if self.framing == Framing::UntilClosed => return Poll::Ready(None),
                Poll::Ready(Ok(None)) => return Poll::Ready(Some(Err(Broken::Early))),
                Poll::Ready(Ok(Some(Err(broken)))) => return Poll::Ready(Some(Err(broken))),
                Poll::Ready(Ok(Some(Ok(fresh)))) => fresh,
            };
            self.line = Some(line);
            self.settle();
            if !fresh.is_empty() {
                return Poll::Ready(Some(Ok(fresh)));
            }
        }
    }

    /// [`Body::poll_data`], awaited.
    ///
    /// # Errors
    /// The same.
    pub async fn data(&mut self) -> Option<Result<Bytes, Broken>> {
        poll_fn(|context| self.poll_data(context)).await
    }

    /// All of it, if it is not longer than so many bytes.
    ///
    /// # Errors
    /// See [`Broken`].
    pub async fn whole(mut self, bytes_max: usize) -> Result<Bytes, Broken> {
        let first = self.data().await.transpose()?.unwrap_or_default();
        if first.len() > bytes_max {
            return Err(Broken::Long);
        }
        if self.is_done() {
            return Ok(first);
        }
        let mut whole = BytesMut::from(first);
        while let Some(more) = self.data().await.transpose()? {
            if whole.len() + more.len() > bytes_max {
                return Err(Broken::Long);
            }
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    }
}

/// Connections that rest, of one runtime thread to one upstream. The lock is for the compiler: nobody else takes it.
#[derive(Default)]
pub struct Pool {
    idle: Mutex<Vec<(Line, u64)>>,
}

impl Pool {
    /// The one that was used last, if it is open still.
    pub fn take(&self) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((mut line, _)) = idle.pop() {
            if line.is_quiet() {
                return Some(line);
            }
        }
        None
    }

    fn put(&self, line: Line) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push((line, clock::coarse_ms()));
        }
    }

    /// Closes those that have rested for long, and those that the other side has closed; to be called once a second.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle.is_empty() {
            let now_ms = clock::coarse_ms();
            idle.retain_mut(|(line, since_ms)| now_ms.saturating_sub(*since_ms) < IDLE_KEPT_MS && line.is_quiet());
        }
    }
}

#[cfg(test)]
mod tests;
