//! What a lane's requests were, as counters over all lives of its slot: a worker's death takes nothing back.
//!
//! Recording is a few relaxed additions to words that this lane alone writes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Names of the routes that are told apart; the last one is everything else.
pub const ROUTES: [&str; 12] = [
    "health",
    "live",
    "ready",
    "root",
    "page",
    "chat",
    "initialize",
    "mode",
    "completions",
    "models",
    "openapi",
    "other",
];
/// Status classes.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// What the rate limiter said.
pub const VERDICTS: [&str; 5] = ["exempt", "admitted", "refused", "would_refuse", "unavailable"];
/// Upper bounds of the buckets in microseconds; one more bucket has none. About two and a half a step: a percentile read
/// from them is never off by more than that.
pub const BOUNDS_US: [u64; 17] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];
/// What is timed apart: a model's answers, by their two doors, and everything else.
pub const GROUPS: [&str; 3] = ["chat", "completions", "other"];
/// Of these, the ones that have tokens.
pub const TOKEN_GROUPS: usize = 2;

/// `GET /api/health` in [`ROUTES`].
pub const HEALTH: usize = 0;
/// Number of the route of chats in [`ROUTES`].
pub const CHAT: usize = 5;
/// Number of the route of OpenAI's own shape in [`ROUTES`].
pub const COMPLETIONS: usize = 8;
/// Number of the last route in [`ROUTES`].
pub const OTHER: usize = ROUTES.len() - 1;

/// Words of one histogram: its buckets, then the sum in microseconds.
pub const HISTOGRAM_WORDS: usize = BOUNDS_US.len() + 2;

const VERDICTS_AT: usize = ROUTES.len() * CLASSES.len();
const DURATIONS_AT: usize = VERDICTS_AT + VERDICTS.len();
const FIRST_TOKENS_AT: usize = DURATIONS_AT + GROUPS.len() * HISTOGRAM_WORDS;

/// Words of a lane's tally.
pub const WORDS: usize = FIRST_TOKENS_AT + TOKEN_GROUPS * HISTOGRAM_WORDS;

/// One lane's counters.
#[derive(Clone, Copy)]
pub struct Tally {
    words: &'static [AtomicU64],
}

impl Tally {
    pub(super) fn over(words: &'static [AtomicU64]) -> Tally {
        Tally { words }
    }

    /// One request ended: its route's number in [`ROUTES`], its status, its whole time and, where a model answered, the
    /// time to its first token.
    pub fn ended(&self, route: usize, status: u16, verdict: &str, duration: Duration, first_token: Option<Duration>) {
        let route = route.min(OTHER);
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.add(route * CLASSES.len() + class, 1);
        if let Some(verdict) = VERDICTS.iter().position(|known| *known == verdict) {
            self.add(VERDICTS_AT + verdict, 1);
        }
        let group = group(route);
        self.observe(DURATIONS_AT + group * HISTOGRAM_WORDS, duration);
        if let (true, Some(first_token)) = (group < TOKEN_GROUPS, first_token) {
            self.observe(FIRST_TOKENS_AT + group * HISTOGRAM_WORDS, first_token);
        }
    }

    /// Requests of a route with a status class.
    pub fn requests(&self, route: usize, class: usize) -> u64 {
        self.get(route * CLASSES.len() + class)
    }

    /// Verdicts of the rate limiter, by their number in [`VERDICTS`].
    pub fn verdicts(&self, verdict: usize) -> u64 {
        self.get(VERDICTS_AT + verdict)
    }

    /// A word of the durations of a group of [`GROUPS`].
    pub fn durations(&self, group: usize, word: usize) -> u64 {
        self.get(DURATIONS_AT + group * HISTOGRAM_WORDS + word)
    }

    /// A word of the times to the first token of one of the first [`TOKEN_GROUPS`].
    pub fn first_tokens(&self, group: usize, word: usize) -> u64 {
        self.get(FIRST_TOKENS_AT + group * HISTOGRAM_WORDS + word)
    }

    fn observe(&self, at: usize, time: Duration) {
        let us = time.as_micros() as u64;
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.add(at + bucket, 1);
        self.add(at + BOUNDS_US.len() + 1, us);
    }

    fn add(&self, word: usize, count: u64) {
        if let Some(word) = self.words.get(word) {
            word.fetch_add(count, Relaxed);
        }
    }

    fn get(&self, word: usize) -> u64 {
        self.words.get(word).map_or(0, |word| word.load(Relaxed))
    }
}

fn group(route: usize) -> usize {
    match route {
        CHAT => 0,
        COMPLETIONS => 1,
        _ => 2,
    }
}
