//! What the engine shows on the board. Word numbers are the board's format: append, never renumber.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Requests that got a slot.
pub const REQUESTS: usize = 0;
/// Requests in slots now.
pub const ACTIVE: usize = 1;
/// Requests that wait for a slot now.
pub const QUEUED: usize = 2;
/// Tokens of the conversations.
pub const PROMPT_TOKENS: usize = 3;
/// Of these, taken from the prefix cache.
pub const CACHED_TOKENS: usize = 4;
/// Tokens generated.
pub const COMPLETION_TOKENS: usize = 5;
/// Requests whose reader left before the end.
pub const CANCELLED: usize = 6;
/// Requests refused because too many wait.
pub const REFUSED: usize = 7;
/// Batches evaluated.
pub const STEPS: usize = 8;
/// The longest of them, in milliseconds.
pub const STEP_MS_MAX: usize = 9;
/// Time spent evaluating, in microseconds.
pub const BUSY_US: usize = 10;
/// Words in all.
pub const WORDS: usize = 11;

/// The engine's words on the board; clones write the same words.
#[derive(Clone, Copy)]
pub struct Counters {
    words: Option<&'static [AtomicU64]>,
}

impl Counters {
    /// Over the board's words; nothing is counted when there are fewer than [`WORDS`].
    pub fn over(words: &'static [AtomicU64]) -> Counters {
        Counters { words: (words.len() >= WORDS).then_some(words) }
    }

    /// Counts nothing.
    pub fn none() -> Counters {
        Counters { words: None }
    }

    /// One request more was refused.
    pub fn refused(&self) {
        self.add(REFUSED, 1);
    }

    pub(super) fn show(&self, active: usize, queued: usize) {
        self.set(ACTIVE, active);
        self.set(QUEUED, queued);
    }

    pub(super) fn admitted(&self, prompt: usize, cached: usize) {
        self.add(REQUESTS, 1);
        self.add(PROMPT_TOKENS, prompt as u64);
        self.add(CACHED_TOKENS, cached as u64);
    }

    pub(super) fn generated(&self) {
        self.add(COMPLETION_TOKENS, 1);
    }

    pub(super) fn cancelled(&self, count: usize) {
        self.add(CANCELLED, count as u64);
    }

    pub(super) fn stepped(&self, elapsed: Duration) {
        self.add(STEPS, 1);
        self.add(BUSY_US, elapsed.as_micros() as u64);
        if let Some(words) = self.words {
            words[STEP_MS_MAX].fetch_max(elapsed.as_millis() as u64, Relaxed);
        }
    }

    fn add(&self, word: usize, count: u64) {
        if let Some(words) = self.words {
            words[word].fetch_add(count, Relaxed);
        }
    }

    fn set(&self, word: usize, value: usize) {
        if let Some(words) = self.words {
            words[word].store(value as u64, Relaxed);
        }
    }
}
