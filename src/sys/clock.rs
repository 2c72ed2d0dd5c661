//! One clock for every process of the tree: `CLOCK_MONOTONIC`, which all of them share.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since boot, the same in every process of the machine; unaffected by a set clock.
pub fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// [`monotonic`] in whole milliseconds.
pub fn monotonic_ms() -> u64 {
    monotonic().as_millis() as u64
}

/// What this thread has used of a core.
pub fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// [`monotonic_ms`] as the kernel's last tick had it: up to 10 ms ago, for a quarter of the price.
pub fn coarse_ms() -> u64 {
    told_ms(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// Milliseconds since 1970 as the kernel's last tick had them.
pub fn epoch_coarse_ms() -> u64 {
    told_ms(ClockId::CLOCK_REALTIME_COARSE)
}

fn told_ms(clock: ClockId) -> u64 {
    clock_gettime(clock).map(Duration::from).unwrap_or_default().as_millis() as u64
}
