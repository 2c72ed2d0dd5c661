//! An answer once more: what a client hears that repeats a request whose answer depends on next to nothing: a health check, or
//! a request for which it just had a 429 ([`strict`](super::strict) knows that it is the same). Nothing of the request is looked
//! at again; what the answer does depend on is asked each time.

use super::access::Access;
use super::admission::{admit, limited, word};
use super::fault::{Fault, Shape};
use super::headers::REQUEST_ID;
use super::ids::Id;
use super::route::Route;
use super::strict::{Again, Ledger};
use super::{App, address, date, route, status, v1};
use crate::board::tally;
use crate::limit::told::FIELDS;
use crate::limit::{self, Endpoint, Identity, Outcome, Peer, Verdict};
use crate::sys::clock;
use http::header::{CONNECTION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use std::sync::Arc;

/// All that an equal request's answer needs.
struct Repeat {
    app: Arc<App>,
    peer: Peer,
    route: usize,
    kind: Kind,
    /// Its line, and the user agent alone, for the access record.
    request: Request<()>,
    /// The caller's own.
    id: Option<HeaderValue>,
    /// The status line and the id's name.
    begin: &'static [u8],
    /// The fields that are the same in each answer, as they go out, and the name of the length.
    fields: Vec<u8>,
}

/// What decides the answer.
#[derive(Clone, Copy)]
enum Kind {
    /// How the model is.
    Health,
    /// Whether these limits still refuse this client.
    Refusal { client: limit::Client, endpoint: Endpoint, shape: Shape },
}

impl Kind {
    fn begin(self) -> &'static [u8] {
        match self {
            Kind::Health => b"HTTP/1.1 200 OK\r\nx-request-id: ",
            Kind::Refusal { .. } => b"HTTP/1.1 429 Too Many Requests\r\nx-request-id: ",
        }
    }
}

impl App {
    /// Tells the connection that the request just answered, with `fields`, can be answered without hyper if it comes again. Not
    /// where a key decides who is counted (it may be revoked at any moment), nor where the answer depends on more than [`Kind`].
    pub(super) fn once_more(
        self: &Arc<App>,
        head: &request::Parts,
        (peer, access): (Peer, &Access),
        fields: &HeaderMap,
    ) {
        let stays =
            head.headers.get(CONNECTION).is_none_or(|token| token.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
        let goes_on = stays && !fields.contains_key(CONNECTION) && head.version == Version::HTTP_11;
        if head.method == Method::HEAD || !goes_on {
            return;
        }
        access.ledger().repeats(|| self.repeat(head, (peer, access), fields));
    }

    #[cold]
    fn repeat(
        self: &Arc<App>,
        head: &request::Parts,
        (peer, access): (Peer, &Access),
        fields: &HeaderMap,
    ) -> Option<Box<dyn Again>> {
        let found = route::find(&head.method, head.uri.path());
        let kind = match found {
            Ok(Route::Health) => Kind::Health,
            _ if self.door.is_some() => return None,
            _ => Kind::Refusal {
                client: self.limiter.as_ref()?.client(Identity::Peer(peer)),
                endpoint: limited(found, head.uri.path())?,
                shape: Shape::of(head.uri.path()),
            },
        };
        let mut request = Request::new(());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = Uri::try_from(head.uri.path()).ok()?;
        if let Some(agent) = head.headers.get(USER_AGENT) {
            request.headers_mut().insert(USER_AGENT, HeaderValue::from_bytes(agent.as_bytes()).ok()?);
        }
        let mut same = b"\r\n".to_vec();
        for (name, value) in fields.iter().filter(|(name, _)| !differs(name)) {
            line(name.as_str(), value.as_bytes(), &mut same);
        }
        same.extend_from_slice(b"content-length: ");
        Some(Box::new(Repeat {
            app: self.clone(),
            peer,
            route: found.map_or(tally::OTHER, Route::number),
            kind,
            request,
            id: (!access.id().is_own()).then(|| access.id().header()),
            begin: kind.begin(),
            fields: same,
        }))
    }
}

/// Fields that are told anew each time.
fn differs(name: &HeaderName) -> bool {
    *name == REQUEST_ID || *name == RETRY_AFTER || *name == v1::SHOULD_RETRY || FIELDS.contains(name)
}

fn line(name: &str, value: &[u8], bytes: &mut Vec<u8>) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        bytes.extend_from_slice(part);
    }
}

impl Again for Repeat {
    fn again(&self, ledger: &Arc<Ledger>, answer: &mut Vec<u8>) -> bool {
        if self.app.leaving.closing() {
            return false;
        }
        match self.kind {
            Kind::Health => {
                let access = self.arrived(ledger);
                self.answer(access, status::health(&self.app.chat).as_ref(), |_| (), answer);
                true
            }
            Kind::Refusal { client, endpoint, shape } => self.refuse(&client, (endpoint, shape), ledger, answer),
        }
    }
}

impl Repeat {
    fn refuse(
        &self,
        client: &limit::Client,
        (endpoint, shape): (Endpoint, Shape),
        ledger: &Arc<Ledger>,
        answer: &mut Vec<u8>,
    ) -> bool {
        let mut verdict = Verdict::default();
        let refused =
            |limiter: &limit::Limiter| limiter.still_refuses(client, endpoint, clock::coarse_ms(), &mut verdict);
        if !self.app.limiter.as_ref().is_some_and(refused) {
            return false;
        }
        // Refused, as it was found to be.
        let Err(fault) = admit(&verdict, self.peer) else { return false };
        let mut access = self.arrived(ledger);
        access.verdict = word(Outcome::Refused);
        let body = fault.body(access.id().text(), shape);
        self.answer(access, &body, |answer| own_fields(&fault, &verdict, shape, answer), answer);
        true
    }

    fn arrived(&self, ledger: &Arc<Ledger>) -> Box<Access> {
        ledger.arrived("");
        let app = &self.app;
        let id = self.id.clone().map_or_else(|| app.ids.made(), Id::Given);
        let place = (app.lane, app.slot, app.holder);
        let mut access = Access::begin(place, address(self.peer), ledger.clone(), id, &self.request);
        access.found(self.route);
        access
    }

    /// The whole answer; `own` adds what only this one has, each with an end of line before it.
    fn answer(&self, mut access: Box<Access>, body: &[u8], own: impl FnOnce(&mut Vec<u8>), answer: &mut Vec<u8>) {
        access.status = match self.kind {
            Kind::Health => 200,
            Kind::Refusal { .. } => 429,
        };
        answer.extend_from_slice(self.begin);
        answer.extend_from_slice(access.id().text().as_bytes());
        own(answer);
        answer.extend_from_slice(&self.fields);
        answer.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        answer.extend_from_slice(b"\r\ndate: ");
        date::write(answer);
        answer.extend_from_slice(b"\r\n\r\n");
        answer.extend_from_slice(body);
        access.sent_whole(body.len());
    }
}

fn own_fields(fault: &Fault, verdict: &Verdict, shape: Shape, answer: &mut Vec<u8>) {
    let mut put = |name: &str, value: &[u8]| {
        for part in [b"\r\n", name.as_bytes(), b": ", value] {
            answer.extend_from_slice(part);
        }
    };
    verdict.fields().for_each(|(name, value)| put(name.as_str(), value.as_bytes()));
    if let (Shape::OpenAi, Some(retry)) = (shape, fault.should_retry()) {
        put(v1::SHOULD_RETRY.as_str(), retry.as_bytes());
    }
}
