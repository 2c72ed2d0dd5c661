//! How a verdict is told: the fields of the IETF's draft (httpapi, "RateLimit header fields for HTTP", draft 10 and 11)
//! and the older `X-RateLimit-*`. The draft may rename its fields: the names stand here alone.
//!
//! Answers begin as copies of a prepared map that keeps places for these fields at its head, so that nothing is
//! searched for or moved when they are filled in ([`put`]). Numbers are written one after the other into a page that
//! answers share: nothing is allocated for one of them.

use super::plan::Route;
use super::verdict::{Policy, Verdict};
use crate::sys::clock;
use bytes::BytesMut;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use std::cell::RefCell;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const OLD_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const OLD_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const OLD_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The fields of an answer to a limited request, in the order in which [`Verdict::headers`] puts them.
pub const FIELDS: [HeaderName; 5] = [POLICY, STATE, OLD_LIMIT, OLD_REMAINING, OLD_RESET];

/// Bytes of a page that values are written to, and of what one value may take of it.
const PAGE_BYTES: usize = 4096;
const VALUE_BYTES_MAX: usize = 128;

thread_local! {
    static PAGE: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What [`FIELDS`] say.
struct Numbers {
    route: &'static Route,
    policy: &'static Policy,
    remaining: u32,
    left_s: u64,
    reset_s: u64,
}

/// Fields of an answer with their values. Each value is made where it is taken: one that is handed on is copied by wider
/// words than it was written by, for which a processor waits longer than for all of its making.
pub struct Fields {
    numbers: Option<Numbers>,
    retry_s: Option<u64>,
    at: usize,
}

impl Numbers {
    #[inline(always)]
    fn policy(&self) -> (HeaderName, HeaderValue) {
        (POLICY, self.route.policy.clone())
    }

    /// `"minute";r=3;t=41`
    #[inline(always)]
    fn state(&self) -> (HeaderName, HeaderValue) {
        let (mut r, mut t) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (r, t) = (r.format(self.remaining), t.format(self.left_s));
        (STATE, value(&["\"", &self.policy.name, "\";r=", r, ";t=", t]))
    }

    #[inline(always)]
    fn old_limit(&self) -> (HeaderName, HeaderValue) {
        (OLD_LIMIT, self.policy.limit.clone())
    }

    #[inline(always)]
    fn old_remaining(&self) -> (HeaderName, HeaderValue) {
        (OLD_REMAINING, number(self.remaining.into()))
    }

    #[inline(always)]
    fn old_reset(&self) -> (HeaderName, HeaderValue) {
        (OLD_RESET, number(self.reset_s))
    }
}

impl Fields {
    #[cold]
    fn rest<B>(self, start: B, mut each: impl FnMut(B, (HeaderName, HeaderValue)) -> B) -> B {
        let mut so_far = start;
        for field in self {
            so_far = each(so_far, field);
        }
        so_far
    }
}

impl Iterator for Fields {
    type Item = (HeaderName, HeaderValue);

    fn next(&mut self) -> Option<Self::Item> {
        self.at += 1;
        match (&self.numbers, self.at) {
            (Some(numbers), 1) => Some(numbers.policy()),
            (Some(numbers), 2) => Some(numbers.state()),
            (Some(numbers), 3) => Some(numbers.old_limit()),
            (Some(numbers), 4) => Some(numbers.old_remaining()),
            (Some(numbers), 5) => Some(numbers.old_reset()),
            _ => self.retry_s.take().map(retry),
        }
    }

    #[inline(always)]
    fn fold<B, F: FnMut(B, Self::Item) -> B>(self, start: B, mut each: F) -> B {
        if self.at > 0 {
            return self.rest(start, each);
        }
        let mut so_far = start;
        if let Some(numbers) = &self.numbers {
            so_far = each(so_far, numbers.policy());
            so_far = each(so_far, numbers.state());
            so_far = each(so_far, numbers.old_limit());
            so_far = each(so_far, numbers.old_remaining());
            so_far = each(so_far, numbers.old_reset());
        }
        match self.retry_s {
            Some(seconds) => each(so_far, retry(seconds)),
            None => so_far,
        }
    }
}

/// What an answer tells of limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// Where the client stands: [`FIELDS`].
    Standing,
    /// The same, and `Retry-After` behind it.
    Refusal,
}

impl Verdict {
    /// What will be told of it.
    pub fn told(&self) -> Told {
        match (self.tells(), self.admitted()) {
            (false, _) => Told::Nothing,
            (true, true) => Told::Standing,
            (true, false) => Told::Refusal,
        }
    }

    /// Writes the verdict's headers: nothing for an exempt client or when headers are off, but `Retry-After` always.
    pub fn headers(&self, headers: &mut HeaderMap) {
        put(headers, self.fields());
    }

    /// The verdict's headers, with their values.
    #[inline]
    pub fn fields(&self) -> Fields {
        self.fields_at(clock::coarse_ms(), clock::epoch_coarse_ms())
    }

    #[inline]
    fn fields_at(&self, now_ms: u64, epoch_ms: u64) -> Fields {
        let numbers = self.tightest().map(|(policy, standing)| {
            let left_ms = self.left_ms(standing.reset_ms, now_ms);
            let remaining = policy.quota.count.saturating_sub(standing.count);
            let reset_s = (epoch_ms + left_ms).div_ceil(1_000);
            Numbers { route: self.route, policy, remaining, left_s: seconds_up(left_ms), reset_s }
        });
        Fields { numbers, retry_s: self.retry_after_s(), at: 0 }
    }

    /// Adds a second verdict's headers to those of the first: both are lists. One that refused takes the old fields,
    /// which hold one limit only.
    pub fn more_headers(&self, headers: &mut HeaderMap) {
        let refused = !self.admitted();
        for (name, value) in self.fields() {
            match name == POLICY || name == STATE {
                true => _ = headers.append(name, value),
                false if refused => _ = headers.insert(name, value),
                false => {}
            }
        }
    }
}

/// Puts fields in the places that a prepared map keeps for them at its head, in this order; where it has none, adds them.
pub fn put(map: &mut HeaderMap, fields: impl Iterator<Item = (HeaderName, HeaderValue)>) {
    let mut late = Vec::new();
    let mut places = map.iter_mut();
    fields.for_each(|(name, value)| match places.next() {
        Some((known, old)) if *known == name => *old = value,
        _ => late.push((name, value)),
    });
    for (name, value) in late {
        map.insert(name, value);
    }
}

fn retry(seconds: u64) -> (HeaderName, HeaderValue) {
    (RETRY_AFTER, number(seconds))
}

fn number(number: u64) -> HeaderValue {
    value(&[itoa::Buffer::new().format(number)])
}

#[inline]
fn value(parts: &[&str]) -> HeaderValue {
    PAGE.with_borrow_mut(|page| {
        // A page whose values are all gone is used again.
        page.reserve(if page.capacity() < VALUE_BYTES_MAX { PAGE_BYTES } else { 0 });
        parts.iter().for_each(|part| page.extend_from_slice(part.as_bytes()));
        HeaderValue::from_maybe_shared(page.split().freeze()).unwrap_or(HeaderValue::from_static(""))
    })
}

/// Rounded up, and at least 1: a retry must find the window over.
pub(super) fn seconds_up(ms: u64) -> u64 {
    ms.div_ceil(1_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::plan::{Endpoint, Plan, Rules};
    use crate::limit::tally::{Standing, Standings};
    use crate::limit::verdict::{Outcome, Source};

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
        put(&mut headers, verdict.fields_at(now_ms, 1_700_000_000_100));
        let names = ["ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"];
        names.iter().filter_map(|name| headers.get(*name)).map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn an_admitted_request_hears_of_the_tightest_window() {
        let verdict = verdict(Outcome::Admitted, [(3, 41_000), (7, 40_001), (7, 3_000_000), (7, 80_000_000)]);
        assert_eq!(told(verdict, 5_000), [r#""minute";r=3;t=41"#, "10", "3", "1700000041"]);
        assert_eq!(told(verdict, 6_000)[0], r#""minute";r=3;t=40"#, "time went by until the answer");
        assert_eq!(verdict.told(), Told::Standing);
    }

    #[test]
    fn a_refused_one_hears_when_to_come_back() {
        let verdict = verdict(Outcome::Refused, [(10, 41_000), (10, 40_001), (50, 1_000_001), (60, 80_000_000)]);
        assert_eq!(told(verdict, 5_000), [r#""hour";r=0;t=1001"#, "50", "0", "1700001001", "1001"]);
        assert_eq!((verdict.violated(), verdict.told()), ("chat-minute, minute, hour", Told::Refusal));
        let short = Verdict { standings: [Standing { count: 10, reset_ms: 1 }; 8], ..verdict };
        assert_eq!(told(short, 5_000)[4], "1", "never less than a second");
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
        let exempt = verdict(Outcome::Exempt, standings);
        assert_eq!((told(exempt, 5_000).len(), exempt.told()), (0, Told::Nothing));
    }

    #[test]
    fn fields_are_the_same_one_by_one_and_at_once() {
        let verdict = verdict(Outcome::Refused, [(10, 41_000), (7, 40_001), (7, 3_000_000), (7, 80_000_000)]);
        let fields = || verdict.fields_at(5_000, 1_700_000_000_100);
        let mut at_once = Vec::new();
        fields().for_each(|field| at_once.push(field));
        let mut one_by_one = fields();
        for (number, field) in at_once.iter().enumerate() {
            assert_eq!(one_by_one.next().as_ref(), Some(field));
            let mut rest = fields();
            (0..=number).for_each(|_| _ = rest.next());
            let mut others = Vec::new();
            rest.for_each(|field| others.push(field));
            assert_eq!(others, at_once[number + 1..]);
        }
        assert!(one_by_one.next().is_none() && at_once.len() == 6);
    }

    #[test]
    fn fields_take_their_places_or_are_added() {
        let verdict = verdict(Outcome::Admitted, [(3, 41_000), (7, 40_001), (7, 3_000_000), (7, 80_000_000)]);
        let mut prepared = HeaderMap::new();
        FIELDS.into_iter().for_each(|name| drop(prepared.insert(name, HeaderValue::from_static("-"))));
        prepared.insert("x-more", HeaderValue::from_static("here"));
        let mut bare = HeaderMap::new();
        bare.insert("x-more", HeaderValue::from_static("here"));
        for map in [&mut prepared, &mut bare] {
            put(map, verdict.fields_at(5_000, 1_700_000_000_100));
        }
        assert_eq!(prepared, bare);
        assert_eq!(prepared["ratelimit"], r#""minute";r=3;t=41"#);
        assert_eq!((prepared.len(), prepared["x-more"].as_bytes()), (6, &b"here"[..]));
    }
}
