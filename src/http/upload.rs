//! A request's body. One that its answer did not wait for is taken in for a while longer.
//!
//! ```text
//! HTTP/2: answered, the body under way ──▶ thrown away up to its end, a limit of bytes or of time ──▶ only then RST_STREAM
//! HTTP/1: the same where the rest is small; else the answer says that it is the last, and the strict stream lingers
//! ```
//! A reset at once is allowed (RFC 9113, section 8.1), but clients that still send take it for a failure and lose the answer:
//! curl 7.88 does. hyper takes in what it can read of a body of HTTP/1 at once, and closes without a word when that is not
//! all: a client whose head and body are two packets (Python's) would find its kept connection gone.

use super::strict::{LINGER_BYTES_MAX, Ledger};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

/// Of a body of HTTP/1 that nobody reads, what is waited for at most, in bytes.
const REST_BYTES_MAX: u64 = 64 << 10;
/// So much of it hyper takes in by itself, once it is there.
const READ_BYTES_MIN: u64 = 4 << 10;

/// See above.
pub struct Upload {
    /// Nothing once it failed or was read to its end.
    inner: Option<Incoming>,
    linger: Option<Duration>,
}

impl Upload {
    /// `linger`: how long what nobody read is waited for; `None`: not at all.
    pub fn new(body: Incoming, linger: Option<Duration>) -> Upload {
        Upload { inner: Some(body), linger }
    }

    /// For an answer of HTTP/1 that is about to go out: what nobody has read is taken in for `linger` at most. True: the
    /// connection has to end with this answer.
    pub fn is_last(&mut self, ledger: &Ledger, expects: bool, linger: Duration) -> bool {
        let Some(rest) = self.inner.take().filter(|body| !http_body::Body::is_end_stream(body)) else { return false };
        let hint = http_body::Body::size_hint(&rest);
        if hint.exact().is_some_and(|bytes| bytes <= READ_BYTES_MIN) && !ledger.uploads() {
            return false;
        }
        // A client that waits for 100 Continue sends nothing after this answer.
        if hint.lower() > REST_BYTES_MAX || (expects && ledger.uploads()) || ledger.broken_body().is_some() {
            return true;
        }
        tokio::spawn(tokio::time::timeout(linger, discard(rest)));
        false
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.inner else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.inner = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let rest = self.inner.take().filter(|body| !http_body::Body::is_end_stream(body));
        if let (Some(rest), Some(linger), Ok(runtime)) = (rest, self.linger, Handle::try_current()) {
            runtime.spawn(tokio::time::timeout(linger, discard(rest)));
        }
    }
}

async fn discard(mut rest: Incoming) {
    let mut bytes = 0;
    while bytes < LINGER_BYTES_MAX
        && let Some(Ok(frame)) = rest.frame().await
    {
        bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
}
