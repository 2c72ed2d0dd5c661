//! Requests under way, so that a death can be told with what it cost.
//!
//! ```text
//! entry: [ began | route, phase, length of the id | id … ]      free when `began` is 0
//! ```
//! A worker writes its own entries with a few relaxed stores; its lanes take turns in them, so no two share a cache
//! line. Who reads them reads what somebody else wrote, perhaps torn, perhaps scribbled over: for display alone.
//!
//! Deliberately absent: an entry for every connection. Beyond [`HELD_MAX`] a request is counted and not named.

use super::{LANES_MAX, tally};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Requests of one worker that can be named at once.
pub const HELD_MAX: usize = 512;
/// Bytes of an id that are kept.
const ID_BYTES_MAX: usize = ID_WORDS * 8;
const ID_WORDS: usize = 6;
/// One cache line.
const ENTRY_WORDS: usize = 8;
const BEGAN_MS: usize = 0;
const ABOUT: usize = 1;
const ID: usize = 2;

/// Words of one worker's entries.
pub(super) const WORDS: usize = HELD_MAX * ENTRY_WORDS;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its head arrived.
    Head = 0,
    /// Whether it is let in.
    Limit = 1,
    /// Its body is read.
    Body = 2,
    /// Its body is here and looked at.
    Work = 3,
    /// The session store.
    Store = 4,
    /// The model, until its first word.
    Upstream = 5,
    /// The model's next word, or the client to take it.
    Stream = 6,
    /// The client to take the answer.
    Answer = 7,
}

const PHASES: [&str; 8] = ["head", "limit", "body", "work", "store", "upstream", "stream", "answer"];

/// One request as the board shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id, cut; `?` when it is none.
    pub id: String,
    /// Its route, as in [`tally::ROUTES`].
    pub route: &'static str,
    /// Milliseconds since its head arrived.
    pub age_ms: u64,
    /// What it waits for, in a word.
    pub phase: &'static str,
}

/// One lane's hand in the entries of its worker.
pub struct Holder {
    words: &'static [AtomicU64],
    /// The worker's count of entries ever used, on the board: walks end there.
    used: &'static AtomicU64,
    lane: usize,
    lanes: usize,
    /// A bit for each entry of this lane that is free. Atomic because the front is shared, not because it is contended.
    free: [AtomicU64; HELD_MAX / 64],
    most: AtomicU64,
}

impl Holder {
    pub(super) fn new(words: &'static [AtomicU64], used: &'static AtomicU64, lane: usize, lanes: usize) -> Holder {
        let lanes = lanes.clamp(1, LANES_MAX);
        let own = HELD_MAX / lanes;
        let free = std::array::from_fn(|word| {
            let bits = own.saturating_sub(word * 64).min(64);
            AtomicU64::new(if bits == 64 { u64::MAX } else { (1 << bits) - 1 })
        });
        Holder { words, used, lane: lane.min(lanes - 1), lanes, free, most: AtomicU64::new(0) }
    }

    /// A request begins; `now_ms` is monotonic.
    pub fn hold(&'static self, id: &str, now_ms: u64) -> Hold {
        let number = self.claim();
        let hold = Hold { holder: self, number };
        if let Some(entry) = hold.entry() {
            entry[ABOUT].store((id.len().min(0xffff) as u64) << 16 | tally::OTHER as u64, Relaxed);
            let bytes = &id.as_bytes()[..id.len().min(ID_BYTES_MAX)];
            for (word, bytes) in entry[ID..].iter().zip(bytes.chunks(8)) {
                let mut whole = [0; 8];
                whole[..bytes.len()].copy_from_slice(bytes);
                word.store(u64::from_le_bytes(whole), Relaxed);
            }
            entry[BEGAN_MS].store(now_ms.max(1), Relaxed);
        }
        hold
    }

    /// The first free entry; `HELD_MAX` when there is none.
    fn claim(&self) -> usize {
        for (number, word) in self.free.iter().enumerate() {
            let mut bits = word.load(Relaxed);
            while bits != 0 {
                let bit = bits & bits.wrapping_neg();
                if word.fetch_and(!bit, Relaxed) & bit != 0 {
                    let entry = (number * 64 + bit.trailing_zeros() as usize) * self.lanes + self.lane;
                    self.note(entry as u64 + 1);
                    return entry;
                }
                bits = word.load(Relaxed);
            }
        }
        HELD_MAX
    }

    fn note(&self, used: u64) {
        if used > self.most.load(Relaxed) {
            self.most.store(used, Relaxed);
            self.used.fetch_max(used, Relaxed);
        }
    }

    fn give_back(&self, entry: usize) {
        let number = entry / self.lanes;
        if let Some(word) = self.free.get(number / 64) {
            word.fetch_or(1 << (number % 64), Relaxed);
        }
    }
}

/// One request's entry, until [`Hold::release`].
#[derive(Clone, Copy)]
pub struct Hold {
    holder: &'static Holder,
    number: usize,
}

impl Hold {
    fn entry(&self) -> Option<&'static [AtomicU64]> {
        self.holder.words.get(self.number * ENTRY_WORDS..)?.get(..ENTRY_WORDS)
    }

    /// It turned out to be for this route, a number in [`tally::ROUTES`].
    pub fn route(&self, route: usize) {
        self.set(0xff, route.min(tally::OTHER) as u64);
    }

    /// It waits for something else now.
    pub fn phase(&self, phase: Phase) {
        self.set(0xff00, (phase as u64) << 8);
    }

    fn set(&self, mask: u64, bits: u64) {
        if let Some(entry) = self.entry() {
            entry[ABOUT].store(entry[ABOUT].load(Relaxed) & !mask | bits, Relaxed);
        }
    }

    /// The request ended. Once for each [`Holder::hold`].
    pub fn release(&self) {
        if let Some(entry) = self.entry() {
            entry[BEGAN_MS].store(0, Relaxed);
            self.holder.give_back(self.number);
        }
    }
}

/// What stands in a worker's entries, oldest first. Nothing of it is believed but for display.
pub(super) fn read(words: &[AtomicU64], used: u64, now_ms: u64) -> Vec<Held> {
    let entries = words.chunks_exact(ENTRY_WORDS).take(used.min(HELD_MAX as u64) as usize);
    let mut held: Vec<Held> = entries.filter_map(|entry| one(entry, now_ms)).collect();
    held.sort_by_key(|held| std::cmp::Reverse(held.age_ms));
    held
}

fn one(entry: &[AtomicU64], now_ms: u64) -> Option<Held> {
    let began_ms = entry[BEGAN_MS].load(Relaxed);
    if began_ms == 0 {
        return None;
    }
    let about = entry[ABOUT].load(Relaxed);
    let length = (about >> 16) as usize;
    let bytes: Vec<u8> = entry[ID..].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
    let kept = &bytes[..length.min(ID_BYTES_MAX)];
    // The characters of a request id, and no others: a log line is no place for what a worker scribbles.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let mut id = match !kept.is_empty() && kept.iter().all(plain) {
        true => String::from_utf8_lossy(kept).into_owned(),
        false => "?".to_owned(),
    };
    if length > ID_BYTES_MAX {
        id.push('…');
    }
    Some(Held {
        id,
        route: tally::ROUTES[(about as usize & 0xff).min(tally::OTHER)],
        age_ms: now_ms.saturating_sub(began_ms),
        phase: PHASES.get(about as usize >> 8 & 0xff).copied().unwrap_or("?"),
    })
}

/// Nobody holds anything: for the next life of the slot.
pub(super) fn clear(words: &[AtomicU64], used: &AtomicU64) {
    let count = used.swap(0, Relaxed).min(HELD_MAX as u64) as usize;
    words.chunks_exact(ENTRY_WORDS).take(count).for_each(|entry| entry[BEGAN_MS].store(0, Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn holder(lane: usize, lanes: usize) -> (&'static Holder, &'static [AtomicU64], &'static AtomicU64) {
        let words: &'static [AtomicU64] = (0..WORDS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak();
        let used: &'static AtomicU64 = Box::leak(Box::default());
        (Box::leak(Box::new(Holder::new(words, used, lane, lanes))), words, used)
    }

    #[test]
    fn what_is_held_is_read_oldest_first_and_gone_after() {
        let (holder, words, used) = holder(1, 2);
        let (first, second) = (holder.hold("abc-1", 100), holder.hold(&"x".repeat(100), 90));
        first.route(tally::CHAT);
        first.phase(Phase::Stream);
        let read_now = || read(words, used.load(Relaxed), 150);
        let shown = Held { id: "abc-1".into(), route: "chat", age_ms: 50, phase: "stream" };
        assert_eq!((read_now().len(), &read_now()[1]), (2, &shown));
        assert_eq!((read_now()[0].id.chars().count(), read_now()[0].phase), (49, "head"));
        second.release();
        assert_eq!(read_now().len(), 1);
        clear(words, used);
        assert!(read_now().is_empty() && used.load(Relaxed) == 0);
    }

    #[test]
    fn who_finds_no_entry_is_not_named_and_the_lanes_do_not_meet() {
        let (holder, words, used) = holder(2, 3);
        let holds: Vec<Hold> = (0..HELD_MAX).map(|_| holder.hold("a", 1)).collect();
        assert_eq!(read(words, used.load(Relaxed), 1).len(), HELD_MAX / 3);
        assert!(holds[..HELD_MAX / 3].iter().all(|hold| hold.number % 3 == 2 && hold.number < HELD_MAX));
        holds.iter().for_each(Hold::release);
        assert!(read(words, used.load(Relaxed), 1).is_empty());
        assert_eq!(holder.hold("a", 1).number, 2);
    }

    proptest! {
        #[test]
        fn a_scribbled_entry_is_shown_plainly(words in proptest::collection::vec(any::<u64>(), ENTRY_WORDS), now in any::<u64>()) {
            let entry: Vec<AtomicU64> = words.into_iter().map(AtomicU64::new).collect();
            if let Some(held) = one(&entry, now) {
                prop_assert!(held.id.chars().all(|c| c.is_ascii_graphic() || c == '…'));
            }
        }
    }
}
