//! The one client for every OpenAI-compatible server: the engine on its Unix socket, vLLM, Ollama, a router.
//!
//! ```text
//! target by target, until one answers ─┬─▶ open:  Stream ──▶ Piece, Piece, … ──▶ end    (/api takes replies apart)
//!                                      └─▶ relay: Relay  ──▶ the upstream's bytes ──▶ end  (/v1 only looks at them)
//! ```
//! Every step has its limit: connect, first token, silence between tokens, the whole. Before the first byte a call
//! may move on to the next target; afterwards never. Dropping the stream closes the connection, which is how an
//! upstream learns that nobody reads any more.

pub mod connector;
mod events;
mod relay;
mod reply;
pub mod rest;
pub mod sse;

pub use relay::{Ending, KEEP_ALIVE, Relay, Relayed};
pub use reply::{Piece, Stream};

use super::error::{Error, Refusal};
use super::wire::{ErrorBody, Models, Request};
use crate::sys::clock;
use bytes::Bytes;
use connector::{Connector, Place};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rest::Rest;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Most bytes of an answer that is not a stream, errors included.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Idle connections kept to each upstream.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Shorter than what servers commonly keep, so that a kept connection is rarely a dead one.
const IDLE_KEPT: Duration = Duration::from_secs(20);
/// Upstreams at most.
pub const TARGETS_MAX: usize = 16;
/// What a client is told to wait for when an upstream says nothing.
const RETRY_S: u64 = 2;

/// Tells our own engine whose a request is, as a hexadecimal number: clients take turns there.
pub const CLIENT: HeaderName = HeaderName::from_static("x-chatcorn-client");

/// One upstream as configured.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub place: Place,
    /// Its `host[:port]`, for the `Host` header.
    pub authority: String,
    /// What stands before `/chat/completions`, as in `/v1`.
    pub base_path: String,
    /// `Authorization`, marked sensitive.
    pub bearer: Option<HeaderValue>,
    /// Our own engine, whose words may be passed on.
    pub own: bool,
}

/// Time limits of a call.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To connect.
    pub connect: Duration,
    /// From the request to the first event.
    pub first_token: Duration,
    /// Between two events.
    pub idle: Duration,
}

/// What a call passes on beside the conversation.
#[derive(Clone, Debug)]
pub struct Call {
    /// The client's or our own `X-Request-Id`.
    pub request_id: HeaderValue,
    /// W3C trace context.
    pub traceparent: Option<HeaderValue>,
    /// The whole request's end.
    pub deadline: Instant,
    /// Whose it is, as a number: see [`super::admission`].
    pub client: u64,
}

/// All upstreams, in order of preference.
pub struct Upstream {
    ways: Vec<Way>,
    limits: Limits,
    rests: Arc<[Rest]>,
}

/// The way to one of them.
struct Way {
    target: Target,
    connector: Connector,
    client: Client<Connector, Full<Bytes>>,
}

/// What an upstream is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Whole,
    Stream,
    Models,
}

/// The head of a good answer, and the body that follows.
struct Answer {
    head: http::response::Parts,
    body: Incoming,
    /// The first token must be there by then.
    until: Instant,
}

impl Upstream {
    /// A client with its own connection pools; made inside a runtime. `rests` is what all threads of the worker know of
    /// the upstreams, one for each.
    pub fn new(targets: Vec<Target>, limits: Limits, rests: Arc<[Rest]>) -> Upstream {
        let ways = targets.into_iter().zip(&*rests).map(|(target, _)| Way::new(target, limits.connect)).collect();
        Upstream { ways, limits, rests }
    }

    /// True when any of them accepts a connection now.
    pub async fn reachable(&self) -> bool {
        for way in &self.ways {
            if way.connector.connect().await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Asks for a reply; returns when the first upstream that can answer has begun to.
    ///
    /// # Errors
    /// The last upstream's failure, when none can.
    pub async fn open(&self, request: &Request, call: &Call) -> Result<Stream, Error> {
        let body = serde_json::to_vec(request).map_err(|error| Error::Upstream(error.to_string()))?;
        let body = Bytes::from(body);
        let (mut tried, mut failure) = (0, none());
        while let Some((way, rest)) = self.next(&mut tried) {
            let begun = match self.send(way, Wish::Stream, &body, call).await {
                Ok(answer) => Stream::begin(answer, self.limits.idle, call.deadline).await,
                // The request is ours, so a refusal of it is no fault of the client's.
                Err(Error::Refused(refusal)) => Err(Error::Upstream(refusal.inside)),
                Err(error) => Err(error),
            };
            match way.saw(rest, begun) {
                Err(error) if !error.is_final() => failure = error,
                begun => return begun,
            }
        }
        Err(failure)
    }

    /// Passes a client's own request on; returns when an upstream has answered, or has sent the first event of a stream.
    ///
    /// # Errors
    /// The last upstream's failure, when none can.
    pub async fn relay(&self, body: &Bytes, stream: bool, call: &Call, ending: Ending) -> Result<Relayed, Error> {
        let wish = if stream { Wish::Stream } else { Wish::Whole };
        let (mut tried, mut failure) = (0, none());
        while let Some((way, rest)) = self.next(&mut tried) {
            let begun = match self.send(way, wish, body, call).await {
                Ok(answer) if stream && answer.is_stream() => {
                    Relay::begin(answer, self.limits.idle, call.deadline, ending.clone()).await.map(Relayed::Stream)
                }
                Ok(_) if stream => Err(Error::Upstream("it does not stream".to_owned())),
                Ok(answer) => relay::whole(answer, ending.clone()).await.map(Relayed::Whole),
                Err(error) => Err(error),
            };
            match way.saw(rest, begun) {
                Err(error) if !error.is_final() => failure = error,
                begun => return begun,
            }
        }
        Err(failure)
    }

    /// The models of the first upstream that tells them, as it tells them.
    ///
    /// # Errors
    /// The last upstream's failure, when none can.
    pub async fn models(&self, call: &Call) -> Result<Bytes, Error> {
        let (mut tried, mut failure) = (0, none());
        while let Some((way, _)) = self.next(&mut tried) {
            let told = match self.send(way, Wish::Models, &Bytes::new(), call).await {
                Ok(answer) => answer.collect().await,
                Err(error) => Err(error),
            };
            match told {
                Ok(bytes) if serde_json::from_slice::<Models>(&bytes).is_ok() => return Ok(bytes),
                Ok(_) => failure = Error::Upstream("its answer is not a list of models".to_owned()),
                Err(Error::Refused(refusal)) => failure = Error::Upstream(refusal.inside),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The next to ask: in order of preference, those that rest at the end. `tried` has a bit for each.
    fn next(&self, tried: &mut u64) -> Option<(&Way, &Rest)> {
        let now_ms = clock::monotonic_ms();
        let open = |at: &usize| *tried & (1 << at) == 0;
        let all = 0..self.ways.len();
        let rested = all.clone().filter(open).find(|at| self.rests[*at].is_over(now_ms));
        let at = rested.or_else(|| all.clone().find(open))?;
        *tried |= 1 << at;
        self.ways.get(at).zip(self.rests.get(at))
    }

    async fn send(&self, way: &Way, wish: Wish, body: &Bytes, call: &Call) -> Result<Answer, Error> {
        // An answer in one piece has no first token: its head comes when all is generated.
        let first_token = Instant::now() + self.limits.first_token;
        let until = if wish == Wish::Whole { call.deadline } else { call.deadline.min(first_token) };
        let answer = timeout_at(until, way.ask(wish, body, call));
        let answer = answer.await.map_err(|_| Error::Timeout("the upstream's first token"))??;
        let (head, body) = answer.into_parts();
        let answer = Answer { head, body, until };
        match answer.head.status.is_success() {
            true => Ok(answer),
            false => Err(failed(answer, way.target.own).await),
        }
    }
}

impl Way {
    fn new(target: Target, connect_limit: Duration) -> Way {
        let connector = Connector::new(target.place.clone(), connect_limit);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_KEPT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector.clone());
        Way { target, connector, client }
    }

    /// Asks, and asks again when the connection closed without a word: a kept one may have been given up by the other
    /// side just then.
    async fn ask(&self, wish: Wish, body: &Bytes, call: &Call) -> Result<http::Response<Incoming>, Error> {
        let request = || {
            let request = call.mark(self.target.request(wish), self.target.own).body(Full::new(body.clone()));
            request.map_err(|error| Error::Upstream(error.to_string()))
        };
        match self.client.request(request()?).await {
            Err(error) if is_stale(&error) => self.client.request(request()?).await.map_err(refused),
            answer => answer.map_err(refused),
        }
    }

    /// Remembers how a call began.
    fn saw<T>(&self, rest: &Rest, begun: Result<T, Error>) -> Result<T, Error> {
        match &begun {
            Ok(_) | Err(Error::Refused(_) | Error::ContextLength(_)) => rest.worked(),
            Err(Error::NotReady(_) | Error::Upstream(_) | Error::Timeout(_)) => {
                let news = rest.failed(clock::monotonic_ms());
                if let (true, Err(error)) = (news, &begun) {
                    tracing::warn!(upstream = self.target.authority.as_str(), reason = %error, "an upstream failed");
                }
            }
            Err(Error::Overloaded(_) | Error::Store(_) | Error::Stopping) => {}
        }
        begun
    }
}

fn is_stale(error: &hyper_util::client::legacy::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>());
    let reset = |error: &std::io::Error| matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    let broken = |error: &hyper::Error| std::error::Error::source(error)?.downcast_ref().map(reset);
    cause.is_some_and(|cause| cause.is_incomplete_message() || broken(cause) == Some(true))
}

fn none() -> Error {
    Error::NotReady("no upstream is configured".to_owned())
}

impl Answer {
    fn is_stream(&self) -> bool {
        self.head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
    }

    /// The whole body.
    async fn collect(self) -> Result<Bytes, Error> {
        let collected = timeout_at(self.until, Limited::new(self.body, ANSWER_BYTES_MAX).collect()).await;
        let whole = collected.map_err(|_| Error::Timeout("the upstream's answer"))?;
        Ok(whole.map_err(|error| Error::Upstream(format!("its answer broke: {error}")))?.to_bytes())
    }
}

/// What an answer with an error status means. The words of a strange upstream go nowhere; those of our own engine are
/// written for clients.
async fn failed(answer: Answer, own: bool) -> Error {
    let retry_s = answer.head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let status = answer.head.status.as_u16();
    let bytes = answer.collect().await.unwrap_or_default();
    let detail = serde_json::from_slice::<ErrorBody>(&bytes).map(|body| body.error).unwrap_or_default();
    let code = detail.code.as_deref().unwrap_or("");
    let plain = |text: &str| text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match (status, code) {
        (_, "context_length_exceeded") => Error::ContextLength(detail.message),
        (503, "overloaded") | (429, _) => Error::Overloaded(retry_s.unwrap_or(RETRY_S)),
        (503, _) => Error::NotReady("it answered 503".to_owned()),
        (400 | 404 | 413 | 422, _) => Error::Refused(Box::new(Refusal {
            inside: format!("it answered {status} {}", if plain(code) { code } else { "" }),
            unknown_model: status == 404 || code == "model_not_found",
            param: detail.param.filter(|param| plain(param)),
            message: own.then_some(detail.message).filter(|message| !message.is_empty()),
        })),
        (status, _) => Error::Upstream(format!("it answered {status} {}", if plain(code) { code } else { "" })),
    }
}

impl Target {
    fn request(&self, wish: Wish) -> http::request::Builder {
        let (path, accept) = match wish {
            Wish::Models => ("/models", "application/json"),
            Wish::Whole => ("/chat/completions", "application/json"),
            Wish::Stream => ("/chat/completions", "text/event-stream"),
        };
        let request = http::Request::builder().uri(self.uri(path)).header(ACCEPT, accept);
        self.authorized(match wish {
            Wish::Models => request,
            Wish::Whole | Wish::Stream => request.method(http::Method::POST).header(CONTENT_TYPE, "application/json"),
        })
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.authority, self.base_path)
    }

    fn authorized(&self, request: http::request::Builder) -> http::request::Builder {
        match &self.bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer),
            None => request,
        }
    }
}

impl Call {
    fn mark(&self, mut request: http::request::Builder, own: bool) -> http::request::Builder {
        if own {
            request = request.header(CLIENT, format!("{:x}", self.client));
        }
        let request = request.header("x-request-id", &self.request_id);
        match &self.traceparent {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        }
    }
}

/// A call that got no answer: nobody listens there (not ready), or the connection broke (a failure).
fn refused(error: hyper_util::client::legacy::Error) -> Error {
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    match error.is_connect() {
        true => Error::NotReady(format!("no connection: {cause}")),
        false => Error::Upstream(format!("the connection broke: {cause}")),
    }
}
