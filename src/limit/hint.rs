//! Where a client was found last, in this process's own memory: for each place of a bucket one byte of its client's
//! hash, a bucket a word. A million places take a megabyte, the default table 64 KiB: so a check waits for one line of
//! the table, the client's, and not for those of its neighbours.
//!
//! A hint decides nothing. Whoever follows it compares the place's tag; whoever has none looks at every place. So it may
//! be old, of another client, or overwritten by another thread at the same time.

use super::table::WAYS;
use std::hint::select_unpredictable;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const ONES: u64 = u64::from_ne_bytes([1; WAYS]);
const HIGHS: u64 = ONES << 7;

/// A word of hints for each bucket.
#[derive(Clone, Copy)]
pub struct Hints(&'static [AtomicU64]);

impl Hints {
    /// None yet, for so many buckets.
    pub fn new(buckets: usize) -> Hints {
        Hints(Box::leak((0..buckets).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Bucket and way where a client with this byte may be. Which of the two buckets it is cannot be foreseen, so no
    /// branch depends on it.
    #[inline]
    pub fn find(self, buckets: [usize; 2], byte: u8) -> Option<(usize, usize)> {
        let [first, second] = buckets;
        let [in_first, in_second] = [self.matches(first, byte), self.matches(second, byte)];
        let (bucket, found) = select_unpredictable(in_first != 0, (first, in_first), (second, in_second));
        (found != 0).then_some((bucket, found.trailing_zeros() as usize / WAYS))
    }

    /// A client with this byte is there.
    pub fn learn(self, bucket: usize, way: usize, byte: u8) {
        let shift = way * WAYS;
        let seen = self.0[bucket].load(Relaxed);
        self.0[bucket].store(seen & !(0xff << shift) | u64::from(byte) << shift, Relaxed);
    }

    /// The high bit of the lowest byte that is `byte`; above it others may be set that are not.
    #[inline]
    fn matches(self, bucket: usize, byte: u8) -> u64 {
        let differs = self.0[bucket].load(Relaxed) ^ (ONES * u64::from(byte));
        differs.wrapping_sub(ONES) & !differs & HIGHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_last_is_found() {
        let hints = Hints::new(4);
        assert_eq!(hints.find([1, 2], 7), None);
        for way in 0..WAYS {
            hints.learn(1, way, 10 + way as u8);
            assert_eq!(hints.find([1, 2], 10 + way as u8), Some((1, way)));
            assert_eq!(hints.find([3, 1], 10 + way as u8), Some((1, way)));
        }
        hints.learn(1, 3, 250);
        assert_eq!((hints.find([1, 1], 13), hints.find([0, 1], 250)), (None, Some((1, 3))));
        hints.learn(2, 7, 250);
        assert_eq!(hints.find([2, 1], 250), Some((2, 7)), "the first of two");
    }
}
