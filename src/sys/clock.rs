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
