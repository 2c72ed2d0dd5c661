//! Whether an upstream is worth asking: one that failed rests, for longer each time, and is then tried by one call. Pure.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The first rest, in milliseconds; each further failure doubles it.
const FIRST_MS: u64 = 500;
/// The longest.
const LONGEST_MS: u64 = 30_000;
/// While one call tries whether it is back, the others leave it alone for so long.
const TRIAL_MS: u64 = 1_000;

/// One upstream's, as the runtime threads of a worker have seen it.
#[derive(Debug, Default)]
pub struct Rest {
    failures: AtomicU32,
    until_ms: AtomicU64,
}

impl Rest {
    /// True when it may be asked before those that rest; the first to hear so after a rest is the one that tries.
    pub fn is_over(&self, now_ms: u64) -> bool {
        let over = now_ms >= self.until_ms.load(Relaxed);
        if over && self.failures.load(Relaxed) > 0 {
            self.until_ms.store(now_ms + TRIAL_MS, Relaxed);
        }
        over
    }

    /// It answered.
    pub fn worked(&self) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
            self.until_ms.store(0, Relaxed);
        }
    }

    /// It did not; true when that is news.
    pub fn failed(&self, now_ms: u64) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed);
        let rest_ms = (FIRST_MS << failures.min(10)).min(LONGEST_MS);
        self.until_ms.store(now_ms + rest_ms, Relaxed);
        failures == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_and_one_call_tries_after_each() {
        let rest = Rest::default();
        assert!(rest.is_over(0) && rest.is_over(0));
        assert!(rest.failed(1000) && !rest.is_over(1499));
        assert!(rest.is_over(1500) && !rest.is_over(1500), "a second call tried too");
        assert!(!rest.failed(1600) && !rest.is_over(2599) && rest.is_over(2600));
        rest.worked();
        assert!(rest.is_over(2600) && rest.is_over(2600));
        (0..40).for_each(|_| {
            rest.failed(0);
        });
        assert!(!rest.is_over(LONGEST_MS - 1) && rest.is_over(LONGEST_MS));
    }
}
