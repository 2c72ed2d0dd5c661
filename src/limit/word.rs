//! One word of the table: `[ fingerprint 16 | window start 28, in ticks | count 20 ]`.
//!
//! A tick is 1 ms where the window is an hour or shorter, so that it has its exact length, else 100 ms, so that 28
//! bits reach over 310 days. The fingerprint names the owner: words of a former one read as empty, nothing is zeroed.

use super::quota::Quota;

/// Limits of an hour or less count their window's start in milliseconds: 28 bits of them are three days.
const FINE_WINDOW_S_MAX: u32 = 3_600;
/// A start so far in the future is a clock read by someone who was then held up, not an old window.
pub const FUTURE_MS_MAX: u64 = 2_000;

const START_BITS: u32 = 28;
const COUNT_BITS: u32 = 20;
const START_MASK: u64 = (1 << START_BITS) - 1;
/// What a word can count to.
pub const COUNT_FULL: u32 = (1 << COUNT_BITS) - 1;

/// A moment of `CLOCK_MONOTONIC`, read once a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds since boot.
    pub ms: u64,
    tenths: u64,
}

impl Now {
    /// The moment `ms` milliseconds after boot.
    pub fn at(ms: u64) -> Now {
        Now { ms, tenths: ms / 100 }
    }

    fn ticks(self, fine: bool) -> u64 {
        if fine { self.ms } else { self.tenths }
    }
}

/// A limit as the words know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it is, whatever its count: the scope in the top byte, the window in seconds below. Stable over reloads
    /// and machines.
    pub id: u32,
    /// The word of a slot that holds it, 1 and up; word 0 is the slot's tag.
    pub word: usize,
    /// Requests a window admits.
    pub count: u32,
    /// Length of the window in milliseconds.
    pub window_ms: u64,
    window_ticks: u64,
    fine: bool,
}

/// What a live word says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Admitted in this window.
    pub count: u32,
    /// Milliseconds since the window began; 0 for one that seems to begin in the future.
    pub age_ms: u64,
}

impl Limit {
    /// The limit `quota` in `scope`, held in word `word`.
    pub fn new(scope: u8, quota: Quota, word: usize) -> Limit {
        let window_ms = u64::from(quota.window_s) * 1_000;
        let fine = quota.window_s <= FINE_WINDOW_S_MAX;
        let window_ticks = if fine { window_ms } else { window_ms / 100 };
        Limit { id: id(scope, quota.window_s), word, count: quota.count, window_ms, window_ticks, fine }
    }

    /// The same limit with another count.
    pub fn with_count(self, count: u32) -> Limit {
        Limit { count, ..self }
    }

    /// What `word` holds for the owner `print`, if its window is still under way.
    pub fn read(&self, word: u64, print: u16, now: Now) -> Option<Held> {
        if owner(word) != print {
            return None;
        }
        let start = (word >> COUNT_BITS) & START_MASK;
        let age = now.ticks(self.fine).wrapping_sub(start) & START_MASK;
        let tick_ms = self.tick_ms();
        if age < self.window_ticks {
            return Some(Held { count: count(word), age_ms: age * tick_ms });
        }
        let early = START_MASK + 1 - age;
        (early * tick_ms <= FUTURE_MS_MAX).then_some(Held { count: count(word), age_ms: 0 })
    }

    /// A window that began `age_ms` ago.
    pub fn write(&self, print: u16, now: Now, age_ms: u64, count: u32) -> u64 {
        let start = now.ticks(self.fine).wrapping_sub(age_ms / self.tick_ms()) & START_MASK;
        u64::from(print) << (START_BITS + COUNT_BITS) | start << COUNT_BITS | u64::from(count.min(COUNT_FULL))
    }

    /// Milliseconds until the window ends, at least 1.
    pub fn reset_ms(&self, held: Held) -> u64 {
        self.window_ms.saturating_sub(held.age_ms).max(1)
    }

    fn tick_ms(&self) -> u64 {
        if self.fine { 1 } else { 100 }
    }
}

/// A limit's stable id.
pub fn id(scope: u8, window_s: u32) -> u32 {
    u32::from(scope) << 24 | (window_s & 0x00ff_ffff)
}

/// The count alone.
pub fn count(word: u64) -> u32 {
    (word & u64::from(COUNT_FULL)) as u32
}

/// Whose word it is; 0 is nobody's.
pub fn owner(word: u64) -> u16 {
    (word >> (START_BITS + COUNT_BITS)) as u16
}

/// True for two words of one owner's one window.
pub fn same_start(one: u64, other: u64) -> bool {
    (one ^ other) >> COUNT_BITS == 0
}

/// The same window with another count.
pub fn with_count(word: u64, count: u32) -> u64 {
    word & !u64::from(COUNT_FULL) | u64::from(count.min(COUNT_FULL))
}

/// The same window with one less; the window itself is gone with its last unit, since only admitted requests anchor it.
pub fn less_one(word: u64) -> u64 {
    if count(word) <= 1 { 0 } else { word - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limit(window_s: u32) -> Limit {
        Limit::new(0, Quota { count: 10, window_s }, 1)
    }

    #[test]
    fn a_foreign_word_is_empty() {
        let limit = limit(60);
        let word = limit.write(7, Now::at(5_000), 0, 3);
        assert_eq!(limit.read(word, 8, Now::at(5_000)), None);
        assert_eq!(limit.read(0, 8, Now::at(5_000)), None);
        assert_eq!(limit.read(word, 7, Now::at(5_000)).unwrap().count, 3);
    }

    #[test]
    fn a_late_clock_does_not_end_a_window_but_an_absurd_one_does() {
        for window_s in [1, 60, 3_600, 86_400] {
            let limit = limit(window_s);
            let word = limit.write(7, Now::at(100_000), 0, 3);
            assert_eq!(limit.read(word, 7, Now::at(98_000)).unwrap().count, 3);
            assert_eq!(limit.read(word, 7, Now::at(97_000)), None);
        }
    }

    #[test]
    fn the_last_unit_takes_the_window_along() {
        let limit = limit(60);
        let word = limit.write(7, Now::at(5_000), 0, 2);
        assert_eq!(count(less_one(word)), 1);
        assert_eq!(less_one(less_one(word)), 0);
    }

    proptest! {
        /// A window is live exactly as long as it is (to a tick of 100 ms where it is longer than an hour), wherever
        /// the 28 bits stand.
        #[test]
        fn a_window_has_its_length(
            window_s in prop_oneof![1u32..=3_600, 3_601..=crate::limit::quota::WINDOW_S_MAX],
            start_ms in 0u64..1 << 45, part in 0.0..1.5f64, count in 1..=COUNT_FULL, print in 1u16..,
        ) {
            let limit = limit(window_s);
            let word = limit.write(print, Now::at(start_ms), 0, count);
            let age_ms = ((limit.window_ms as f64) * part) as u64;
            let held = limit.read(word, print, Now::at(start_ms + age_ms));
            let slack = if window_s <= 3_600 { 0 } else { 100 };
            if age_ms + slack < limit.window_ms {
                let held = held.unwrap();
                prop_assert_eq!(held.count, count);
                prop_assert!(held.age_ms.abs_diff(age_ms) <= slack);
                prop_assert!(limit.reset_ms(held) <= limit.window_ms);
            } else if age_ms >= limit.window_ms {
                prop_assert_eq!(held, None);
            }
        }

        #[test]
        fn an_age_is_written_as_it_is_read(age_ms in 0u64..59_000, now_ms in 60_000u64..1 << 40) {
            let limit = limit(60);
            let now = Now::at(now_ms);
            prop_assert_eq!(limit.read(limit.write(3, now, age_ms, 1), 3, now).unwrap().age_ms, age_ms);
        }
    }
}
