//! How many chats a worker has under way, and how many of them one client.
//!
//! Nobody waits here: a client may have as many under way as there are places left. So one that opens chats without an
//! end stops at half of the places, two such clients at a third each, and there is always room for somebody new
//! (the rule of Choudhury and Hahne's "Dynamic queue length thresholds").

use crate::sys::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Clients that share a counter are rare enough; a counter costs four bytes.
const COUNTERS: usize = 4096;
/// The shortest and the longest wait that is told, in seconds.
const WAIT_S: (u64, u64) = (1, 60);

/// The places of one worker; its runtime threads share them.
pub struct Admission {
    places: u32,
    taken: AtomicU32,
    own: Box<[AtomicU32]>,
    /// How long a chat takes, in milliseconds; measured.
    average_ms: AtomicU64,
}

/// A chat that is under way.
pub struct Place {
    admission: Arc<Admission>,
    own: usize,
    since_ms: u64,
}

impl Admission {
    /// So many places.
    pub fn new(places: u32) -> Admission {
        let own = (0..COUNTERS).map(|_| AtomicU32::new(0)).collect();
        Admission { places, taken: AtomicU32::new(0), own, average_ms: AtomicU64::new(0) }
    }

    /// A place for a client's chat.
    ///
    /// # Errors
    /// It has too many under way: seconds until one of them has likely ended.
    pub fn enter(self: &Arc<Self>, client: u64) -> Result<Place, u64> {
        let own = client as usize % COUNTERS;
        // Two threads that look at once may both take the last place: the bound is meant, not exact.
        let (taken, mine) = (self.taken.load(Relaxed), self.own[own].load(Relaxed));
        if mine >= self.places.saturating_sub(taken) {
            let wait_s = self.average_ms.load(Relaxed).div_ceil(u64::from(mine.max(1)) * 1000);
            return Err(wait_s.clamp(WAIT_S.0, WAIT_S.1));
        }
        self.taken.fetch_add(1, Relaxed);
        self.own[own].fetch_add(1, Relaxed);
        Ok(Place { admission: self.clone(), own, since_ms: clock::coarse_ms() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Admission { taken, own, average_ms, .. } = &*self.admission;
        taken.fetch_sub(1, Relaxed);
        own[self.own].fetch_sub(1, Relaxed);
        let (took, before) = (clock::coarse_ms().saturating_sub(self.since_ms), average_ms.load(Relaxed));
        average_ms.store((before * 7 + took) / 8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter_all(admission: &Arc<Admission>, client: u64) -> Vec<Place> {
        std::iter::from_fn(|| admission.enter(client).ok()).collect()
    }

    #[test]
    fn one_that_takes_all_it_can_leaves_room_for_others() {
        let admission = Arc::new(Admission::new(30));
        let first = enter_all(&admission, 1);
        assert_eq!(first.len(), 15);
        let second = enter_all(&admission, 2);
        assert!((7..=8).contains(&second.len()), "{}", second.len());
        assert!(admission.enter(3).is_ok() && admission.enter(1).is_err());
        drop(first);
        assert!(admission.enter(1).is_ok());
        drop(second);
        assert_eq!(enter_all(&admission, 1).len(), 15, "every place came back");
    }

    #[test]
    fn the_wait_that_is_told_follows_what_was_measured() {
        let admission = Arc::new(Admission::new(8));
        admission.average_ms.store(20_000, Relaxed);
        let held = enter_all(&admission, 1);
        assert_eq!((held.len(), admission.enter(1).err()), (4, Some(5)));
    }
}
