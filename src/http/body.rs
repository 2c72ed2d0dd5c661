//! Bodies: a request's, read with its limits, and a response's, which carries the access record to its end.

use super::access::Access;
use super::events::{self, Opening};
use super::fault::{Code, Fault};
use super::head::Refusal;
use super::ids::Id;
use super::spend::Spend;
use super::strict::{Ledger, Times};
use super::upload::Upload;
use super::v1;
use crate::board::held::Phase;
use crate::chat::upstream::{KEEP_ALIVE, Relay, Relayed};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// Bytes of request bodies that one worker holds at once (`OPERATIONS.md`).
const HELD_BYTES_MAX: u64 = 64 << 20;
/// Pieces of a stream that wait for a slow reader before its source waits too.
pub const STREAM_PIECES_MAX: usize = 64;

/// Of a whole body of HTTP/2, what is handed over at once: hyper takes a piece when a byte of it fits the client's window.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// A response's body.
pub struct Body {
    content: Content,
    access: Option<Box<Access>>,
}

enum Content {
    Empty,
    Whole(Bytes),
    /// What is left of it.
    Pieces(Bytes),
    Stream(mpsc::Receiver<Bytes>),
    Relay(Box<Relay>, Id, Box<Spend>),
    Late(Box<Late>),
}

/// A relay that has not begun.
struct Late {
    opening: Opening<Relayed>,
    timer: Pin<Box<Sleep>>,
    id: Id,
    spend: Spend,
}

impl Late {
    /// A comment, or what the relay begins with.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Relayed>, Bytes>> {
        match self.opening.as_mut().poll(cx) {
            Poll::Ready(Ok(relayed)) => Poll::Ready(Ok(Some(relayed))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(events::error_chunk(error, self.id.text()))),
            Poll::Pending => {
                ready!(self.timer.as_mut().poll(cx));
                self.timer.as_mut().reset(Instant::now() + KEEP_ALIVE);
                // Registers the next waking; it is 15 s away.
                let _ = self.timer.as_mut().poll(cx);
                Poll::Ready(Ok(None))
            }
        }
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Body {
        Body { content: Content::Empty, access: None }
    }

    /// All of it.
    pub fn whole(bytes: impl Into<Bytes>) -> Body {
        Body { content: Content::Whole(bytes.into()), access: None }
    }

    /// Piece by piece; the sender sees when nobody reads any more.
    pub fn stream() -> (mpsc::Sender<Bytes>, Body) {
        let (sender, receiver) = mpsc::channel(STREAM_PIECES_MAX);
        (sender, Body { content: Content::Stream(receiver), access: None })
    }

    /// An upstream's events, as they come; the id is for the log.
    pub fn relay(relay: Box<Relay>, id: Id, spend: Box<Spend>) -> Body {
        Body { content: Content::Relay(relay, id, spend), access: None }
    }

    /// The same before the upstream has said anything: comments until it does.
    pub fn late_relay(opening: Opening<Relayed>, id: Id, spend: Spend) -> Body {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Body { content: Content::Late(Box::new(Late { opening, timer, id, spend })), access: None }
    }

    /// What is whole goes out in pieces, so that it shows whether the client takes them.
    pub fn in_pieces(mut self) -> Body {
        self.content = match self.content {
            Content::Whole(bytes) if bytes.len() > PIECE_BYTES_MAX => Content::Pieces(bytes),
            content => content,
        };
        self
    }

    /// The access record ends with this body, or when it is dropped.
    pub fn recorded(mut self, mut access: Box<Access>) -> Body {
        if !matches!(self.content, Content::Empty | Content::Whole(_)) {
            access.detach();
        }
        access.waits_for(match self.content {
            Content::Empty | Content::Whole(_) | Content::Pieces(_) => Phase::Answer,
            Content::Late(_) => Phase::Upstream,
            Content::Stream(_) | Content::Relay(..) => Phase::Stream,
        });
        self.access = Some(access);
        self
    }

    fn token(&mut self) {
        if let Some(access) = &mut self.access {
            access.token();
        }
    }

    fn piece(&mut self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(access) = &mut self.access {
            access.sent(bytes.len());
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Content::Late(late) = &mut self.content {
            match ready!(late.poll(cx)) {
                Ok(None) => return self.piece(events::COMMENT),
                Ok(Some(Relayed::Stream(relay))) => {
                    let spend = Box::new(std::mem::take(&mut late.spend));
                    self.content = Content::Relay(relay, late.id.clone(), spend);
                }
                // Of an upstream that was asked for a stream.
                Ok(Some(Relayed::Whole(_))) => self.content = Content::Empty,
                Err(last) => {
                    self.content = Content::Empty;
                    return self.piece(last);
                }
            }
        }
        let next = match &mut self.content {
            Content::Empty | Content::Late(_) => None,
            Content::Pieces(bytes) if bytes.is_empty() => None,
            Content::Pieces(bytes) => Some(bytes.split_to(bytes.len().min(PIECE_BYTES_MAX))),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                if let Some(access) = &mut self.access {
                    access.sent_whole(bytes.len());
                }
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Stream(receiver) => {
                let event = ready!(receiver.poll_recv(cx));
                if event.as_ref().is_some_and(|event| events::is_delta(event)) {
                    self.token();
                }
                event
            }
            Content::Relay(relay, id, spend) => match ready!(relay.poll_next(cx)) {
                Some(Err(error)) => Some(events::error_chunk(error, id.text())),
                Some(Ok(events)) => {
                    spend.events(&events);
                    if self.access.as_ref().is_some_and(|access| access.awaits_token()) && v1::holds_text(&events) {
                        self.token();
                    }
                    Some(events)
                }
                None => None,
            },
        };
        match next {
            Some(bytes) => self.piece(bytes),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Pieces(bytes) => bytes.is_empty(),
            content => matches!(content, Content::Empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) | Content::Pieces(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(_) | Content::Relay(..) | Content::Late(_) => SizeHint::default(),
        }
    }
}

/// Limits of request bodies, and what one worker holds of them.
pub struct Intake {
    /// Longest body in bytes.
    pub bytes_max: u64,
    held: AtomicU64,
}

impl Intake {
    /// Nothing is held yet.
    pub fn new(bytes_max: u64) -> Intake {
        Intake { bytes_max, held: AtomicU64::new(0) }
    }

    /// Reads a JSON body.
    ///
    /// # Errors
    /// 415 (also for a compressed body), 413 (told from the length alone when there is one), 503 when the worker holds too
    /// much already, 400 when the body is malformed or breaks off, 408 when the sweeper found it too slow.
    pub async fn json(&self, headers: &HeaderMap, body: &mut Upload, ledger: &Ledger) -> Result<Bytes, Fault> {
        if !is_json(headers) {
            let text = "Send the body as JSON, with the header Content-Type: application/json.";
            return Err(Fault::new(Code::UnsupportedMediaType, text));
        }
        if is_coded(headers) {
            return Err(Fault::new(Code::UnsupportedMediaType, "Send the body as it is, without a Content-Encoding."));
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.bytes_max) {
            return Err(self.too_large());
        }
        let _held = self.hold(announced.unwrap_or(self.bytes_max))?;
        let body = Limited::new(body, usize::try_from(self.bytes_max).unwrap_or(usize::MAX));
        let read = match ledger.reader_times() {
            None => whole(body).await,
            Some(times) => match timed(body, times).await {
                Some(read) => read,
                None => return Err(Fault::from(Refusal::BodyTimeout)),
            },
        };
        match (read, ledger.refusal()) {
            (Ok(whole), _) => Ok(whole),
            (Err(error), _) if error.is::<LengthLimitError>() => Err(self.too_large()),
            (Err(_), Some(refusal)) => Err(Fault::from(refusal)),
            (Err(error), None) => {
                Err(Fault::new(Code::InvalidRequest, "The body ended early.").inside(error).closing())
            }
        }
    }

    fn too_large(&self) -> Fault {
        let text = format!("The body is longer than {} bytes. Send less.", self.bytes_max);
        Fault::new(Code::PayloadTooLarge, text).closing()
    }

    fn hold(&self, bytes: u64) -> Result<Held<'_>, Fault> {
        let held = Held { held: &self.held, bytes };
        match self.held.fetch_add(bytes, Relaxed) + bytes <= HELD_BYTES_MAX {
            true => Ok(held),
            false => Err(Fault::new(Code::Overloaded, "Too many uploads at once. Try again shortly.").retry_after(1)),
        }
    }
}

/// Reads a body; one that came in one piece is that piece.
async fn whole(mut body: Limited<&mut Upload>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let Some(first) = body.frame().await else { return Ok(Bytes::new()) };
    let first = first?.into_data().unwrap_or_default();
    if http_body::Body::is_end_stream(&body) {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    while let Some(frame) = body.frame().await {
        whole.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(whole.freeze())
}

/// Reads a body that no sweeper watches; `None`: it is too slow.
async fn timed(
    mut body: Limited<&mut Upload>,
    times: &Times,
) -> Option<Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> {
    let began = Instant::now();
    let mut whole = BytesMut::new();
    loop {
        let limit = began + allowed(times, whole.len() as u64);
        match tokio::time::timeout_at(limit, body.frame()).await.ok()? {
            None => return Some(Ok(whole.freeze())),
            Some(Err(error)) => return Some(Err(error)),
            Some(Ok(frame)) => whole.extend_from_slice(frame.data_ref().map_or(&[], Bytes::as_ref)),
        }
    }
}

/// How long a body may take whose bytes these are so far, in either direction.
pub fn allowed(times: &Times, bytes: u64) -> Duration {
    let earned_ms = (bytes / 1024).saturating_mul(times.per_kib_ms);
    Duration::from_millis(earned_ms.saturating_add(times.body_ms_max).min(times.whole_ms_max))
}

struct Held<'a> {
    held: &'a AtomicU64,
    bytes: u64,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Relaxed);
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}

/// Whether the body is compressed, or something else than it is (RFC 9110, section 8.4).
fn is_coded(headers: &HeaderMap) -> bool {
    let plain =
        |coding: &[u8]| matches!(coding.trim_ascii(), b"") || coding.trim_ascii().eq_ignore_ascii_case(b"identity");
    headers.get_all(CONTENT_ENCODING).iter().any(|codings| !codings.as_bytes().split(|byte| *byte == b',').all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_body_is_coded_unless_it_is_itself() {
        let with = |codings: &[&'static str]| {
            let pairs = codings.iter().map(|it| (CONTENT_ENCODING, HeaderValue::from_static(it)));
            is_coded(&pairs.collect())
        };
        assert!(!with(&[]) && !with(&[""]) && !with(&["identity"]) && !with(&["Identity, identity"]));
        assert!(with(&["gzip"]) && with(&["identity", "br"]) && with(&["identity, gzip"]) && with(&["x"]));
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        let with = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            is_json(&headers)
        };
        assert!(with("application/json") && with("Application/JSON; charset=utf-8"));
        assert!(!with("text/plain") && !with("application/jsonp") && !is_json(&HeaderMap::new()));
    }

    #[test]
    fn a_worker_holds_a_bounded_amount() {
        let intake = Intake::new(1 << 30);
        let first = intake.hold(HELD_BYTES_MAX).unwrap();
        assert_eq!(intake.hold(1).err().map(|fault| fault.code), Some(Code::Overloaded));
        drop(first);
        assert!(intake.hold(1).is_ok());
    }
}
