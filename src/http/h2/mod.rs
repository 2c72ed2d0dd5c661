//! One HTTP/2 connection's life: many requests at once, bounded in number, size and time.
//!
//! ```text
//! stream ──▶ Guarded: frames counted, stalls timed ──▶ hyper's HTTP/2 ──▶ App::serve, as HTTP/1 has it
//!                                      each stream's answer timed: pace ──▶ not taken: RST_STREAM
//!                        a look once a second ──▶ idle, stuck or leaving: GOAWAY, then the end
//! ```
//! What h2 itself holds of an answer, a piece of 16 KiB a stream at most, ends with the connection.
//! Deliberately absent: push, extended CONNECT, the upgrade from HTTP/1.1 (RFC 9113 gave it up).

mod bare;
mod frames;
mod guarded;
mod pace;

use super::body::Body;
use super::fault::Fault;
use super::head::{Limits, Refusal, is_authority, is_path};
use super::headers::{Base, REQUEST_ID};
use super::strict::Ledger;
use super::{App, address};
use crate::limit::{Peer, Told};
use crate::listener::Purpose;
use crate::log::{self, Security};
use crate::sys::clock;
use guarded::Guarded;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pace::{Heard, Paced, heard};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests of one connection at once.
const STREAMS_MAX: u32 = 64;
/// Streams that the client reset before they were taken up (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 16;
/// Streams that we reset, in the life of a connection.
const OWN_RESETS_MAX: usize = 64;
/// What may come of one body, and of all bodies of a connection, before somebody reads it; in bytes.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// What waits to be sent, a stream, in bytes.
const SEND_BYTES_MAX: usize = 64 << 10;
/// How often the connection is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After a GOAWAY, before the connection is dropped.
const GOODBYE: Duration = Duration::from_secs(5);
/// The same for a connection without requests, in looks.
const GOODBYE_LOOKS: u32 = 3;

/// Serves one connection to its end.
pub async fn serve<S>(app: Arc<App>, peer: Peer, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ledger = Arc::new(Ledger::of_streams(clock::monotonic_ms(), app.plan.times));
    let pulse = Arc::new(Pulse::default());
    let service = service_fn(|request| {
        let (app, ledger) = (app.clone(), ledger.clone());
        async move {
            let answer = heard(app.serve((peer, Purpose::Public), ledger, request)).await;
            answer.map(|response| response.map(|body| Heard(body.in_pieces())))
        }
    });
    let dress = {
        let app = app.clone();
        move || far_too_large(&app, peer)
    };
    let io = Guarded::new(stream, ledger.clone(), pulse.clone(), dress);
    let connection = http2::Builder::new(Paced { times: app.plan.times, pulse: pulse.clone() })
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        // Wider than the limits of a head, so that what is too large gets an answer with its body; what is larger still is
        // answered by h2, with the fields that `guarded` puts there.
        .max_header_list_size(app.plan.head.head_bytes_max as u32 * 2)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let mut looks = tokio::time::interval(LOOK);
    let mut watch = Watch::new(&app, &ledger, &pulse);
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = looks.tick() => {}
            () = pulse.gave_up.notified() => {}
        }
        if watch.over() {
            connection.as_mut().graceful_shutdown();
            break;
        }
    }
    // A client that answers the GOAWAY ends by itself; one that does not has this long, and its requests theirs.
    let until = Instant::now() + if watch.stuck() { GOODBYE } else { app.plan.request_time + GOODBYE };
    let looks_max = if watch.abandoned() { 1 } else { GOODBYE_LOOKS };
    let mut idle_looks = 0;
    while Instant::now() < until && idle_looks < looks_max {
        idle_looks = if ledger.in_flight() == 0 { idle_looks + 1 } else { 0 };
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = looks.tick() => {}
        }
    }
}

/// The fields of an answer that h2 gives by itself, to a head far over the limits; nothing of the request is known.
fn far_too_large(app: &App, peer: Peer) -> HeaderMap {
    let id = app.ids.of(&HeaderMap::new());
    let reason = Fault::from(Refusal::HeadTooLarge).outside;
    log::security(Security::Oversize, address(peer), &[("reason", &reason), ("request_id", id.text())]);
    let mut headers = app.headers.base(Base::Empty, Told::Nothing, None);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id.header());
    headers
}

/// What the strict filter says of a head of HTTP/1, for one of HTTP/2: its size, its target, and the host it names.
pub fn refusal<B>(request: &Request<B>, limits: &Limits) -> Option<Refusal> {
    if request.version() != Version::HTTP_2 {
        return None;
    }
    let headers = request.headers();
    let field_bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + 2 + value.len();
    let line_bytes = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if line_bytes > limits.request_line_bytes_max {
        return Some(Refusal::LineTooLong);
    }
    if headers.len() > limits.fields_max {
        return Some(Refusal::FieldsTooMany);
    }
    if headers.iter().map(field_bytes).any(|bytes| bytes > limits.field_bytes_max) {
        return Some(Refusal::FieldTooLong);
    }
    if headers.iter().map(field_bytes).sum::<usize>() + line_bytes > limits.head_bytes_max {
        return Some(Refusal::HeadTooLarge);
    }
    if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Some(Refusal::LengthRepeated);
    }
    // h2 has read any other length.
    if headers.get(CONTENT_LENGTH).is_some_and(HeaderValue::is_empty) {
        return Some(Refusal::LengthInvalid);
    }
    // RFC 9113, section 8.2.1.
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if headers.values().map(HeaderValue::as_bytes).any(|value| blank(value.first()) || blank(value.last())) {
        return Some(Refusal::SpaceAroundValue);
    }
    misdirected(request).or_else(|| host(request))
}

/// A target that HTTP/1 could not have. h2 has cut a fragment off already.
fn misdirected<B>(request: &Request<B>) -> Option<Refusal> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let fits = match *request.method() {
        // It has none, and its authority is judged as any.
        Method::CONNECT => true,
        Method::OPTIONS if target == "*" => true,
        _ => is_path(target.as_bytes()),
    };
    let scheme = request.uri().scheme_str().unwrap_or("http");
    let known = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    (!fits || !known).then_some(Refusal::Target)
}

fn host<B>(request: &Request<B>) -> Option<Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => Some(Refusal::HostRepeated),
        (Some(authority), _, _) if !is_authority(authority.as_str().as_bytes()) => Some(Refusal::HostInvalid),
        (None, Some(host), _) if !is_authority(host.as_bytes()) => Some(Refusal::HostInvalid),
        (None, None, None) => Some(Refusal::HostMissing),
        (Some(authority), Some(host), None) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Some(Refusal::HostDiffers)
        }
        _ => None,
    }
}

/// A HEAD's answer: hyper leaves a body out in HTTP/1, not here.
pub fn without_body(response: &mut Response<Body>) {
    if let Some(bytes) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, bytes.into());
    }
    *response.body_mut() = Body::empty();
}

/// What the streams and the socket tell the connection's watch.
#[derive(Default)]
struct Pulse {
    /// Since when no bytes go out; milliseconds on the monotonic clock, 0: they do.
    stalled_ms: AtomicU64,
    /// An answer was not taken in time.
    given_up: AtomicBool,
    /// The same for who waits for it.
    gave_up: Notify,
}

/// Decides when a connection has lived long enough.
struct Watch<'a> {
    app: &'a App,
    ledger: &'a Ledger,
    pulse: &'a Pulse,
    answered: u64,
    since_ms: u64,
}

impl<'a> Watch<'a> {
    fn new(app: &'a App, ledger: &'a Ledger, pulse: &'a Pulse) -> Watch<'a> {
        Watch { app, ledger, pulse, answered: 0, since_ms: clock::monotonic_ms() }
    }

    fn over(&mut self) -> bool {
        let now_ms = clock::monotonic_ms();
        let answered = self.ledger.answers();
        if answered != self.answered {
            (self.answered, self.since_ms) = (answered, now_ms);
        }
        let times = &self.app.plan.times;
        let limit_ms = match (self.ledger.in_flight(), answered) {
            (0, 0) => times.head_ms_max,
            (0, _) => times.idle_ms_max,
            // Requests end by themselves; answers that nobody takes do not.
            _ => times.whole_ms_max + times.body_ms_max,
        };
        let late = now_ms.saturating_sub(self.since_ms) > limit_ms;
        self.app.leaving.closing() || late || self.stuck() || self.abandoned()
    }

    /// An answer was not taken in time, and no other is under way.
    fn abandoned(&self) -> bool {
        self.pulse.given_up.load(Relaxed) && self.ledger.in_flight() == 0
    }

    /// The client takes nothing of what is sent.
    fn stuck(&self) -> bool {
        let since_ms = self.pulse.stalled_ms.load(Relaxed);
        since_ms > 0 && clock::monotonic_ms().saturating_sub(since_ms) > self.app.plan.times.body_ms_max
    }
}
