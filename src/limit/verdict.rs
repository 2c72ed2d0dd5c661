//! A verdict: what was decided about a request, and how its limits stand then. [`super::told`] puts it into headers.

use super::plan::Route;
use super::quota::Quota;
use super::tally::{APPLIED_MAX, Standing, Standings};
use super::told::seconds_up;
use super::word::{Limit, Now};
use http::HeaderValue;

/// What a client is told to wait when nobody is admitted until Redis is back.
const UNAVAILABLE_S: u64 = 1;

/// A limit's name and numbers as headers show them.
#[derive(PartialEq, Eq)]
pub struct Policy {
    /// `minute`, `chat-minute`.
    pub name: String,
    pub(super) quota: Quota,
    pub(super) limit: HeaderValue,
}

impl Policy {
    /// The policy of `limit`, its window's name behind `prefix`.
    pub fn new(limit: &Limit, prefix: &str) -> Policy {
        let quota = Quota { count: limit.count, window_s: (limit.window_ms / 1_000) as u32 };
        Policy { name: format!("{prefix}{}", quota.window_name()), quota, limit: HeaderValue::from(limit.count) }
    }
}

/// The `RateLimit-Policy` field, a structured field's list.
pub fn policy_header(policies: &[Policy]) -> HeaderValue {
    let item = |policy: &Policy| format!("\"{}\";q={};w={}", policy.name, policy.quota.count, policy.quota.window_s);
    let text = policies.iter().map(item).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No limit applies to this client: it is not counted, and gets no headers.
    Exempt,
    /// Counted in every limit.
    Admitted,
    /// Counted in none.
    Refused,
    /// A dry run's refusal: it is served.
    WouldRefuse,
    /// Redis is away, and the fallback is `closed`: 503.
    Unavailable,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The shared memory alone: there is no Redis, or it had refused this client before.
    Table,
    /// Redis.
    Redis,
    /// The shared memory, in place of Redis.
    Standby,
}

/// A decision about one request.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// See [`Outcome`].
    pub outcome: Outcome,
    /// See [`Source`].
    pub source: Source,
    pub(super) route: &'static Route,
    pub(super) standings: Standings,
    /// Units that the request costs.
    pub(super) cost: u32,
    pub(super) headers: bool,
    /// Monotonic milliseconds.
    pub(super) decided_ms: u64,
}

/// One limit of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The policy's name.
    pub name: &'a str,
    /// Requests a window admits.
    pub limit: u32,
    /// Admitted in this window.
    pub count: u32,
    /// Milliseconds until it ends; 0 when none is under way.
    pub reset_ms: u64,
}

/// What stands for the limits of a request that none apply to.
static NOWHERE: Route = Route::nowhere();

impl Default for Verdict {
    /// Nothing was asked, or no limit applies: there is nothing to tell.
    fn default() -> Verdict {
        let standings = Standings::default();
        let (outcome, source, route) = (Outcome::Exempt, Source::Table, &NOWHERE);
        Verdict { outcome, source, route, standings, cost: 1, headers: false, decided_ms: 0 }
    }
}

impl Verdict {
    /// It is of these limits, at this time.
    #[inline]
    pub(super) fn about(&mut self, route: &'static Route, headers: bool, now: Now) {
        (self.route, self.headers, self.decided_ms) = (route, headers, now.ms);
    }

    /// True when the request is to be served.
    pub fn admitted(&self) -> bool {
        !matches!(self.outcome, Outcome::Refused | Outcome::Unavailable)
    }

    /// Every limit that applied, for logs and the operator.
    pub fn lines(&self) -> impl Iterator<Item = Line<'static>> + '_ {
        let route = self.route;
        route.policies.iter().zip(&self.standings).map(|(policy, standing)| Line {
            name: &policy.name,
            limit: policy.quota.count,
            count: standing.count,
            reset_ms: standing.reset_ms,
        })
    }

    /// Names of the limits that are full.
    pub fn violated(&self) -> &'static str {
        let bits = self.full().fold(0usize, |bits, (number, _)| bits | 1 << number);
        let route = self.route;
        route.violations.get(bits).map_or("", String::as_str)
    }

    fn full(&self) -> impl Iterator<Item = (usize, &Standing)> + '_ {
        let standings = self.route.policies.iter().zip(&self.standings).enumerate();
        let is_full =
            |policy: &Policy, standing: &Standing| standing.count.saturating_add(self.cost) > policy.quota.count;
        standings
            .filter(move |(_, (policy, standing))| is_full(policy, standing))
            .map(|(at, (_, standing))| (at, standing))
    }

    /// Whole seconds after which a retry is admitted if nobody else of this client comes first; `None` when this
    /// request was served. Counted from the decision: a refusal does not wait.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Refused => Some(seconds_up(self.full().map(|(_, standing)| standing.reset_ms).max().unwrap_or(0))),
            Outcome::Unavailable => Some(UNAVAILABLE_S),
            _ => None,
        }
    }

    /// True where a limit is told.
    pub(super) fn tells(&self) -> bool {
        self.headers && self.outcome != Outcome::Exempt && !self.route.policies.is_empty()
    }

    /// The limit with the least left, of several the one that lasts longest; nothing where limits are not told.
    pub(super) fn tightest(&self) -> Option<(&'static Policy, &Standing)> {
        if !self.tells() {
            return None;
        }
        let route = self.route;
        let left = |(policy, standing): &(&Policy, &Standing)| {
            (policy.quota.count.saturating_sub(standing.count), u64::MAX - standing.reset_ms)
        };
        route.policies.iter().zip(&self.standings).min_by_key(left)
    }

    pub(super) fn left_ms(&self, reset_ms: u64, now_ms: u64) -> u64 {
        reset_ms.saturating_sub(now_ms.saturating_sub(self.decided_ms))
    }
}

/// How a refusal names the limits that it ran into: made once for each set of full ones, by its bits.
pub fn violations(policies: &[Policy]) -> Vec<String> {
    let few = &policies[..policies.len().min(APPLIED_MAX)];
    let named =
        |set: usize| few.iter().enumerate().filter(move |(at, _)| set >> at & 1 == 1).map(|(_, policy)| &*policy.name);
    (0..1usize << few.len()).map(|set| named(set).collect::<Vec<_>>().join(", ")).collect()
}
