//! One breaker for all workers, one word of shared memory: `[ open 1 | failures 7 | milliseconds 56 ]`.
//!
//! Closed, the milliseconds are those of the first of the failures; open, those of the next probe. One worker wins a
//! probe; the others never wait for it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Failures within [`SPAN_MS`] that open it.
const FAILURES_MAX: u64 = 3;
/// A closed breaker without a failure for so long is quiet.
pub const SPAN_MS: u64 = 1_000;
/// From one probe to the next, without the jitter.
pub const PROBE_MS: u64 = 500;

const OPEN: u64 = 1 << 63;
const MS_BITS: u32 = 56;
const MS_MASK: u64 = (1 << MS_BITS) - 1;

/// The breaker over its word.
#[derive(Clone, Copy)]
pub struct Breaker(pub &'static AtomicU64);

impl Breaker {
    /// True while Redis is not asked.
    pub fn is_open(self) -> bool {
        self.0.load(SeqCst) & OPEN != 0
    }

    /// True when it is closed and nothing failed lately.
    pub fn is_quiet(self, now_ms: u64) -> bool {
        let word = self.0.load(SeqCst);
        word == 0 || (word & OPEN == 0 && now_ms.abs_diff(word & MS_MASK) > SPAN_MS)
    }

    /// A failure at `now_ms`; true for the one that opened it.
    pub fn failed(self, now_ms: u64) -> bool {
        self.change(|word| {
            if word & OPEN != 0 {
                return None;
            }
            let (first_ms, failures) = (word & MS_MASK, word >> MS_BITS);
            if failures == 0 || now_ms.abs_diff(first_ms) > SPAN_MS {
                return Some(1 << MS_BITS | now_ms & MS_MASK);
            }
            let opens = failures + 1 >= FAILURES_MAX;
            Some(if opens { OPEN | (now_ms + PROBE_MS) & MS_MASK } else { (failures + 1) << MS_BITS | first_ms })
        })
        .is_some_and(|word| word & OPEN != 0)
    }

    /// True for the one caller who is to probe now; the next probe is due `after_ms` later.
    pub fn probe_due(self, now_ms: u64, after_ms: u64) -> bool {
        self.change(|word| {
            // A probe that is due far in the future was written by a broken neighbour.
            let wait_ms = (word & MS_MASK).saturating_sub(now_ms);
            let due = word & OPEN != 0 && (wait_ms == 0 || wait_ms > 10 * PROBE_MS);
            due.then_some(OPEN | (now_ms + after_ms) & MS_MASK)
        })
        .is_some()
    }

    /// Redis answers; true for the caller who closed it.
    pub fn close(self) -> bool {
        self.change(|word| (word & OPEN != 0).then_some(0)).is_some()
    }

    /// Applies `change` until it holds or is declined; what was written.
    fn change(self, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut seen = self.0.load(SeqCst);
        loop {
            let new = change(seen)?;
            match self.0.compare_exchange(seen, new, SeqCst, SeqCst) {
                Ok(_) => return Some(new),
                Err(other) => seen = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker(Box::leak(Box::new(AtomicU64::new(0))))
    }

    #[test]
    fn three_failures_in_a_second_open_it_and_three_in_two_do_not() {
        let breaker = breaker();
        for ms in [0, 900, 1_800, 2_700] {
            assert!(!breaker.failed(ms));
        }
        assert!(!breaker.is_open() && !breaker.is_quiet(2_800) && breaker.is_quiet(2_801));
        assert!(breaker.failed(2_750) && !breaker.is_quiet(9_000));
        assert!(breaker.is_open() && !breaker.failed(2_760), "opened once");
    }

    #[test]
    fn one_worker_probes_at_a_time_until_redis_is_back() {
        let breaker = breaker();
        (0..3).for_each(|ms| _ = breaker.failed(ms));
        assert!(!breaker.probe_due(400, 500));
        assert!(breaker.probe_due(502, 500));
        assert!(!breaker.probe_due(503, 500) && !breaker.probe_due(1_001, 500));
        assert!(breaker.probe_due(1_002, 500));
        assert!(breaker.close() && !breaker.close());
        assert!(!breaker.is_open() && !breaker.probe_due(9_000, 500));
    }

    #[test]
    fn a_scribbled_word_does_not_keep_it_open_for_ever() {
        let breaker = breaker();
        breaker.0.store(u64::MAX, SeqCst);
        assert!(breaker.is_open() && breaker.probe_due(1_000, 500) && breaker.close());
    }
}
