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
mod http1;
mod line;
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
use http::header::{HeaderName, HeaderValue};
use http1::Head;
use line::{Body, Broken, Line, Message, Pool};
use rest::Rest;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Most bytes of an answer that is not a stream, errors included.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// A body up to this length goes out in one piece with its head.
const JOINED_BYTES_MAX: usize = 16 << 10;
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
    pool: Arc<Pool>,
    /// How a request begins, by [`Wish`].
    heads: [Vec<u8>; 3],
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
    head: Head,
    body: Body,
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

    /// Closes idle connections that have rested for long; to be called once a second.
    pub fn sweep(&self) {
        self.ways.iter().for_each(|way| way.pool.sweep());
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
    pub async fn relay(&self, body: &Bytes, stream: bool, call: &Call, ending: &Ending) -> Result<Relayed, Error> {
        let wish = if stream { Wish::Stream } else { Wish::Whole };
        let (mut tried, mut failure) = (0, none());
        while let Some((way, rest)) = self.next(&mut tried) {
            let begun = match self.send(way, wish, body, call).await {
                Ok(answer) if stream && answer.is_stream() => {
                    Relay::begin(answer, self.limits.idle, call.deadline, ending.clone()).await.map(Relayed::Stream)
                }
                Ok(_) if stream => Err(Error::Upstream("it does not stream".to_owned())),
                Ok(answer) => relay::whole(answer).await.map(Relayed::Whole),
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
        let now_ms = clock::coarse_ms();
        let open = |at: &usize| *tried & (1 << at) == 0;
        let all = 0..self.ways.len();
        let rested = all.clone().filter(open).find(|at| self.rests[*at].is_over(now_ms));
        let at = rested.or_else(|| all.clone().find(open))?;
        *tried |= 1 << at;
        self.ways.get(at).zip(self.rests.get(at))
    }

    async fn send(&self, way: &Way, wish: Wish, body: &Bytes, call: &Call) -> Result<Answer, Error> {
        // An answer in one piece has no first token: its head comes when all is generated.
        let until = match wish {
            Wish::Whole => call.deadline,
            Wish::Stream | Wish::Models => call.deadline.min(Instant::now() + self.limits.first_token),
        };
        let answer = timeout_at(until, way.ask(wish, body, call));
        let answer = answer.await.map_err(|_| Error::Timeout("the upstream's first token"))??;
        let (head, body) = answer;
        let answer = Answer { head, body, until };
        match head.status {
            200..300 => Ok(answer),
            _ => Err(failed(answer, way.target.own).await),
        }
    }
}

impl Way {
    fn new(target: Target, connect_limit: Duration) -> Way {
        let connector = Connector::new(target.place.clone(), connect_limit);
        let heads = [Wish::Whole, Wish::Stream, Wish::Models].map(|wish| target.head(wish));
        Way { target, connector, pool: Arc::default(), heads }
    }

    /// Asks, and asks again on a fresh connection when a kept one closed without a word: the other side may have given
    /// it up just then.
    async fn ask(&self, wish: Wish, body: &Bytes, call: &Call) -> Result<(Head, Body), Error> {
        let message = self.message(wish, body, call);
        if let Some(line) = self.pool.take() {
            match line.ask(&message, &self.pool).await {
                Err(broken) if broken.is_stale() => {}
                answer => return answer.map_err(broke),
            }
        }
        let socket = self.connector.connect().await;
        let socket = socket.map_err(|error| Error::NotReady(format!("no connection: {error}")))?;
        Line::new(socket).ask(&message, &self.pool).await.map_err(broke)
    }

    fn message(&self, wish: Wish, body: &Bytes, call: &Call) -> Message {
        let known = &self.heads[wish as usize];
        let joined = body.len() <= JOINED_BYTES_MAX;
        let mut head = Vec::with_capacity(known.len() + 256 + if joined { body.len() } else { 0 });
        head.extend_from_slice(known);
        if self.target.own {
            let _ = write!(head, "{CLIENT}: {:x}\r\n", call.client);
        }
        put(&mut head, "x-request-id", call.request_id.as_bytes());
        if let Some(traceparent) = &call.traceparent {
            put(&mut head, "traceparent", traceparent.as_bytes());
        }
        if wish != Wish::Models {
            put(&mut head, "content-length", itoa::Buffer::new().format(body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        match joined {
            true => {
                head.extend_from_slice(body);
                Message { head, body: Bytes::new() }
            }
            false => Message { head, body: body.clone() },
        }
    }

    /// Remembers how a call began.
    fn saw<T>(&self, rest: &Rest, begun: Result<T, Error>) -> Result<T, Error> {
        match &begun {
            Ok(_) | Err(Error::Refused(_) | Error::ContextLength(_)) => rest.worked(),
            Err(Error::NotReady(_) | Error::Upstream(_) | Error::Timeout(_)) => {
                let news = rest.failed(clock::coarse_ms());
                if let (true, Err(error)) = (news, &begun) {
                    tracing::warn!(upstream = self.target.authority.as_str(), reason = %error, "an upstream failed");
                }
            }
            Err(Error::Overloaded(_) | Error::Store(_) | Error::Stopping) => {}
        }
        begun
    }
}

fn put(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

fn none() -> Error {
    Error::NotReady("no upstream is configured".to_owned())
}

impl Answer {
    fn is_stream(&self) -> bool {
        self.head.streams
    }

    /// The whole body.
    async fn collect(self) -> Result<Bytes, Error> {
        let collected = timeout_at(self.until, self.body.whole(ANSWER_BYTES_MAX)).await;
        let whole = collected.map_err(|_| Error::Timeout("the upstream's answer"))?;
        whole.map_err(|broken| Error::Upstream(format!("its answer broke: {broken}")))
    }
}

/// What an answer with an error status means. The words of a strange upstream go nowhere; those of our own engine are
/// written for clients.
async fn failed(answer: Answer, own: bool) -> Error {
    let Head { status, retry_after_s: retry_s, .. } = answer.head;
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
    /// How a request begins, up to the fields that are its own.
    fn head(&self, wish: Wish) -> Vec<u8> {
        let (method, path, accept) = match wish {
            Wish::Models => ("GET", "/models", "application/json"),
            Wish::Whole => ("POST", "/chat/completions", "application/json"),
            Wish::Stream => ("POST", "/chat/completions", "text/event-stream"),
        };
        let mut head = format!("{method} {}{path} HTTP/1.1\r\n", self.base_path).into_bytes();
        put(&mut head, "host", self.authority.as_bytes());
        put(&mut head, "accept", accept.as_bytes());
        if wish != Wish::Models {
            put(&mut head, "content-type", b"application/json");
        }
        if let Some(bearer) = &self.bearer {
            put(&mut head, "authorization", bearer.as_bytes());
        }
        head
    }
}

fn broke(broken: Broken) -> Error {
    Error::Upstream(format!("the connection broke: {broken}"))
}
