//! The engine's HTTP API: who may connect, what is answered, and how a request becomes a job.

use super::CONNECTIONS_MAX;
use super::answer::{self, Body, Identity, Refused, Stream};
use super::batch::Message;
use super::job::{EVENTS_MAX, Event, Failure, Job};
use super::prompt::{Prompt, Prompts, random};
use crate::chat::upstream::CLIENT;
use crate::chat::wire::{ErrorBody, Models, Request as Chat};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};

/// Largest request body in bytes: the workers' own limit is 1 MiB, a history comes on top.
const BODY_BYTES_MAX: usize = 2 << 20;
/// A body must be there by then.
const BODY_MAX: Duration = Duration::from_secs(30);
/// An idle connection is kept for so long: longer than the workers keep theirs.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// What every connection shares.
pub(super) struct Service {
    pub(super) prompts: Prompts,
    pub(super) batch: Sender<Message>,
    /// The model's name, as requests give it.
    pub(super) model: String,
    /// Epoch seconds of the start.
    pub(super) created: u64,
}

/// Accepts until `stopping` says true; returns when the last connection has ended.
pub(super) async fn listen(listener: UnixListener, service: Arc<Service>, mut stopping: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        if let Some((stream, permit)) = accepted {
            let (service, stopping) = (Arc::clone(&service), stopping.clone());
            tokio::spawn(async move {
                converse(stream, service, stopping).await;
                drop(permit);
            });
        }
    }
    drop(listener);
    let _ = connections.acquire_many(CONNECTIONS_MAX as u32).await;
}

async fn accept(
    listener: &UnixListener,
    connections: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) if is_ours(&stream) => Some((stream, permit)),
        Ok(_) => {
            tracing::warn!(target: "security", event = "auth_failed", "a stranger connected to the engine's socket");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept");
            // Out of descriptors, as a rule: the listener stays readable, so wait for one to be closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Only our own user and root may speak to the engine: an abstract socket has no file permissions.
fn is_ours(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn converse(stream: UnixStream, service: Arc<Service>, mut stopping: watch::Receiver<bool>) {
    let handler = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), handler));
    tokio::select! {
        // How a connection ended concerns only its peer, who knows.
        _ = connection.as_mut() => return,
        _ = stopping.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match (request.uri().path(), request.method()) {
            ("/v1/chat/completions", &Method::POST) => match self.chat(request).await {
                Ok(response) => response,
                Err(refused) => answer::refused(refused),
            },
            ("/v1/models", &Method::GET) => answer::json(StatusCode::OK, &Models::one(&self.model, self.created)),
            ("/health", &Method::GET) => answer::json(StatusCode::OK, &serde_json::json!({ "status": "ok" })),
            ("/v1/chat/completions", _) => not_allowed("POST"),
            ("/v1/models" | "/health", _) => not_allowed("GET"),
            _ => answer::error(StatusCode::NOT_FOUND, invalid("not_found", "There is nothing here.")),
        }
    }

    async fn chat(&self, request: Request<Incoming>) -> Result<Response<Body>, Refused> {
        let client = client(&request);
        let chat = read(request).await?;
        let prompt = self.prompts.prepare(&chat).map_err(|body| Refused::new(StatusCode::BAD_REQUEST, body))?;
        let mut events = self.submit(prompt, client)?;
        let identity = self.identity();
        // The head waits for the first event, so that a failure before it has its own status.
        let first = match events.recv().await {
            Some(Event::Failed(failure)) => return Err(answer::failed(failure)),
            Some(event) => event,
            None => return Err(answer::failed(Failure::Stopping)),
        };
        match chat.stream {
            true => Ok(answer::stream(Stream::new(identity, first, events, chat.wants_usage()))),
            false => whole(identity, first, events).await,
        }
    }

    fn submit(&self, prompt: Prompt, client: u64) -> Result<mpsc::Receiver<Event>, Refused> {
        let (reply, events) = mpsc::channel(EVENTS_MAX);
        let Prompt { tokens, tokens_max, sampler, object, text } = prompt;
        let job = Job { prompt: tokens, tokens_max, sampler, object, text, reply, client };
        self.batch.send(Message::Job(Box::new(job))).map_err(|_| answer::failed(Failure::Stopping))?;
        Ok(events)
    }

    fn identity(&self) -> Identity {
        let id = format!("chatcmpl-{:032x}", random().unwrap_or_default());
        Identity { id, created: now_s(), model: self.model.clone() }
    }
}

async fn whole(identity: Identity, first: Event, mut events: mpsc::Receiver<Event>) -> Result<Response<Body>, Refused> {
    let mut text = String::new();
    let mut next = Some(first);
    loop {
        match next {
            Some(Event::Text(more)) => text.push_str(&more),
            Some(Event::End(finish, tokens)) => return Ok(answer::completion(identity, text, finish, tokens)),
            Some(Event::Failed(failure)) => return Err(answer::failed(failure)),
            None => return Err(answer::failed(Failure::Stopping)),
        }
        next = events.recv().await;
    }
}

/// Whose request it is, as the worker that passes it on says; without that all are one.
fn client(request: &Request<Incoming>) -> u64 {
    let said = request.headers().get(CLIENT).and_then(|value| value.to_str().ok());
    said.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or_default()
}

async fn read(request: Request<Incoming>) -> Result<Chat, Refused> {
    let body = tokio::time::timeout(BODY_MAX, Limited::new(request.into_body(), BODY_BYTES_MAX).collect()).await;
    let too_late =
        || Refused::new(StatusCode::REQUEST_TIMEOUT, invalid("request_timeout", "The body did not come in time."));
    let bytes =
        body.map_err(|_| too_late())?.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
            true => {
                Refused::new(StatusCode::PAYLOAD_TOO_LARGE, invalid("payload_too_large", "A body has at most 2 MiB."))
            }
            false => Refused::new(StatusCode::BAD_REQUEST, invalid("invalid_request", "The body broke off.")),
        })?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| {
        let body = invalid("invalid_json", format!("The body is not understood: {error}"));
        Refused::new(StatusCode::BAD_REQUEST, body)
    })
}

fn not_allowed(allow: &'static str) -> Response<Body> {
    let body = invalid("method_not_allowed", format!("Use {allow}."));
    let mut response = answer::error(StatusCode::METHOD_NOT_ALLOWED, body);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn invalid(code: &str, message: impl Into<String>) -> ErrorBody {
    ErrorBody::new("invalid_request_error", code, message)
}

/// Epoch seconds.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
