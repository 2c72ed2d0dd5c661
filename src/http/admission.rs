//! Who asks, and whether one more request of theirs is let in: the key, the address, the limits.

use super::auth::Denied;
use super::fault::{Code, Fault};
use super::route::{Miss, Route};
use super::{App, Context, address};
use crate::board::Once;
use crate::limit::operator::Who;
use crate::limit::{self, Client, Endpoint, Identity, Limiter, Outcome, Peer, Verdict};
use crate::log::{self, Security};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl App {
    /// Who asks: the peer, or the client behind proxies that are trusted.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        let mut forwarded = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).peekable();
        // Most requests come without the header; what is left then is to unmap the address.
        match forwarded.peek() {
            None => limit::client::resolve(peer, std::iter::empty(), &self.plan.trusted),
            Some(_) if self.plan.trusted.contains(peer) => {
                limit::client::resolve(peer, forwarded.collect::<Vec<_>>().into_iter(), &self.plan.trusted)
            }
            Some(_) => {
                self.warn_of(peer);
                limit::client::resolve(peer, std::iter::empty(), &self.plan.trusted)
            }
        }
    }

    /// Once in the server's life: a proxy that is not known to be one makes all who come by it one client.
    #[cold]
    fn warn_of(&self, peer: Peer) {
        if let Some(peer) = address(peer).filter(|_| self.board.first(Once::ForwardedByStranger)) {
            let peer = peer.to_canonical();
            tracing::warn!(
                %peer,
                "X-Forwarded-For comes from {peer}, which is no trusted proxy, and is not believed: if it is one, name it in FORWARDED_ALLOW_IPS"
            );
        }
    }

    /// One unit of the caller's.
    pub(super) async fn count(
        &self,
        endpoint: Endpoint,
        context: &mut Context<'_>,
        verdict: &mut Verdict,
    ) -> Result<(), Fault> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        let client = context.counted(limiter);
        if !limiter.check_now(&client, endpoint, context.access.began_ms(), verdict) {
            *verdict = Box::pin(limiter.check_remote(&client, endpoint)).await;
        }
        context.access.verdict = word(verdict.outcome);
        context.told = verdict.told();
        admit(verdict, context.client)
    }

    /// How a client, by its address or its key's id, stands in its limits, for the operator; `error` says why not.
    pub async fn limits_of(&self, text: &str, reset: bool) -> Value {
        let Some(limiter) = &self.limiter else { return json!({"error": "rate limiting is off"}) };
        let Some(who) = Who::parse(text) else { return json!({"error": "neither an address nor the id of a key"}) };
        let quotas = match (&who, &self.door) {
            (Who::Key(id), Some(door)) => door.quota(id),
            (Who::Key(_), None) => None,
            (Who::Peer(_), _) => Some(Vec::new()),
        };
        let Some(quotas) = quotas else { return json!({"error": "there is no key of this id"}) };
        let client = limiter.who(&who, &quotas);
        let reached = !reset || limiter.reset(&client).await;
        let mut picture = limiter.picture(&client).await;
        picture["reached"] = reached.into();
        picture
    }

    /// A request without a good key: logged, and paid for by its address from a quota of its own.
    pub(super) async fn deny(&self, denied: Denied, context: &mut Context<'_>, verdict: &mut Verdict) -> Fault {
        let (reason, key) = match &denied {
            Denied::Missing => ("missing", ""),
            Denied::Wrong => ("wrong", ""),
            Denied::Ended(id) => ("expired or revoked", id.as_str()),
        };
        let fields = [("reason", reason), ("key_id", key), ("request_id", context.access.id().text())];
        log::security(Security::AuthFailed, address(context.client), &fields);
        match (self.count(Endpoint::Auth, context, verdict).await, denied) {
            (Err(limited), _) => limited,
            (Ok(()), Denied::Ended(_)) => Fault::forbidden(),
            (Ok(()), _) => Fault::unauthorized(),
        }
    }
}

impl Context<'_> {
    /// Who pays.
    pub(super) fn counted(&self, limiter: &Limiter) -> Client {
        match &self.caller {
            Some(caller) => limiter.key(caller.id.as_bytes(), &caller.quota),
            None => limiter.client(Identity::Peer(self.client)),
        }
    }
}

/// Whether a request costs a unit, and of what: everything below `/api/` and `/v1/` does, but health and preflights.
pub(super) fn limited(found: Result<Route, Miss>, path: &str) -> Option<Endpoint> {
    match found {
        Ok(
            Route::Health
            | Route::Live
            | Route::Ready
            | Route::Root
            | Route::Page(_)
            | Route::OpenApi
            | Route::Preflight(_),
        ) => None,
        Ok(Route::Chat | Route::Completions) => Some(Endpoint::Chat),
        Ok(Route::Initialize) => Some(Endpoint::Initialize),
        Ok(Route::ModeGet | Route::ModeSet | Route::Models) => Some(Endpoint::Api),
        Err(_) if path == "/api/health" => None,
        Err(_) if path == "/api/chat" || path == "/v1/chat/completions" => Some(Endpoint::Chat),
        Err(_) if path == "/api/initialize" => Some(Endpoint::Initialize),
        Err(_) => (path.starts_with("/api/") || path.starts_with("/v1/")).then_some(Endpoint::Api),
    }
}

pub(super) fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Exempt => "exempt",
        Outcome::Admitted => "admitted",
        Outcome::Refused => "refused",
        Outcome::WouldRefuse => "would_refuse",
        Outcome::Unavailable => "unavailable",
    }
}

pub(super) fn admit(verdict: &Verdict, client: Peer) -> Result<(), Fault> {
    match verdict.outcome {
        Outcome::Exempt | Outcome::Admitted | Outcome::WouldRefuse => Ok(()),
        Outcome::Unavailable => Err(Fault::new(Code::NotReady, "Requests cannot be counted now. Try again shortly.")),
        Outcome::Refused => {
            let limit = verdict.violated();
            log::security(Security::RateLimited, address(client), &[("limit", limit)]);
            Err(Fault::rate_limited(limit, verdict.retry_after_s().unwrap_or(1)))
        }
    }
}
