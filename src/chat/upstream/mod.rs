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
pub mod sse;

pub use relay::{Ending, Relay, Relayed};
pub use reply::{Piece, Stream};

use super::error::{Error, Refusal};
use super::wire::{ErrorBody, Models, Request};
use bytes::Bytes;
use connector::{Connector, Place};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Most bytes of an answer that is not a stream, errors included.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Idle connections kept to each upstream.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Shorter than what servers commonly keep, so that a kept connection is rarely a dead one.
const IDLE_KEPT: Duration = Duration::from_secs(20);
/// What a client is told to wait for when an upstream says nothing.
const RETRY_S: u64 = 2;

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
}

/// All upstreams, in order of preference.
pub struct Upstream {
    targets: Vec<(Target, Client<Connector, Full<Bytes>>)>,
    limits: Limits,
}

/// The head of a good answer, and the body that follows.
struct Answer {
    head: http::response::Parts,
    body: Incoming,
    /// The first token must be there by then.
    until: Instant,
}

impl Upstream {
    /// A client with its own connection pools; made inside a runtime.
    pub fn new(targets: Vec<Target>, limits: Limits) -> Upstream {
        let client = |target: &Target| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_KEPT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .build(Connector::new(target.place.clone(), limits.connect))
        };
        let targets = targets.into_iter().map(|target| (target.clone(), client(&target))).collect();
        Upstream { targets, limits }
    }

    /// True when any of them accepts a connection now.
    pub async fn reachable(&self) -> bool {
        for (target, _) in &self.targets {
            if Connector::new(target.place.clone(), self.limits.connect).connect().await.is_ok() {
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
        let mut failure = none();
        for (target, client) in &self.targets {
            let begun = match self.send(target, client, target.completion(true), body.clone(), (call, true)).await {
                Ok(answer) => Stream::begin(answer, self.limits.idle, call.deadline).await,
                Err(error) => Err(error),
            };
            match begun {
                Ok(stream) => return Ok(stream),
                // The request is ours, so a refusal of it is no fault of the client's.
                Err(Error::Refused(refusal)) => failure = Error::Upstream(refusal.inside),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Passes a client's own request on; returns when an upstream has answered, or has sent the first event of a stream.
    ///
    /// # Errors
    /// The last upstream's failure, when none can.
    pub async fn relay(&self, body: &Bytes, stream: bool, call: &Call, ending: Ending) -> Result<Relayed, Error> {
        let mut failure = none();
        for (target, client) in &self.targets {
            let begun = match self.send(target, client, target.completion(stream), body.clone(), (call, stream)).await {
                Ok(answer) if stream && answer.is_stream() => {
                    Relay::begin(answer, self.limits.idle, call.deadline, ending.clone()).await.map(Relayed::Stream)
                }
                Ok(_) if stream => Err(Error::Upstream("it does not stream".to_owned())),
                Ok(answer) => relay::whole(answer, ending.clone()).await.map(Relayed::Whole),
                Err(error) => Err(error),
            };
            match begun {
                Ok(relayed) => return Ok(relayed),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The models of the first upstream that tells them, as it tells them.
    ///
    /// # Errors
    /// The last upstream's failure, when none can.
    pub async fn models(&self, call: &Call) -> Result<Bytes, Error> {
        let mut failure = none();
        for (target, client) in &self.targets {
            let told = match self.send(target, client, target.models(), Bytes::new(), (call, true)).await {
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

    async fn send(
        &self,
        target: &Target,
        client: &Client<Connector, Full<Bytes>>,
        request: http::request::Builder,
        body: Bytes,
        (call, streamed): (&Call, bool),
    ) -> Result<Answer, Error> {
        // An answer in one piece has no first token: its head comes when all is generated.
        let first_token = Instant::now() + self.limits.first_token;
        let until = if streamed { call.deadline.min(first_token) } else { call.deadline };
        let request = call.mark(request).body(Full::new(body)).map_err(|error| Error::Upstream(error.to_string()))?;
        let answer = timeout_at(until, client.request(request));
        let answer = answer.await.map_err(|_| Error::Timeout("the upstream's first token"))?.map_err(refused)?;
        let (head, body) = answer.into_parts();
        let answer = Answer { head, body, until };
        match answer.head.status.is_success() {
            true => Ok(answer),
            false => Err(failed(answer, target.own).await),
        }
    }
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
    fn completion(&self, stream: bool) -> http::request::Builder {
        let accept = if stream { "text/event-stream" } else { "application/json" };
        let request = http::Request::post(self.uri("/chat/completions")).header(CONTENT_TYPE, "application/json");
        self.authorized(request.header(ACCEPT, accept))
    }

    fn models(&self) -> http::request::Builder {
        self.authorized(http::Request::get(self.uri("/models")).header(ACCEPT, "application/json"))
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
    fn mark(&self, request: http::request::Builder) -> http::request::Builder {
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
