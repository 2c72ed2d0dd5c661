//! The one client for every OpenAI-compatible server: the engine on its Unix socket, vLLM, Ollama, a router.
//!
//! ```text
//! open: target by target, until one answers ──▶ Stream: SSE ──▶ Piece, Piece, … ──▶ end
//! ```
//! Every step has its limit: connect, first token, silence between tokens, the whole. Before the first byte a call
//! may move on to the next target; afterwards never. Dropping the stream closes the connection, which is how an
//! upstream learns that nobody reads any more.

pub mod connector;
pub mod sse;

use super::error::Error;
use super::wire::{Chunk, Completion, ErrorBody, Request, Usage};
use bytes::Bytes;
use connector::{Connector, Place};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Most bytes of an answer that is not a stream, errors included.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest reply text in bytes: an upstream that never ends is cut.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Idle connections kept to each upstream.
const IDLE_CONNECTIONS_MAX: usize = 32;
/// Shorter than what servers commonly keep, so that a kept connection is rarely a dead one.
const IDLE_KEPT: Duration = Duration::from_secs(20);
/// How long the end of a body may follow its last event.
const END_LIMIT: Duration = Duration::from_millis(20);
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

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text to append.
    Text(String),
    /// The model's own reasoning.
    Reasoning(String),
    /// The server's count.
    Usage(Usage),
    /// Why it ended.
    Finish(String),
}

/// All upstreams, in order of preference.
pub struct Upstream {
    targets: Vec<(Target, Client<Connector, Full<Bytes>>)>,
    limits: Limits,
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
        let mut failure = Error::NotReady("no upstream is configured".to_owned());
        for (target, client) in &self.targets {
            match self.ask(target, client, body.clone(), call).await {
                Ok(stream) => return Ok(stream),
                Err(error @ (Error::ContextLength(_) | Error::Timeout(_))) => return Err(error),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask(
        &self,
        target: &Target,
        client: &Client<Connector, Full<Bytes>>,
        body: Bytes,
        call: &Call,
    ) -> Result<Stream, Error> {
        let until = call.deadline.min(Instant::now() + self.limits.first_token);
        let answer = timeout_at(until, client.request(target.request(body, call)?));
        let answer = answer.await.map_err(|_| Error::Timeout("the upstream's first token"))?.map_err(refused)?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Err(self.failed(&head, body, until).await);
        }
        let streamed =
            head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let mut stream = Stream {
            body: Some(body),
            parser: sse::Parser::default(),
            pieces: VecDeque::new(),
            idle: self.limits.idle,
            until,
            deadline: call.deadline,
            reply_bytes: 0,
            model: None,
            finished: false,
            done: false,
        };
        if !streamed {
            stream.take_whole().await?;
        }
        Ok(stream)
    }

    /// What an answer with an error status means. The upstream's own words go to the log, cut, and nowhere else.
    async fn failed(&self, head: &http::response::Parts, body: Incoming, until: Instant) -> Error {
        let retry_s = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let collected = timeout_at(until, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let bytes = collected.ok().and_then(Result::ok).map(|whole| whole.to_bytes()).unwrap_or_default();
        let detail = serde_json::from_slice::<ErrorBody>(&bytes).map(|body| body.error).unwrap_or_default();
        let code = detail.code.as_deref().unwrap_or("");
        match (head.status.as_u16(), code) {
            (_, "context_length_exceeded") => Error::ContextLength(detail.message),
            (503, "overloaded") | (429, _) => Error::Overloaded(retry_s.unwrap_or(RETRY_S)),
            (503, _) => Error::NotReady(format!("it answered 503 {code}")),
            (status, _) => Error::Upstream(format!("it answered {status} {code}")),
        }
    }
}

impl Target {
    fn request(&self, body: Bytes, call: &Call) -> Result<http::Request<Full<Bytes>>, Error> {
        let mut request = http::Request::post(format!("http://{}{}/chat/completions", self.authority, self.base_path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream")
            .header("x-request-id", &call.request_id);
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(traceparent) = &call.traceparent {
            request = request.header("traceparent", traceparent);
        }
        request.body(Full::new(body)).map_err(|error| Error::Upstream(error.to_string()))
    }
}

/// A reply as it arrives.
pub struct Stream {
    body: Option<Incoming>,
    parser: sse::Parser,
    pieces: VecDeque<Piece>,
    idle: Duration,
    until: Instant,
    deadline: Instant,
    reply_bytes: usize,
    model: Option<String>,
    finished: bool,
    done: bool,
}

impl Stream {
    /// The next piece; `None` when the reply is whole.
    ///
    /// # Errors
    /// A limit passed, the connection broke, the upstream sent an error or nonsense.
    pub async fn next(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Ok(Some(piece));
            }
            if self.done {
                self.let_connection_be_kept().await;
            }
            let Some(body) = &mut self.body else { return Ok(None) };
            match timeout_at(self.until, body.frame()).await {
                Err(_) => return Err(self.late()),
                Ok(Some(Ok(frame))) => self.take(frame.into_data().unwrap_or_default())?,
                Ok(Some(Err(error))) => return Err(Error::Upstream(format!("the stream broke: {error}"))),
                Ok(None) if self.finished => self.body = None,
                Ok(None) => return Err(Error::Upstream("the stream ended in the middle of a reply".to_owned())),
            }
        }
    }

    /// Reads the end of a body whose last event was seen: a connection that is dropped before it is closed. A server
    /// that does not end its body is not waited for.
    async fn let_connection_be_kept(&mut self) {
        if let Some(mut body) = self.body.take() {
            let _ = timeout_at(Instant::now() + END_LIMIT, body.frame()).await;
        }
    }

    /// The model that answers, once it has said so.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn late(&self) -> Error {
        match Instant::now() >= self.deadline {
            true => Error::Timeout("the request"),
            false => Error::Timeout("the upstream's next token"),
        }
    }

    fn take(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.until = self.deadline.min(Instant::now() + self.idle);
        let mut parser = std::mem::take(&mut self.parser);
        let mut taken = Ok(());
        let fed = parser.feed(&bytes, |event| {
            if taken.is_ok() {
                taken = self.take_event(&event);
            }
        });
        self.parser = parser;
        fed.map_err(|_| Error::Upstream("an event is longer than 1 MiB".to_owned()))?;
        taken
    }

    fn take_event(&mut self, event: &sse::Event) -> Result<(), Error> {
        if event.data == "[DONE]" {
            self.finished = true;
            self.done = true;
            return Ok(());
        }
        if let Ok(body) = serde_json::from_str::<ErrorBody>(&event.data) {
            let code = body.error.code.unwrap_or(body.error.kind);
            return Err(Error::Upstream(format!("it sent an error event: {code}")));
        }
        let chunk: Chunk =
            serde_json::from_str(&event.data).map_err(|_| Error::Upstream("an event is not a chunk".to_owned()))?;
        self.take_chunk(chunk)
    }

    fn take_chunk(&mut self, chunk: Chunk) -> Result<(), Error> {
        if self.model.is_none() && !chunk.model.is_empty() {
            self.model = Some(chunk.model);
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            self.push(choice.delta.reasoning_content.map(Piece::Reasoning))?;
            self.push(choice.delta.content.map(Piece::Text))?;
            if let Some(reason) = choice.finish_reason {
                self.finished = true;
                self.pieces.push_back(Piece::Finish(reason));
            }
        }
        self.pieces.extend(chunk.usage.map(Piece::Usage));
        Ok(())
    }

    fn push(&mut self, piece: Option<Piece>) -> Result<(), Error> {
        let (Some(Piece::Text(text)) | Some(Piece::Reasoning(text))) = &piece else { return Ok(()) };
        if text.is_empty() {
            return Ok(());
        }
        self.reply_bytes += text.len();
        if self.reply_bytes > REPLY_BYTES_MAX {
            return Err(Error::Upstream("the reply does not end".to_owned()));
        }
        self.pieces.extend(piece);
        Ok(())
    }

    /// A server that does not stream answers in one piece.
    async fn take_whole(&mut self) -> Result<(), Error> {
        let Some(body) = self.body.take() else { return Ok(()) };
        let collected = timeout_at(self.until, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let whole = collected.map_err(|_| self.late())?;
        let bytes = whole.map_err(|error| Error::Upstream(format!("its answer broke: {error}")))?.to_bytes();
        let answer: Completion = serde_json::from_slice(&bytes)
            .map_err(|_| Error::Upstream("its answer is not a chat completion".to_owned()))?;
        self.model = Some(answer.model);
        if let Some(choice) = answer.choices.into_iter().next() {
            let text = choice.message.text();
            self.push(choice.message.reasoning_content.map(Piece::Reasoning))?;
            self.push(Some(Piece::Text(text)))?;
            self.pieces.extend(choice.finish_reason.map(Piece::Finish));
        }
        self.pieces.extend(answer.usage.map(Piece::Usage));
        self.finished = true;
        Ok(())
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
