//! A worker that has served enough says so; the master replaces it when that suits.

use super::link::{self, ToMaster};
use crate::board::Slot;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How often the requests are counted: a worker may serve on for so long, and no request has to count.
const COUNT_EVERY: Duration = Duration::from_millis(100);

/// `--max-requests` and at most `--max-requests-jitter` more, so that workers of one age do not ask together; `None`:
/// off.
///
/// # Errors
/// The kernel has no random bytes.
pub fn limit((requests, jitter): (u64, u64)) -> io::Result<Option<u64>> {
    if requests == 0 {
        return Ok(None);
    }
    let random = getrandom::u64().map_err(io::Error::other)?;
    Ok(Some(requests.saturating_add(random % jitter.saturating_add(1))))
}

/// Counts until there were so many from now on, tells the master, and ends.
pub async fn tell(slot: Slot, most: u64, link: OwnedFd) {
    let served = || slot.lanes().map(|lane| lane.requests()).fold(0, u64::saturating_add);
    let before = served();
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    loop {
        ticks.tick().await;
        let own = served().saturating_sub(before);
        // A link that is full is told at the next tick.
        if own >= most && link::say(&link, &ToMaster::Worn(format!("it served {own} requests")).encode()).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lies_within_its_jitter() {
        assert_eq!((limit((0, 9)).unwrap(), limit((7, 0)).unwrap()), (None, Some(7)));
        assert!((0..100).all(|_| (10..=15).contains(&limit((10, 5)).unwrap().unwrap())));
    }
}
