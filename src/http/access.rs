//! One line for each request, whatever becomes of it: a guard that is opened at the top and ends with the body.

use super::ids::Id;
use super::strict::Ledger;
use crate::board::held::{Hold, Holder, Phase};
use crate::board::{Lane, tally};
use crate::limit::Verdict;
use crate::log::access;
use crate::sys::clock;
use http::{HeaderValue, Method, Uri, Version};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The status of a request whose client left before there was an answer (nginx's habit).
pub const CLIENT_LEFT: u16 = 499;

/// An open access record.
pub struct Access {
    lane: Lane,
    slot: usize,
    hold: Hold,
    /// Monotonic.
    began: Duration,
    first_byte: Option<Duration>,
    first_token: Option<Duration>,
    /// Known when the whole body went out at once.
    whole: Option<Duration>,
    method: Method,
    uri: Uri,
    version: Version,
    id: Id,
    user_agent: Option<HeaderValue>,
    client: Option<IpAddr>,
    ledger: Arc<Ledger>,
    route: usize,
    /// The response's status.
    pub status: u16,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// What the rate limiter said.
    pub verdict: &'static str,
    /// What it said of tokens, for the response's headers.
    pub budget: Option<Box<Verdict>>,
    bytes_out: u64,
}

impl Access {
    /// Opens the record of a request.
    pub fn begin<B>(
        (lane, slot, holder): (Lane, usize, &'static Holder),
        client: Option<IpAddr>,
        ledger: Arc<Ledger>,
        id: Id,
        request: &http::Request<B>,
    ) -> Box<Access> {
        // One look at the clock for three purposes: under full load a loop never rests, so it shows with every request
        // that it turns.
        let now = clock::monotonic();
        lane.request_begun();
        lane.turn(now.as_millis() as u64);
        Box::new(Access {
            lane,
            slot,
            hold: holder.hold(id.text(), now.as_millis() as u64),
            began: now,
            first_byte: None,
            first_token: None,
            whole: None,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            id,
            user_agent: request.headers().get(http::header::USER_AGENT).cloned(),
            client,
            ledger,
            route: tally::OTHER,
            status: CLIENT_LEFT,
            bytes_in: 0,
            verdict: "-",
            budget: None,
            bytes_out: 0,
        })
    }

    /// What it asks for, a number in [`tally::ROUTES`].
    pub fn found(&mut self, route: usize) {
        self.route = route;
        self.hold.route(route);
    }

    /// See [`Access::found`].
    pub fn route(&self) -> usize {
        self.route
    }

    /// What it waits for from now on.
    pub fn waits_for(&self, phase: Phase) {
        self.hold.phase(phase);
    }

    /// When the request began, in monotonic milliseconds.
    pub fn began_ms(&self) -> u64 {
        self.began.as_millis() as u64
    }

    /// How long ago the request began.
    pub fn elapsed(&self) -> Duration {
        clock::monotonic().saturating_sub(self.began)
    }

    /// Copies what it keeps of the request's head: else a stream would hold hyper's buffer of 8 KiB that the head
    /// came in for as long as it runs.
    pub fn detach(&mut self) {
        self.uri = Uri::try_from(self.uri.path()).unwrap_or_default();
        let copied = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
        self.user_agent = self.user_agent.as_ref().and_then(copied);
        if let Id::Given(id) = &mut self.id
            && let Some(copy) = copied(id)
        {
            *id = copy;
        }
    }

    /// The request's id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Of the connection that it came by.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// True when the head that stands behind a refusal asked for something below `/v1/`.
    pub fn below_v1(&self) -> bool {
        self.ledger.below_v1()
    }

    /// The model's first token has come; later ones change nothing.
    pub fn token(&mut self) {
        if self.first_token.is_none() {
            self.first_token = Some(self.elapsed());
        }
    }

    /// The first token is still awaited.
    pub fn awaits_token(&self) -> bool {
        self.first_token.is_none()
    }

    /// Bytes of the response's body went out.
    pub fn sent(&mut self, bytes: usize) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.elapsed());
        }
        self.bytes_out += bytes as u64;
    }

    /// The whole body went out as one piece: its end is its beginning.
    pub fn sent_whole(&mut self, bytes: usize) {
        self.sent(bytes);
        self.whole = self.first_byte;
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.lane.request_ended();
        self.hold.release();
        self.ledger.answered();
        let duration = self.whole.unwrap_or_else(|| self.elapsed());
        self.lane.tally().ended(self.route, self.status, self.verdict, duration, self.first_token);
        access::emit(&access::Record {
            request_id: self.id.text(),
            own_id: self.id.is_own(),
            client: self.client,
            method: self.method.as_str(),
            path: self.uri.path(),
            protocol: match self.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration,
            first_byte: self.first_byte,
            worker: self.slot,
            verdict: self.verdict,
            user_agent: self.user_agent.as_ref().and_then(|agent| agent.to_str().ok()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Board;
    use crate::http::ids::Ids;
    use bytes::Bytes;

    #[test]
    fn a_detached_record_lets_go_of_the_buffer_of_its_head() {
        let buffer = Bytes::from(b"/api/chat?a=b agent-1 caller-1".to_vec());
        let uri = Uri::from_maybe_shared(buffer.slice(..13)).unwrap();
        let agent = HeaderValue::from_maybe_shared(buffer.slice(14..21)).unwrap();
        let id = HeaderValue::from_maybe_shared(buffer.slice(22..)).unwrap();
        let request = http::Request::builder().uri(uri).header("user-agent", agent).header("x-request-id", id);
        let request = request.body(()).unwrap();
        let own = Board::create().unwrap().open(0);
        own.enter(1, 1);
        let place = (own.lane(0), 0, &*Box::leak(Box::new(own.holder(0, 1))));
        let id = Ids::new().unwrap().of(request.headers());
        let mut access = Access::begin(place, None, Arc::new(Ledger::new(0)), id, &request);
        drop(request);
        assert!(!buffer.is_unique(), "the record shares it at first");
        access.detach();
        assert!(buffer.is_unique());
        let agent = access.user_agent.as_ref().and_then(|agent| agent.to_str().ok());
        assert_eq!((access.uri.path(), agent, access.id().text()), ("/api/chat", Some("agent-1"), "caller-1"));
    }
}
