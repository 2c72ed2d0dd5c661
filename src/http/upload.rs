//! A request's body. One of HTTP/2 is taken in for a while longer when its answer did not wait for it.
//!
//! ```text
//! answered, the body under way ──▶ thrown away up to its end, a limit of bytes or of time ──▶ only then RST_STREAM
//! ```
//! A reset at once is allowed (RFC 9113, section 8.1), but clients that still send take it for a failure and lose the answer:
//! curl 7.88 does. In HTTP/1 the strict stream does the same for a whole connection.

use super::strict::LINGER_BYTES_MAX;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;

/// See above.
pub struct Upload {
    /// Nothing once it failed.
    inner: Option<Incoming>,
    linger: Option<Duration>,
}

impl Upload {
    /// `linger`: how long what nobody read is waited for; `None`: not at all.
    pub fn new(body: Incoming, linger: Option<Duration>) -> Upload {
        Upload { inner: Some(body), linger }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.inner else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = frame {
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
