//! What goes back: one JSON object, an event stream, or an error, in OpenAI's shapes.

use super::job::{Event, Failure, Finish, Tokens};
use crate::chat::wire::{
    Choice, Chunk, ChunkChoice, Completion, Delta, ErrorBody, Message, PromptDetails, Role, Usage,
};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Events that are ready go out together, up to so many bytes.
const FRAME_BYTES_MAX: usize = 16 * 1024;
/// Seconds after which an engine that stops has a successor.
const RETRY_AFTER_S: u64 = 1;

/// What all parts of one answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

/// A response's body.
pub(super) enum Body {
    Whole(Option<Bytes>),
    Stream(Box<Stream>),
}

/// A reply as server-sent events.
pub(super) struct Stream {
    identity: Identity,
    events: mpsc::Receiver<Event>,
    first: Option<Event>,
    wants_usage: bool,
    ended: bool,
}

impl Stream {
    /// `first` is the event that was waited for before the head went out.
    pub(super) fn new(identity: Identity, first: Event, events: mpsc::Receiver<Event>, wants_usage: bool) -> Stream {
        Stream { identity, events, first: Some(first), wants_usage, ended: false }
    }

    fn write(&mut self, event: Option<Event>, out: &mut Vec<u8>) {
        match event {
            Some(Event::Text(text)) => self.chunk(out, Delta { content: Some(text), ..Delta::default() }, None),
            Some(Event::End(finish, tokens)) => self.end(out, finish, tokens),
            Some(Event::Failed(failure)) => self.break_off(out, failure),
            None => self.break_off(out, Failure::Stopping),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish, tokens: Tokens) {
        self.chunk(out, Delta::default(), Some(finish));
        if self.wants_usage {
            let usage = Some(usage(tokens));
            event(out, &Chunk { usage, ..self.empty_chunk() });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
        self.ended = true;
    }

    fn break_off(&mut self, out: &mut Vec<u8>, failure: Failure) {
        event(out, &error_of(failure).1);
        self.ended = true;
    }

    fn chunk(&self, out: &mut Vec<u8>, delta: Delta, finish: Option<Finish>) {
        let finish_reason = finish.map(|finish| finish.as_str().to_owned());
        event(out, &Chunk { choices: vec![ChunkChoice { index: 0, delta, finish_reason }], ..self.empty_chunk() });
    }

    fn empty_chunk(&self) -> Chunk {
        let Identity { id, created, model } = self.identity.clone();
        Chunk { id, object: "chat.completion.chunk".into(), created, model, choices: Vec::new(), usage: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = Vec::new();
        if let Some(first) = self.first.take() {
            let delta = Delta { role: Some(Role::Assistant), content: Some(String::new()), ..Delta::default() };
            self.chunk(&mut out, delta, None);
            self.write(Some(first), &mut out);
        }
        while !self.ended && out.len() < FRAME_BYTES_MAX {
            match self.events.poll_recv(cx) {
                Poll::Ready(event) => self.write(event, &mut out),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((!out.is_empty()).then(|| out.into()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Body::Whole(bytes) => Poll::Ready(bytes.take()),
            Body::Stream(stream) => stream.poll(cx),
        };
        bytes.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Body::Whole(bytes) => http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Body::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

/// The answer in one piece.
pub(super) fn completion(identity: Identity, text: String, finish: Finish, tokens: Tokens) -> Response<Body> {
    let Identity { id, created, model } = identity;
    let finish_reason = Some(finish.as_str().to_owned());
    let choice = Choice { index: 0, message: Message::new(Role::Assistant, text), finish_reason };
    let usage = Some(usage(tokens));
    json(
        StatusCode::OK,
        &Completion { id, object: "chat.completion".into(), created, model, choices: vec![choice], usage },
    )
}

/// The head of an event stream, and its body.
pub(super) fn stream(stream: Stream) -> Response<Body> {
    respond(StatusCode::OK, "text/event-stream", Body::Stream(Box::new(stream)))
}

/// Why there is no answer.
pub(super) struct Refused {
    status: StatusCode,
    body: ErrorBody,
    retry_after_s: Option<u64>,
}

impl Refused {
    /// With this status.
    pub(super) fn new(status: StatusCode, body: ErrorBody) -> Refused {
        Refused { status, body, retry_after_s: None }
    }
}

/// An error.
pub(super) fn error(status: StatusCode, body: ErrorBody) -> Response<Body> {
    refused(Refused::new(status, body))
}

/// The same; some say when to come again.
pub(super) fn refused(refused: Refused) -> Response<Body> {
    let mut response = json(refused.status, &refused.body);
    if let Some(seconds) = refused.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A reply that broke off, before it began.
pub(super) fn failed(failure: Failure) -> Refused {
    let (status, body) = error_of(failure);
    let retry_after_s = match failure {
        Failure::Evaluation => None,
        Failure::Overloaded(seconds) => Some(seconds),
        Failure::Stopping => Some(RETRY_AFTER_S),
    };
    Refused { status, body, retry_after_s }
}

fn error_of(failure: Failure) -> (StatusCode, ErrorBody) {
    let (status, code, message) = match failure {
        Failure::Overloaded(_) => {
            let message = "Too many requests wait for the model. Try again in a moment.";
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
        }
        Failure::Evaluation => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The model failed. Try again."),
        Failure::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "The model engine stops. Try again."),
    };
    (status, ErrorBody::new("server_error", code, message))
}

/// Any value as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    respond(status, "application/json", Body::Whole(Some(bytes.into())))
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn event<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    out.extend_from_slice(b"data: ");
    if serde_json::to_writer(&mut *out, value).is_ok() {
        out.extend_from_slice(b"\n\n");
    }
}

fn usage(tokens: Tokens) -> Usage {
    let (prompt_tokens, completion_tokens) = (tokens.prompt as u64, tokens.completion as u64);
    let prompt_tokens_details = Some(PromptDetails { cached_tokens: tokens.cached as u64 });
    Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, prompt_tokens_details }
}
