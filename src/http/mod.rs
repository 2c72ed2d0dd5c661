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
mod admission;
mod again;
mod api;
pub mod auth;
pub mod body;
pub mod connection;
mod date;
mod events;
pub mod fault;
pub mod front;
mod h2;
pub mod head;
pub mod headers;
pub mod ids;
pub mod keys;
pub mod leaving;
pub mod metrics;
mod openapi;
mod operate;
pub mod page;
mod probes;
pub mod proxy;
pub mod route;
mod spend;
mod status;
pub mod strict;
pub mod tls;
mod upload;
mod v1;

use crate::board::held::{Holder, Phase};
use crate::board::{Board, Lane, tally};
use crate::chat::Chat;
use crate::chat::session::Principal;
use crate::chat::upstream::Call;
use crate::limit::{Limiter, Outcome, Peer, Told, Trusted, Verdict};
use crate::listener::Purpose;
use crate::log::{self, Security};
use crate::sys::clock;
use access::Access;
use admission::limited;
use auth::{Caller, Door};
use body::{Body, Intake};
use bytes::Bytes;
use connection::Connections;
use fault::{Code, Fault, Shape};
use headers::{Base, Headers};
use http::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CONNECTION, EXPECT, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use ids::Ids;
use leaving::Leaving;
use route::{Miss, Route};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use strict::{Ledger, Times};
use tokio::time::Instant;
use upload::Upload;

/// What a worker's front is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `CORS_ORIGINS`.
    pub cors_origins: Vec<String>,
    /// Longest request body in bytes.
    pub body_bytes_max: u64,
    /// Limits of heads.
    pub head: head::Limits,
    /// How long a connection may wait for what.
    pub times: Times,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted: Trusted,
    /// The whole request.
    pub request_time: Duration,
    /// Workers wanted, for `GET /`.
    pub workers: usize,
    /// True when the model is our own engine.
    pub local_model: bool,
    /// What stands before the first request.
    pub front: front::Plan,
    /// The API keys, where they are on.
    pub auth: Option<auth::Plan>,
}

/// The front of one runtime thread.
pub struct App {
    plan: Plan,
    headers: Headers,
    intake: Intake,
    ids: Ids,
    chat: Arc<Chat>,
    limiter: Option<Limiter>,
    door: Option<Arc<Door>>,
    connections: Arc<Connections>,
    lane: Lane,
    slot: usize,
    holder: &'static Holder,
    board: Board,
    leaving: Arc<Leaving>,
}

type Answer = Result<Response<Body>, Fault>;

/// What of a request the answer needs beside its body.
struct Context<'a> {
    client: Peer,
    ledger: &'a Ledger,
    origin: Option<&'a HeaderValue>,
    /// What the answer will say of limits.
    told: Told,
    caller: Option<Caller>,
    headers: &'a HeaderMap,
    access: &'a mut Access,
}

impl App {
    /// Made inside the runtime that uses it, for the lane with this number; it stays until the process ends.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn new(
        plan: Plan,
        chat: Chat,
        limiter: Option<Limiter>,
        (board, slot, number): (Board, usize, usize),
        leaving: Arc<Leaving>,
    ) -> std::io::Result<App> {
        let headers = Headers::new(&plan.cors_origins);
        let intake = Intake::new(plan.body_bytes_max);
        let connections = Arc::new(Connections::default());
        leaving.concerns(connections.clone());
        let door = plan.auth.as_ref().map(|plan| Arc::new(Door::new(plan)));
        let own = board.slot(slot);
        let holder = Box::leak(Box::new(own.holder(number, own.lane_count())));
        Ok(App {
            headers,
            door,
            intake,
            ids: Ids::new()?,
            chat: Arc::new(chat),
            limiter,
            connections,
            lane: own.lane(number),
            slot,
            holder,
            board,
            leaving,
            plan,
        })
    }

    /// Ends connections that wait for too long, upstreams' included; to be called once a second.
    pub fn sweep(&self) {
        self.connections.sweep(&self.plan.times);
        self.chat.sweep();
    }

    /// The limiter, for whoever keeps its connection to Redis.
    pub fn limiter(&self) -> Option<&Limiter> {
        self.limiter.as_ref()
    }

    /// The API keys, for whoever looks after their file.
    pub fn door(&self) -> Option<&Arc<Door>> {
        self.door.as_ref()
    }

    /// The chat behind it.
    pub fn chat(&self) -> &Chat {
        &self.chat
    }

    /// Answers one request.
    ///
    /// # Errors
    /// None: a failure is a response too.
    pub async fn serve(
        self: &Arc<App>,
        (peer, purpose): (Peer, Purpose),
        ledger: Arc<Ledger>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let refusal = ledger.arrived(request.uri().path()).or_else(|| h2::refusal(&request, &self.plan.head));
        let client = self.client(peer, request.headers());
        let id = self.ids.of(request.headers());
        let mut access =
            Access::begin((self.lane, self.slot, self.holder), address(client), ledger.clone(), id, &request);
        let (head, body) = request.into_parts();
        let linger = Duration::from_millis(self.plan.times.linger_ms_max);
        let mut body = Upload::new(body, (head.version == Version::HTTP_2).then_some(linger));
        let origin = head.headers.get(ORIGIN);
        let mut verdict = Verdict::default();
        let context = Context {
            client,
            ledger: &ledger,
            origin,
            told: Told::Nothing,
            caller: None,
            headers: &head.headers,
            access: &mut access,
        };
        let answer = match refusal {
            Some(refusal) => Err(Fault::from(refusal)),
            None if purpose == Purpose::Admin => self.operate(&head, &context),
            None => self.answer(&head, &mut body, context, &mut verdict).await,
        };
        let mut response = answer.unwrap_or_else(|fault| self.refuse(&fault, &head, (client, verdict.told()), &access));
        let headers = response.headers_mut();
        headers::fill(headers, access.id().header(), &verdict);
        spend::headers(&access, headers);
        // One that is the last anyway waits for nothing more.
        if self.leaving.closing()
            || (!http_body::Body::is_end_stream(&body)
                && head.version != Version::HTTP_2
                && !headers.contains_key(CONNECTION)
                && body.is_last(&ledger, head.headers.contains_key(EXPECT), linger))
        {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if head.version == Version::HTTP_2 && head.method == Method::HEAD {
            h2::without_body(&mut response);
        }
        access.status = response.status().as_u16();
        if verdict.outcome == Outcome::Refused || (access.route() == tally::HEALTH && access.status == 200) {
            self.once_more(&head, (client, &access), response.headers());
        }
        Ok(response.map(|body| body.recorded(access)))
    }

    async fn answer(
        &self,
        head: &http::request::Parts,
        body: &mut Upload,
        mut context: Context<'_>,
        verdict: &mut Verdict,
    ) -> Answer {
        let found = route::find(&head.method, head.uri.path());
        context.access.found(found.map_or(tally::OTHER, Route::number));
        if let Some(endpoint) = limited(found, head.uri.path()) {
            if let Some(door) = &self.door {
                context.caller = match door.caller(context.headers) {
                    Ok(caller) => Some(caller),
                    Err(denied) => return Err(Box::pin(self.deny(denied, &mut context, verdict)).await),
                };
            }
            context.access.waits_for(Phase::Limit);
            self.count(endpoint, &mut context, verdict).await?;
        }
        // Nothing is done for a request that is known to be malformed, whether its body matters or not.
        if let Some(refusal) = context.ledger.broken_body() {
            return Err(Fault::from(refusal));
        }
        // hyper moves this future for every request, so what is large and rare has a place of its own.
        match found {
            Ok(Route::Health) => Ok(self.ok(Base::Api, &context, status::health(&self.chat))),
            Ok(Route::Live) => Ok(self.ok(Base::Plain, &context, Bytes::from_static(br#"{"status":"alive"}"#))),
            Ok(Route::Ready) => Ok(Box::pin(self.ready(&context)).await),
            Ok(Route::Root) => Ok(self.root(&context)),
            Ok(Route::Page(file)) => Ok(file.response(self.base(Base::Empty, &context), context.headers)),
            Ok(Route::OpenApi) => Ok(self.ok(Base::Plain, &context, openapi::document())),
            Ok(Route::Preflight(allow)) => Ok(self.preflight(&context, allow)),
            Ok(Route::Chat) => Box::pin(self.converse(body, context)).await,
            Ok(Route::Initialize) => Box::pin(self.initialize(context)).await,
            Ok(Route::ModeGet) => Box::pin(self.mode(head.uri.query(), context)).await,
            Ok(Route::ModeSet) => Box::pin(self.set_mode(body, context)).await,
            Ok(Route::Completions) => Box::pin(self.complete(body, context)).await,
            Ok(Route::Models) => Box::pin(self.models(context)).await,
            Err(Miss::Path) => Err(Fault::not_found()),
            Err(Miss::Method(allow)) => Err(Fault::method_not_allowed(allow)),
        }
    }

    async fn read(&self, body: &mut Upload, context: &mut Context<'_>) -> Result<Bytes, Fault> {
        context.access.waits_for(Phase::Body);
        let bytes = self.intake.json(context.headers, body, context.ledger).await?;
        context.access.waits_for(Phase::Work);
        context.access.bytes_in = bytes.len() as u64;
        Ok(bytes)
    }

    async fn ready(&self, context: &Context<'_>) -> Response<Body> {
        self.chat.look().await;
        let store = self.chat.store_works().await;
        let (ready, body) = status::ready(&self.chat, store, self.leaving.announced());
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut headers = self.base(Base::Plain, context);
        if !ready {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        with(status, headers, Body::whole(body))
    }

    /// The chat page for a browser, JSON for everyone else.
    fn root(&self, context: &Context<'_>) -> Response<Body> {
        let mut response = if page::wanted(context.headers) {
            page::File::Index.response(self.base(Base::Empty, context), context.headers)
        } else {
            self.ok(Base::Plain, context, status::root(&self.chat, &self.plan, self.limiter.is_some()))
        };
        page::vary_by_accept(response.headers_mut());
        response
    }

    fn preflight(&self, context: &Context<'_>, allow: &'static str) -> Response<Body> {
        let mut headers = self.base(Base::Empty, context);
        headers.insert(ALLOW, HeaderValue::from_static(allow));
        self.headers.preflight(&mut headers, context.headers.get(ACCESS_CONTROL_REQUEST_HEADERS));
        with(StatusCode::NO_CONTENT, headers, Body::empty())
    }

    fn ok(&self, base: Base, context: &Context<'_>, body: Bytes) -> Response<Body> {
        with(StatusCode::OK, self.base(base, context), Body::whole(body))
    }

    /// The headers that an answer begins with.
    fn base(&self, base: Base, context: &Context<'_>) -> HeaderMap {
        self.headers.base(base, context.told, context.origin)
    }

    /// The one place where a failure becomes a response.
    fn refuse(
        &self,
        fault: &Fault,
        head: &http::request::Parts,
        (client, told): (Peer, Told),
        access: &Access,
    ) -> Response<Body> {
        let id = access.id().text();
        events::log_fault(fault, id);
        suspicious(fault, client, id);
        let path = head.uri.path();
        let shape = if access.below_v1() { Shape::OpenAi } else { Shape::of(path) };
        // Of a refused head nobody knows what it asked for.
        let below = path.starts_with("/api/") || shape == Shape::OpenAi || matches!(fault.code, Code::Refused(_));
        let base = if below { Base::Api } else { Base::Plain };
        let mut headers = self.headers.base(base, told, head.headers.get(ORIGIN));
        // A verdict that refuses puts it in itself.
        if let Some(seconds) = fault.retry_after_s.filter(|_| told != Told::Refusal) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if shape == Shape::OpenAi
            && let Some(retry) = fault.should_retry()
        {
            headers.insert(v1::SHOULD_RETRY, HeaderValue::from_static(retry));
        }
        if let Some(allow) = fault.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if fault.code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if fault.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        with(fault.code.status(), headers, Body::whole(fault.body(id, shape)))
    }

    /// What goes to the model with it; the request waits for that from now on.
    fn call(&self, context: &Context<'_>) -> Call {
        context.access.waits_for(Phase::Upstream);
        Call {
            request_id: context.access.id().header(),
            traceparent: context
                .headers
                .get("traceparent")
                .filter(|it| headers::is_traceparent(it.as_bytes()))
                .cloned(),
            deadline: self.deadline(context),
            client: client_number(context),
        }
    }

    fn deadline(&self, context: &Context<'_>) -> Instant {
        Instant::now() + self.plan.request_time.saturating_sub(context.access.elapsed())
    }
}

/// What a security reviewer wants to see.
fn suspicious(fault: &Fault, client: Peer, id: &str) {
    if matches!(fault.code.status().as_u16(), 400 | 404 | 405)
        && address(client).is_some_and(|address| probes::PROBES.seen(address, clock::monotonic_ms()))
    {
        let count = probes::BURST.to_string();
        log::security(Security::Probe, address(client), &[("count", &count), ("request_id", id)]);
    }
    let what = match (fault.code, fault.code.status().as_u16()) {
        (Code::PayloadTooLarge, _) | (Code::Refused(_), 413 | 414 | 431) => Security::Oversize,
        (Code::Refused(_), 400 | 505) => Security::RequestRejected,
        _ => return,
    };
    log::security(what, address(client), &[("reason", &fault.outside), ("request_id", id)]);
}

fn address(client: Peer) -> Option<std::net::IpAddr> {
    match client {
        Peer::Address(address) => Some(address),
        Peer::Unix => None,
    }
}

/// Whose session an id is, when the server did not issue it: the key's, else the client and the website that it comes from.
fn principal(context: &Context<'_>) -> Principal {
    if let Some(caller) = &context.caller {
        return Principal::key(&caller.id);
    }
    Principal::visitor(address(context.client), context.origin.map(HeaderValue::as_bytes))
}

/// Whose turn a chat is, as a number that all workers agree on: the key's, else the address's, IPv6 by its /64.
fn client_number(context: &Context<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    match (&context.caller, address(context.client)) {
        (Some(caller), _) => caller.id.hash(&mut hasher),
        (None, Some(std::net::IpAddr::V6(address))) => address.octets()[..8].hash(&mut hasher),
        (None, address) => address.hash(&mut hasher),
    }
    hasher.finish()
}

fn with(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn internal() -> Fault {
    Fault::new(Code::Internal, "Something went wrong. The request id helps the operator to find out what.")
}
