//! One word of the table: `[ fingerprint 16 | window start 28, in ticks | count 20 ]`; of a budget of tokens, which
//! counts further, `[ fingerprint 16 | window start 16 | count 32 ]`.
//!
//! A tick is 1 ms where the window is an hour or shorter, so that it has its exact length, else 100 ms, so that 28
//! bits reach over 310 days; of a budget a second, or a 16,384th of the window. The fingerprint names the owner: words
//! of a former one read as empty, nothing is zeroed.

use super::quota::Quota;

/// Limits of an hour or less count their window's start in milliseconds: 28 bits of them are three days.
const FINE_WINDOW_S_MAX: u32 = 3_600;
/// A start so far in the future is a clock read by someone who was then held up, not an old window. Whoever is held up
/// for longer is killed for it, by default after 30 s.
pub const FUTURE_MS_MAX: u64 = 60_000;
/// Two machines may tell the beginning of one window so far apart.
const SLACK_MS_MAX: u64 = 2_000;
/// Ticks of a budget's window at most: a quarter of what 16 bits tell apart, so that the sweep has three windows' time.
const WIDE_TICKS_MAX: u64 = 1 << 14;

const PRINT_SHIFT: u32 = 48;
const NARROW: Layout = Layout { start_mask: (1 << 28) - 1, count_bits: 20 };
const WIDE: Layout = Layout { start_mask: (1 << 16) - 1, count_bits: 32 };

/// How the lower 48 bits of a word are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    start_mask: u64,
    count_bits: u32,
}

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
}

/// How a limit's ticks are got without a division, where every request needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tick {
    Fine,
    Tenth,
    Wide(u64),
}

/// A limit as the words know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it is, whatever its count: the scope in the top byte, the window in seconds below. Stable over reloads
    /// and machines.
    pub id: u32,
    /// The word of a slot that holds it, 1 and up; word 0 is the slot's tag.
    pub word: usize,
    /// Requests (of a budget, tokens) a window admits.
    pub count: u32,
    /// Length of the window in milliseconds.
    pub window_ms: u64,
    window_ticks: u64,
    tick: Tick,
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
        let tick = if quota.window_s <= FINE_WINDOW_S_MAX { Tick::Fine } else { Tick::Tenth };
        Limit::ticking(scope, quota, word, tick)
    }

    /// The same for a budget of tokens.
    pub fn budget(scope: u8, quota: Quota, word: usize) -> Limit {
        let tick_s = u64::from(quota.window_s).div_ceil(WIDE_TICKS_MAX).max(1);
        Limit::ticking(scope, quota, word, Tick::Wide(tick_s * 1_000))
    }

    fn ticking(scope: u8, quota: Quota, word: usize, tick: Tick) -> Limit {
        let window_ms = u64::from(quota.window_s) * 1_000;
        let id = id(scope, quota.window_s);
        let limit = Limit { id, word, count: quota.count, window_ms, window_ticks: 0, tick };
        Limit { window_ticks: window_ms.div_ceil(limit.tick_ms()), ..limit }
    }

    /// The same limit with another count.
    pub fn with_count(self, count: u32) -> Limit {
        Limit { count, ..self }
    }

    /// What its word can count to.
    pub fn count_full(&self) -> u32 {
        ((1u64 << self.layout().count_bits) - 1) as u32
    }

    /// What `word` holds for the owner `print`, if its window is still under way.
    #[inline]
    pub fn read(&self, word: u64, print: u16, now: Now) -> Option<Held> {
        if owner(word) != print {
            return None;
        }
        // Each kind with its own constants: nothing is looked up where every request passes four times.
        match self.tick {
            Tick::Fine => self.read_by(NARROW, 1, now.ms, word),
            Tick::Tenth => self.read_by(NARROW, 100, now.tenths, word),
            Tick::Wide(ms) => self.read_by(WIDE, ms, now.ms / ms, word),
        }
    }

    #[inline(always)]
    fn read_by(&self, layout: Layout, tick_ms: u64, ticks: u64, word: u64) -> Option<Held> {
        let count = (word & ((1 << layout.count_bits) - 1)) as u32;
        let start = (word >> layout.count_bits) & layout.start_mask;
        let age = ticks.wrapping_sub(start) & layout.start_mask;
        if age < self.window_ticks {
            // Whole ticks make up a window; of a budget the last may reach beyond it.
            let age_ms = age * tick_ms;
            return Some(Held { count, age_ms: if layout == WIDE { age_ms.min(self.window_ms - 1) } else { age_ms } });
        }
        let early = layout.start_mask + 1 - age;
        // Less than a tick of a budget tells nothing of the future.
        let future_ticks = FUTURE_MS_MAX.div_ceil(tick_ms);
        (early <= future_ticks).then_some(Held { count, age_ms: 0 })
    }

    /// A window that began `age_ms` ago.
    pub fn write(&self, print: u16, now: Now, age_ms: u64, count: u32) -> u64 {
        let layout = self.layout();
        let start = self.ticks(now).wrapping_sub(age_ms / self.tick_ms()) & layout.start_mask;
        u64::from(print) << PRINT_SHIFT | start << layout.count_bits | u64::from(count.min(self.count_full()))
    }

    /// Milliseconds until the window ends, at least 1.
    pub fn reset_ms(&self, held: Held) -> u64 {
        self.window_ms - held.age_ms
    }

    /// The count alone.
    pub fn count_of(&self, word: u64) -> u32 {
        (word & u64::from(self.count_full())) as u32
    }

    /// True for two words of one owner's one window.
    pub fn same_window(&self, one: u64, other: u64) -> bool {
        (one ^ other) >> self.layout().count_bits == 0
    }

    /// The same window with another count.
    pub fn recount(&self, word: u64, count: u32) -> u64 {
        word & !u64::from(self.count_full()) | u64::from(count.min(self.count_full()))
    }

    /// The same window with `cost` less; the window itself is gone with its last unit, since only admitted requests
    /// anchor it.
    pub fn less(&self, word: u64, cost: u32) -> u64 {
        if self.count_of(word) <= cost { 0 } else { word - u64::from(cost) }
    }

    fn layout(&self) -> Layout {
        if matches!(self.tick, Tick::Wide(_)) { WIDE } else { NARROW }
    }

    fn ticks(&self, now: Now) -> u64 {
        match self.tick {
            Tick::Fine => now.ms,
            Tick::Tenth => now.tenths,
            Tick::Wide(ms) => now.ms / ms,
        }
    }

    /// Two beginnings of a window that are no further apart are one, told over a network: two windows of one limit begin
    /// at least its length apart.
    pub fn slack_ms(&self) -> u64 {
        (self.window_ms / 2).min(SLACK_MS_MAX).max(self.tick_ms())
    }

    /// How finely its windows' beginnings are known, in milliseconds.
    pub fn tick_ms(&self) -> u64 {
        match self.tick {
            Tick::Fine => 1,
            Tick::Tenth => 100,
            Tick::Wide(ms) => ms,
        }
    }
}

/// A limit's stable id.
pub fn id(scope: u8, window_s: u32) -> u32 {
    u32::from(scope) << 24 | (window_s & 0x00ff_ffff)
}

/// Whose word it is; 0 is nobody's.
pub fn owner(word: u64) -> u16 {
    (word >> PRINT_SHIFT) as u16
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
            assert_eq!(limit.read(word, 7, Now::at(40_000)).unwrap().count, 3);
            assert_eq!(limit.read(word, 7, Now::at(39_000)), None);
        }
    }

    #[test]
    fn the_last_unit_takes_the_window_along() {
        let limit = limit(60);
        let word = limit.write(7, Now::at(5_000), 0, 2);
        assert_eq!(limit.count_of(limit.less(word, 1)), 1);
        assert_eq!((limit.less(limit.less(word, 1), 1), limit.less(word, 2)), (0, 0));
    }

    proptest! {
        /// A window is live exactly as long as it is (to a tick of 100 ms where it is longer than an hour), wherever
        /// the 28 bits stand.
        #[test]
        fn a_window_has_its_length(
            window_s in prop_oneof![1u32..=3_600, 3_601..=crate::limit::quota::WINDOW_S_MAX],
            start_ms in 0u64..1 << 45, part in 0.0..1.5f64, count in 1u32..1 << 20, print in 1u16..,
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

        /// The same of a budget, to a tick of a second or a 16,384th of the window.
        #[test]
        fn a_budgets_window_has_its_length(
            window_s in 60..=crate::limit::quota::WINDOW_S_MAX, start_ms in 0u64..1 << 45, part in 0.0..1.5f64,
            count in 1u32.., print in 1u16..,
        ) {
            let limit = Limit::budget(5, Quota { count: 10, window_s }, 1);
            let word = limit.write(print, Now::at(start_ms), 0, count);
            let age_ms = ((limit.window_ms as f64) * part) as u64;
            let slack_ms = u64::from(window_s).div_ceil(16_384) * 1_000;
            let held = limit.read(word, print, Now::at(start_ms + age_ms));
            if age_ms + slack_ms < limit.window_ms {
                prop_assert_eq!(held.unwrap().count, count);
                prop_assert!(held.unwrap().age_ms.abs_diff(age_ms) <= slack_ms);
            } else if age_ms >= limit.window_ms + slack_ms {
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
