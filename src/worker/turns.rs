//! How an event loop shares its core with others: politely while it has much to do itself, at once otherwise.
//!
//! A loop that wakes takes the core from whoever has had more than his share of it, so a request that comes alone waits for
//! nobody, whatever else the machine computes. When the loops are the load, they take it from clients, upstreams and each
//! other thousands of times a second, each time for a request or two: waiting for the other's turn to end then makes one
//! change out of three, with more requests at each (measured on 2 cores with 64 connections: 0.13 changes between threads a
//! request where there were 0.46, and 13 % more requests; a connection each: 30 % more).

use crate::sys::clock;
use crate::sys::process::{Waking, take_turns};
use std::cell::Cell;
use std::time::Duration;

/// How long an event loop runs at a stretch while others want its core. The slowest hundredth of requests waits for
/// others' turns, by default 1.4 to 3 ms each: with 256 connections on 2 cores p99 fell from 11.5 to 8.4 ms, at the same rate.
const TURN: Duration = Duration::from_micros(500);
/// A loop looks at what it used after so long.
const LOOK_EVERY_MS: u64 = 50;
/// It waits for others when it has used so many thousandths of a core, and no more when it used so many.
const MUCH: u128 = 80;
const LITTLE: u128 = 30;

/// Short turns for this thread and those it begins; called before there are others.
pub fn begin() {
    // Nothing but a slower tail comes of a kernel that does not take it.
    let _ = take_turns(TURN, Waking::Takes, Waking::Takes);
}

thread_local! {
    static OWN: Turns = const { Turns::new() };
}

/// Called by a loop before it rests.
pub fn rest(now_ms: u64) {
    OWN.with(|own| own.rest(now_ms));
}

/// What one loop used when it last looked, and how it wakes.
struct Turns {
    looked_ms: Cell<u64>,
    used: Cell<Duration>,
    waking: Cell<Waking>,
}

impl Turns {
    const fn new() -> Turns {
        Turns { looked_ms: Cell::new(0), used: Cell::new(Duration::ZERO), waking: Cell::new(Waking::Takes) }
    }

    fn rest(&self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.looked_ms.get());
        if passed < LOOK_EVERY_MS {
            return;
        }
        let used = clock::thread_cpu();
        let spent = used.saturating_sub(self.used.replace(used));
        self.looked_ms.set(now_ms);
        let before = self.waking.get();
        let after = wakes(before, spent, passed);
        // Whom somebody gave another policy, or the kernel does not let, goes on as he is.
        if after != before && take_turns(TURN, before, after).is_ok_and(|done| done) {
            self.waking.set(after);
        }
    }
}

/// How to wake after `spent` of a core in `passed_ms`.
fn wakes(before: Waking, spent: Duration, passed_ms: u64) -> Waking {
    let thousandths = spent.as_micros() / u128::from(passed_ms.max(1));
    match before {
        Waking::Takes if thousandths >= MUCH => Waking::Waits,
        Waking::Waits if thousandths < LITTLE => Waking::Takes,
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_loop_waits_and_an_idle_one_takes_with_no_coming_and_going_between() {
        use Waking::{Takes, Waits};
        let after = |before, spent_us| wakes(before, Duration::from_micros(spent_us), 50);
        assert_eq!((after(Takes, 3999), after(Takes, 4000)), (Takes, Waits));
        assert_eq!((after(Waits, 1500), after(Waits, 1499)), (Waits, Takes));
        assert_eq!(wakes(Takes, Duration::from_secs(1), 0), Waits);
    }

    #[test]
    fn a_loop_that_computes_waits_until_it_has_rested() {
        std::thread::spawn(|| {
            let policy = || {
                std::fs::read_to_string("/proc/thread-self/sched")
                    .ok()?
                    .lines()
                    .find(|line| line.starts_with("policy"))
                    .map(|line| line.ends_with('3'))
            };
            let turns = Turns::new();
            turns.rest(clock::monotonic_ms());
            let begun = clock::thread_cpu();
            while clock::thread_cpu() - begun < Duration::from_millis(10) {}
            // 10 ms of CPU in what it takes for 60.
            turns.rest(turns.looked_ms.get() + 60);
            assert_eq!(turns.waking.get(), Waking::Waits);
            assert_ne!(policy(), Some(false));
            turns.rest(turns.looked_ms.get() + 1000);
            assert_eq!(turns.waking.get(), Waking::Takes);
            assert_ne!(policy(), Some(true));
        })
        .join()
        .unwrap();
    }
}
