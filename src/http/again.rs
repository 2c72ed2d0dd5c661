//! A refusal once more: what a client hears that repeats a request for which it just had a 429 ([`strict`](super::strict)
//! knows that it is the same). Nothing of the request is looked at again; whether the limits still refuse it is.

use super::access::Access;
use super::admission::{admit, limited, word};
use super::fault::{Fault, Shape};
use super::headers::REQUEST_ID;
use super::ids::Id;
use super::strict::{Again, Ledger};
use super::{App, address, route, v1};
use crate::board::tally;
use crate::limit::told::FIELDS;
use crate::limit::{self, Endpoint, Identity, Peer, Verdict};
use crate::sys::clock;
use http::header::{CONNECTION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use std::sync::Arc;
use std::time::SystemTime;

/// All that an equal request's answer needs.
struct Repeat {
    app: Arc<App>,
    client: limit::Client,
    peer: Peer,
    endpoint: Endpoint,
    route: usize,
    shape: Shape,
    /// Its line, and the user agent alone, for the access record.
    request: Request<()>,
    /// The caller's own.
    id: Option<HeaderValue>,
    /// The fields that are the same in each answer, as they go out.
    fields: Vec<u8>,
}

impl App {
    /// Tells the connection that the request just refused, and answered with `fields`, can be refused without hyper. Not where a
    /// key decides who asks (it may be revoked at any moment), nor where the answer depends on more than the limits.
    #[cold]
    pub(super) fn once_more(
        self: &Arc<App>,
        head: &request::Parts,
        (peer, access): (Peer, &Access),
        fields: &HeaderMap,
    ) {
        let stays =
            head.headers.get(CONNECTION).is_none_or(|token| token.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
        let goes_on = stays && !fields.contains_key(CONNECTION) && head.version == Version::HTTP_11;
        if self.door.is_some() || head.method == Method::HEAD || !goes_on {
            return;
        }
        access.ledger().refused(|| {
            let found = route::find(&head.method, head.uri.path());
            let mut request = Request::new(());
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = Uri::try_from(head.uri.path()).ok()?;
            if let Some(agent) = head.headers.get(USER_AGENT) {
                request.headers_mut().insert(USER_AGENT, HeaderValue::from_bytes(agent.as_bytes()).ok()?);
            }
            Some(Box::new(Repeat {
                client: self.limiter.as_ref()?.client(Identity::Peer(peer)),
                peer,
                endpoint: limited(found, head.uri.path())?,
                route: found.map_or(tally::OTHER, route::Route::number),
                shape: Shape::of(head.uri.path()),
                request,
                id: (!access.id().is_own()).then(|| access.id().header()),
                fields: lines(fields.iter().filter(|(name, _)| !differs(name))),
                app: self.clone(),
            }))
        });
    }
}

/// Fields that are told anew each time.
fn differs(name: &HeaderName) -> bool {
    *name == REQUEST_ID || *name == RETRY_AFTER || *name == v1::SHOULD_RETRY || FIELDS.contains(name)
}

fn lines<'a>(fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    fields.for_each(|(name, value)| line(name.as_str(), value.as_bytes(), &mut bytes));
    bytes
}

fn line(name: &str, value: &[u8], bytes: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}

impl Again for Repeat {
    fn again(&self, ledger: &Arc<Ledger>, answer: &mut Vec<u8>) -> bool {
        let (app, mut verdict) = (&self.app, Verdict::default());
        let now_ms = clock::coarse_ms();
        let refused =
            |limiter: &limit::Limiter| limiter.still_refuses(&self.client, self.endpoint, now_ms, &mut verdict);
        if app.leaving.closing() || !app.limiter.as_ref().is_some_and(refused) {
            return false;
        }
        // Refused, as it was found to be.
        let Err(fault) = admit(&verdict, self.peer) else { return false };
        ledger.arrived("");
        let id = self.id.clone().map_or_else(|| app.ids.made(), Id::Given);
        let place = (app.lane, app.slot, app.holder);
        let mut access = Access::begin(place, address(self.peer), ledger.clone(), id, &self.request);
        access.found(self.route);
        access.status = fault.code.status().as_u16();
        access.verdict = word(verdict.outcome);
        let body = fault.body(access.id().text(), self.shape);
        self.head(&fault, &verdict, (access.id(), body.len()), answer);
        answer.extend_from_slice(&body);
        access.sent_whole(body.len());
        true
    }
}

impl Repeat {
    fn head(&self, fault: &Fault, verdict: &Verdict, (id, length): (&Id, usize), answer: &mut Vec<u8>) {
        answer.extend_from_slice(b"HTTP/1.1 429 Too Many Requests\r\n");
        line(REQUEST_ID.as_str(), id.text().as_bytes(), answer);
        verdict.fields().for_each(|(name, value)| line(name.as_str(), value.as_bytes(), answer));
        if let (Shape::OpenAi, Some(retry)) = (self.shape, fault.should_retry()) {
            line(v1::SHOULD_RETRY.as_str(), retry.as_bytes(), answer);
        }
        answer.extend_from_slice(&self.fields);
        line("content-length", itoa::Buffer::new().format(length).as_bytes(), answer);
        line("date", httpdate::fmt_http_date(SystemTime::now()).as_bytes(), answer);
        answer.extend_from_slice(b"\r\n");
    }
}
