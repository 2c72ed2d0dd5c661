//! A verdict, and how it is told: the fields of the IETF's draft (httpapi, "RateLimit header fields for HTTP",
//! draft 10 and 11) and the older `X-RateLimit-*`. The draft may rename its fields: the names stand here alone.

use super::plan::Route;
use super::quota::Quota;
use super::tally::{Standing, Standings};
use super::word::Limit;
use crate::sys::clock;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::time::SystemTime;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const OLD_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const OLD_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const OLD_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Longest name in `RateLimit`, with its numbers: no allocation but the header's own.
const STATE_BYTES_MAX: usize = 96;
/// What a client is told to wait when nobody is admitted until Redis is back.
const UNAVAILABLE_S: u64 = 1;

/// A limit's name and numbers as headers show them.
#[derive(PartialEq, Eq)]
pub struct Policy {
    /// `minute`, `chat-minute`.
    pub name: String,
    quota: Quota,
    limit: HeaderValue,
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

impl Verdict {
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
    pub fn violated(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.full().map(|line| line.name)
    }

    fn full(&self) -> impl Iterator<Item = Line<'static>> + '_ {
        self.lines().filter(|line| line.count.saturating_add(self.cost) > line.limit)
    }

    /// Whole seconds after which a retry is admitted if nobody else of this client comes first; `None` when this
    /// request was served.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s_at(clock::monotonic_ms())
    }

    fn retry_after_s_at(&self, now_ms: u64) -> Option<u64> {
        let full = self.full().map(|line| line.reset_ms).max();
        match self.outcome {
            Outcome::Refused => Some(seconds_up(self.left_ms(full.unwrap_or(0), now_ms))),
            Outcome::Unavailable => Some(UNAVAILABLE_S),
            _ => None,
        }
    }

    /// Writes the verdict's headers: nothing for an exempt client or when headers are off, but `Retry-After` always.
    pub fn headers(&self, headers: &mut HeaderMap) {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.headers_at(clock::monotonic_ms(), epoch.as_millis() as u64, headers);
    }

    /// Adds a second verdict's headers to those of the first: both are lists. One that refused takes the old fields,
    /// which hold one limit only.
    pub fn more_headers(&self, headers: &mut HeaderMap) {
        let mut own = HeaderMap::new();
        self.headers(&mut own);
        let refused = !self.admitted();
        for (name, value) in &own {
            match *name == POLICY || *name == STATE {
                true => _ = headers.append(name, value.clone()),
                false if refused => _ = headers.insert(name, value.clone()),
                false => {}
            }
        }
    }

    fn headers_at(&self, now_ms: u64, epoch_ms: u64, headers: &mut HeaderMap) {
        if let Some(seconds) = self.retry_after_s_at(now_ms) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if !self.headers || self.outcome == Outcome::Exempt {
            return;
        }
        let Some((policy, standing)) = self.tightest() else { return };
        let left_ms = self.left_ms(standing.reset_ms, now_ms);
        let remaining = policy.quota.count.saturating_sub(standing.count);
        headers.insert(POLICY, self.route.policy.clone());
        headers.insert(STATE, state(&policy.name, remaining, seconds_up(left_ms)));
        headers.insert(OLD_LIMIT, policy.limit.clone());
        headers.insert(OLD_REMAINING, HeaderValue::from(remaining));
        headers.insert(OLD_RESET, HeaderValue::from((epoch_ms + left_ms).div_ceil(1_000)));
    }

    /// The limit with the least left; of several the one that lasts longest.
    fn tightest(&self) -> Option<(&'static Policy, &Standing)> {
        let route = self.route;
        let left = |(policy, standing): &(&Policy, &Standing)| {
            (policy.quota.count.saturating_sub(standing.count), u64::MAX - standing.reset_ms)
        };
        route.policies.iter().zip(&self.standings).min_by_key(left)
    }

    fn left_ms(&self, reset_ms: u64, now_ms: u64) -> u64 {
        reset_ms.saturating_sub(now_ms.saturating_sub(self.decided_ms))
    }
}

/// `"minute";r=3;t=41`
fn state(name: &str, remaining: u32, seconds: u64) -> HeaderValue {
    let (mut text, mut length) = ([0; STATE_BYTES_MAX], 0);
    let (mut r, mut t) = (itoa::Buffer::new(), itoa::Buffer::new());
    for part in ["\"", name, "\";r=", r.format(remaining), ";t=", t.format(seconds)] {
        let room = part.len().min(STATE_BYTES_MAX - length);
        text[length..length + room].copy_from_slice(&part.as_bytes()[..room]);
        length += room;
    }
    HeaderValue::from_bytes(&text[..length]).unwrap_or(HeaderValue::from_static(""))
}

/// Rounded up, and at least 1: a retry must find the window over.
fn seconds_up(ms: u64) -> u64 {
    ms.div_ceil(1_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::plan::{Endpoint, Plan, Rules};

    fn verdict(outcome: Outcome, told: [(u32, u64); 4]) -> Verdict {
        let rules: &'static Rules = Box::leak(Box::new(Rules::compile(&Plan::default(), &mut [0; 7]).unwrap()));
        let mut standings = Standings::default();
        for (standing, (count, reset_ms)) in standings.iter_mut().zip(told) {
            *standing = Standing { count, reset_ms };
        }
        let route = rules.route(Endpoint::Chat);
        Verdict { outcome, source: Source::Table, route, standings, cost: 1, headers: true, decided_ms: 5_000 }
    }

    fn told(verdict: Verdict, now_ms: u64) -> Vec<String> {
        let mut headers = HeaderMap::new();
        verdict.headers_at(now_ms, 1_700_000_000_100, &mut headers);
        let names = ["ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"];
        names.iter().filter_map(|name| headers.get(*name)).map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn an_admitted_request_hears_of_the_tightest_window() {
        let verdict = verdict(Outcome::Admitted, [(3, 41_000), (7, 40_001), (7, 3_000_000), (7, 80_000_000)]);
        assert_eq!(told(verdict, 5_000), [r#""minute";r=3;t=41"#, "10", "3", "1700000041"]);
        assert_eq!(told(verdict, 6_000)[0], r#""minute";r=3;t=40"#, "time went by until the answer");
    }

    #[test]
    fn a_refused_one_hears_when_to_come_back() {
        let verdict = verdict(Outcome::Refused, [(10, 41_000), (10, 40_001), (50, 1_000_001), (60, 80_000_000)]);
        assert_eq!(told(verdict, 5_000), [r#""hour";r=0;t=1001"#, "50", "0", "1700001001", "1001"]);
        assert_eq!(verdict.violated().collect::<Vec<_>>(), ["chat-minute", "minute", "hour"]);
        assert_eq!(told(verdict, 2_000_000)[4], "1", "never less than a second");
    }

    #[test]
    fn a_count_above_a_lowered_limit_leaves_nothing_and_not_less() {
        let verdict = verdict(Outcome::Refused, [(12, 500), (12, 500), (12, 3_000_000), (12, 80_000_000)]);
        assert_eq!(told(verdict, 5_000)[2], "0");
    }

    #[test]
    fn closed_says_one_second_and_exempt_says_nothing() {
        let standings = [(0, 0); 4];
        assert_eq!(told(verdict(Outcome::Unavailable, standings), 5_000)[4], "1");
        assert!(told(verdict(Outcome::Exempt, standings), 5_000).is_empty());
    }
}
