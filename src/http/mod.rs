//! A request's path on one screen:
//!
//! ```text
//! connection ─▶ hyper ─▶ serve: access record ─▶ route ─▶ body ─▶ chat ─▶ headers ─▶ response
//!                                                  └────────┴───────┴──▶ Fault ─▶ response
//! ```
//! Every `?` is a [`fault::Fault`], which becomes a response in one place. The access record is a guard: it ends with
//! the body or when it is dropped, so a client that leaves is one line too.
//!
//! Deliberately absent: a router library (there are seven endpoints), and any state that outlives the worker.

pub mod access;
pub mod body;
pub mod connection;
mod events;
pub mod fault;
pub mod headers;
mod ids;
pub mod leaving;
pub mod route;
mod status;

use crate::board::Lane;
use crate::chat::ask::{Ask, ModeChange, check_session_id};
use crate::chat::session::Principal;
use crate::chat::upstream::Call;
use crate::chat::{Chat, Delta};
use access::Access;
use body::{Body, Intake};
use bytes::Bytes;
use fault::{Code, Fault};
use headers::{Base, Headers, REQUEST_ID};
use http::header::{ALLOW, CONNECTION, HeaderValue, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use ids::Ids;
use leaving::Leaving;
use route::{Miss, Route};
use serde_json::json;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a worker's front is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `CORS_ORIGINS`.
    pub cors_origins: Vec<String>,
    /// Longest request body in bytes.
    pub body_bytes_max: u64,
    /// For a body to arrive.
    pub body_time: Duration,
    /// For a head to arrive.
    pub head_time: Duration,
    /// An idle connection is kept for so long.
    pub keep_alive: Duration,
    /// Longest head in bytes.
    pub head_bytes_max: usize,
    /// Most header fields.
    pub fields_max: usize,
    /// The whole request.
    pub request_time: Duration,
    /// Workers wanted, for `GET /`.
    pub workers: usize,
    /// True when the model is our own engine.
    pub local_model: bool,
}

/// The front of one runtime thread.
pub struct App {
    plan: Plan,
    headers: Headers,
    intake: Intake,
    ids: Ids,
    chat: Chat,
    lane: Lane,
    slot: usize,
    leaving: Arc<Leaving>,
}

type Answer = Result<Response<Body>, Fault>;

/// What of a request the answer needs beside its body.
struct Context<'a> {
    client: IpAddr,
    origin: Option<&'a HeaderValue>,
    headers: &'a HeaderMap,
    access: &'a mut Access,
}

impl App {
    /// Made inside the runtime that uses it.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn new(plan: Plan, chat: Chat, lane: Lane, slot: usize, leaving: Arc<Leaving>) -> std::io::Result<App> {
        let headers = Headers::new(&plan.cors_origins);
        let intake = Intake::new(plan.body_bytes_max, plan.body_time, plan.request_time);
        Ok(App { headers, intake, ids: Ids::new()?, chat, lane, slot, leaving, plan })
    }

    /// The chat behind it.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Answers one request.
    ///
    /// # Errors
    /// None: a failure is a response too.
    pub async fn serve(&self, client: IpAddr, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let id = self.ids.of(request.headers());
        let mut access = Access::begin(self.lane, self.slot, client, id, &request);
        let (head, body) = request.into_parts();
        let origin = head.headers.get(ORIGIN);
        let context = Context { client, origin, headers: &head.headers, access: &mut access };
        let mut response = match self.answer(&head, body, context).await {
            Ok(response) => response,
            Err(fault) => self.refuse(&fault, &head, &access),
        };
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, access.id().clone());
        if self.leaving.closing() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        access.status = response.status().as_u16();
        Ok(response.map(|body| body.recorded(access)))
    }

    async fn answer(&self, head: &http::request::Parts, body: Incoming, context: Context<'_>) -> Answer {
        match route::find(&head.method, head.uri.path()) {
            Ok(Route::Health) => Ok(self.ok(Base::Api, &context, status::health(&self.chat))),
            Ok(Route::Live) => Ok(self.ok(Base::Plain, &context, Bytes::from_static(br#"{"status":"alive"}"#))),
            Ok(Route::Ready) => Ok(self.ready(&context).await),
            Ok(Route::Root) => Ok(self.ok(Base::Plain, &context, status::root(&self.chat, &self.plan))),
            Ok(Route::Preflight) => Ok(self.preflight(&context)),
            Ok(Route::Chat) => self.converse(body, context).await,
            Ok(Route::Initialize) => self.initialize(context).await,
            Ok(Route::ModeGet) => self.mode(head.uri.query(), context).await,
            Ok(Route::ModeSet) => self.set_mode(body, context).await,
            Err(Miss::Path) => Err(Fault::not_found()),
            Err(Miss::Method(allow)) => Err(Fault::method_not_allowed(allow)),
        }
    }

    async fn converse(&self, body: Incoming, context: Context<'_>) -> Answer {
        let bytes = self.read(body, &context).await?;
        let ask = Ask::parse(&bytes)?;
        let streamed = ask.stream;
        let mut turn = self.chat.open(ask, principal(&context), self.call(&context)).await?;
        if streamed {
            let headers = self.headers.base(Base::Events, context.origin);
            let until = self.deadline(&context);
            return Ok(with(StatusCode::OK, headers, events::start(turn, context.access.id().clone(), until)));
        }
        let id = text(context.access.id()).to_owned();
        loop {
            if let Delta::Done(reply) = turn.next(&id).await? {
                let json = serde_json::to_vec(&reply).map_err(|error| internal().inside(error))?;
                return Ok(self.ok(Base::Api, &context, json.into()));
            }
        }
    }

    async fn initialize(&self, context: Context<'_>) -> Answer {
        self.chat.warm(self.call(&context)).await?;
        let body = json!({"success": true, "message": "The model is ready."});
        Ok(self.ok(Base::Api, &context, body.to_string().into()))
    }

    async fn mode(&self, query: Option<&str>, context: Context<'_>) -> Answer {
        let missing = || Fault::new(Code::InvalidRequest, "session_id is required, as in ?session_id=….");
        let session_id = route::query_value(query, "session_id").ok_or_else(missing)?;
        check_session_id(&session_id)?;
        let mode = self.chat.mode(&session_id, principal(&context)).await?;
        let body = json!({"success": true, "session_id": session_id, "context_mode": mode});
        Ok(self.ok(Base::Api, &context, body.to_string().into()))
    }

    async fn set_mode(&self, body: Incoming, context: Context<'_>) -> Answer {
        let change = ModeChange::parse(&self.read(body, &context).await?)?;
        self.chat.set_mode(&change, principal(&context)).await?;
        let body = json!({"success": true, "session_id": change.session_id, "context_mode": change.mode});
        Ok(self.ok(Base::Api, &context, body.to_string().into()))
    }

    async fn read(&self, body: Incoming, context: &Context<'_>) -> Result<Bytes, Fault> {
        self.intake.json(context.headers, body).await
    }

    async fn ready(&self, context: &Context<'_>) -> Response<Body> {
        self.chat.look().await;
        let store = self.chat.store_works().await;
        let (ready, body) = status::ready(&self.chat, store, self.leaving.announced());
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut headers = self.headers.base(Base::Plain, context.origin);
        if !ready {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        with(status, headers, Body::whole(body))
    }

    fn preflight(&self, context: &Context<'_>) -> Response<Body> {
        let mut headers = self.headers.base(Base::Empty, context.origin);
        self.headers.preflight(&mut headers);
        with(StatusCode::NO_CONTENT, headers, Body::empty())
    }

    fn ok(&self, base: Base, context: &Context<'_>, body: Bytes) -> Response<Body> {
        with(StatusCode::OK, self.headers.base(base, context.origin), Body::whole(body))
    }

    /// The one place where a failure becomes a response.
    fn refuse(&self, fault: &Fault, head: &http::request::Parts, access: &Access) -> Response<Body> {
        let id = text(access.id());
        events::log_fault(fault, id);
        let path = head.uri.path();
        let base = if path.starts_with("/api/") || path.starts_with("/v1/") { Base::Api } else { Base::Plain };
        let mut headers = self.headers.base(base, head.headers.get(ORIGIN));
        if let Some(seconds) = fault.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = fault.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if fault.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        with(fault.code.status(), headers, Body::whole(fault.body(id)))
    }

    fn call(&self, context: &Context<'_>) -> Call {
        Call {
            request_id: context.access.id().clone(),
            traceparent: context.headers.get("traceparent").cloned(),
            deadline: self.deadline(context),
        }
    }

    fn deadline(&self, context: &Context<'_>) -> Instant {
        Instant::from_std(context.access.began()) + self.plan.request_time
    }
}

/// Whose session an id is, when the server did not issue it: the client and the website that it comes from.
fn principal(context: &Context<'_>) -> Principal {
    Principal::visitor(context.client, context.origin.map(HeaderValue::as_bytes))
}

fn with(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Ids are plain ASCII, checked where they come from.
fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or("")
}

fn internal() -> Fault {
    Fault::new(Code::Internal, "Something went wrong. The request id helps the operator to find out what.")
}
