//! The table: clients in slots, slots in buckets of eight, two buckets a client. Who owns a slot is decided here,
//! what its words count in [`super::tally`].
//!
//! ```text
//! [ head: nonce, counters ] [ slot: tag | word 1 … word 7 (or 15) ] … [ overflow slots ]
//!
//! tag:  0 free    client|claim nonce  ->  client  ->  client|leaving nonce  ->  0, or the next client's claim
//! ```
//!
//! A client must never own two slots, else it would have two counts. So a claim is first an announcement; it is
//! confirmed by whoever finds it, after a look at every place the client could be: a lower announcement wins over a
//! higher one, and a confirmed slot over both. An owner is likewise first marked as leaving, then its words are read
//! again: a request that counted in between is seen here, and one that counts later sees the mark (`tally` reads the
//! tag last) and takes it back. Every step is one compare-and-swap and can be finished by anyone: a killed worker
//! leaves nothing behind that another would have to wait for.
//!
//! Deliberately absent: locks, clocks (`now` comes with the call), growth.

use super::hint::Hints;
use super::word::{Limit, Now};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Slots of a bucket.
pub const WAYS: usize = 8;
/// Words of one cache line.
pub const LINE: usize = 8;
/// Slots that clients share who found no place; a client's is chosen by its hash.
pub const OVERFLOW_SLOTS: usize = 64;
/// Words that a slot of two lines has beside its tag.
pub const LIMITS_MAX: usize = 2 * LINE - 1;

/// The head's words.
const NONCE: usize = 0;
const CLAIMED: usize = 1;
const EVICTED: usize = 2;
const OVERFLOWED: usize = 3;
const OVERFLOW_UNTIL_MS: usize = 4;

/// Tag of the overflow slots.
const SHARED: u64 = 1 << 48;
const NONCE_MASK: u64 = 0xffff;
/// Use of a slot in 1024ths of the limit that is used most; from half on it is not evicted.
const HALF: u64 = 512;
/// Rounds before a client that others keep displacing shares an overflow slot.
const TRIES_MAX: usize = 16;

/// One word that processes share. Implemented by the real atomic, and in tests by one that a scheduler steps.
pub trait Cell {
    /// The value, in one order with all other operations.
    fn get(&self) -> u64;
    /// `new` if it still is `old`; true when it was.
    fn replace(&self, old: u64, new: u64) -> bool;
}

impl Cell for AtomicU64 {
    fn get(&self) -> u64 {
        self.load(SeqCst)
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

/// A client as the table knows it: 48 bits of a keyed hash, and its two buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// The hash's 48 bits, above 16 bits for a nonce.
    pub(super) tag: u64,
    buckets: [u32; 2],
}

impl Hash {
    /// From 128 bits of a keyed hash of the client.
    pub fn new(bits: u128) -> Hash {
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        // The top 16 bits are the words' fingerprint, where 0 is nobody.
        let tag = if low >> 48 == 0 { low | 1 << 48 } else { low } & !NONCE_MASK;
        Hash { tag, buckets: [high as u32, (high >> 32) as u32] }
    }

    pub(super) fn print(self) -> u16 {
        print(self.tag)
    }

    /// What stands for the client in [`Hints`]; 0 is nobody.
    pub(super) fn hint(self) -> u8 {
        (self.tag >> 16 & 0xff).max(1) as u8
    }
}

fn print(tag: u64) -> u16 {
    (tag >> 48) as u16
}

/// A slot's first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub(super) at: usize,
    /// The fingerprint its words carry for this client, and the tag they count under.
    pub(super) tag: u64,
}

/// The table over shared words.
pub struct Table<C: 'static> {
    cells: &'static [C],
    buckets: usize,
    stride: usize,
    pub(super) hints: Hints,
}

impl<C> Clone for Table<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Table<C> {}

/// What happened to the table since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Slots given to a client.
    pub claimed: u64,
    /// Of those, taken from a client whose windows were still under way.
    pub evicted: u64,
    /// Requests that were counted in a shared slot.
    pub overflowed: u64,
}

/// Words that a table of `bytes` bytes takes, rounded up to a power of two of buckets; `lines` cache lines a slot.
pub fn words_needed(bytes: usize, lines: usize) -> usize {
    let stride = lines * LINE;
    let buckets = bytes.div_ceil(WAYS * stride * size_of::<u64>()).next_power_of_two();
    LINE + (buckets * WAYS + OVERFLOW_SLOTS) * stride
}

impl<C: Cell> Table<C> {
    /// The table in `cells`, which [`words_needed`] has measured: as many buckets as fit, a power of two.
    pub fn over(cells: &'static [C], lines: usize) -> Table<C> {
        let stride = lines * LINE;
        let slots = (cells.len().saturating_sub(LINE) / stride).saturating_sub(OVERFLOW_SLOTS);
        let buckets = 1 << (slots / WAYS).max(1).ilog2();
        Table { cells, buckets, stride, hints: Hints::new(buckets) }
    }

    /// Slots that clients can own.
    pub fn slots(&self) -> usize {
        self.buckets * WAYS
    }

    /// Words of a slot that can hold a limit.
    pub fn limits_max(&self) -> usize {
        self.stride - 1
    }

    /// See [`Pressure`].
    pub fn pressure(&self) -> Pressure {
        let [claimed, evicted, overflowed] = [CLAIMED, EVICTED, OVERFLOWED].map(|word| self.cells[word].get());
        Pressure { claimed, evicted, overflowed }
    }

    /// The client's slot, if it has one that was confirmed.
    #[inline]
    pub fn find(&self, hash: Hash) -> Option<Slot> {
        self.hinted(hash).or_else(|| self.search(hash))
    }

    #[inline(never)]
    fn search(&self, hash: Hash) -> Option<Slot> {
        let (at, tag) = self.places(hash).find(|(_, tag)| same(*tag, hash.tag) && !claiming(*tag))?;
        let slot = Slot { at, tag: hash.tag };
        (tag == hash.tag || self.still_owned(slot)).then(|| self.learnt(hash, slot))
    }

    /// The client's slot; a new one, or a shared one, if it has none. `limits` are all limits that words may hold.
    #[inline]
    pub fn find_or_claim(&self, hash: Hash, limits: &[Limit], now: Now) -> Slot {
        self.hinted(hash).unwrap_or_else(|| self.enter(hash, limits, now))
    }

    /// The client's slot, if it is where it was last found, confirmed.
    #[inline(always)]
    fn hinted(&self, hash: Hash) -> Option<Slot> {
        let (bucket, way) = self.hints.find(self.buckets_of(hash), hash.hint())?;
        let at = self.place(bucket, way);
        (self.cells[at].get() == hash.tag).then_some(Slot { at, tag: hash.tag })
    }

    fn learnt(&self, hash: Hash, slot: Slot) -> Slot {
        let number = (slot.at - LINE) / self.stride;
        self.hints.learn(number / WAYS, number % WAYS, hash.hint());
        slot
    }

    #[inline(never)]
    fn enter(&self, hash: Hash, limits: &[Limit], now: Now) -> Slot {
        for _ in 0..TRIES_MAX {
            match self.places(hash).find(|(_, tag)| same(*tag, hash.tag)) {
                Some((at, tag)) if tag == hash.tag => return self.learnt(hash, Slot { at, tag }),
                Some((at, tag)) => self.settle(hash, at, tag, limits, now),
                None if !self.claim(hash, limits, now) => break,
                None => {}
            }
        }
        self.overflow(hash, limits, now)
    }

    /// True while the slot is its owner's. A mark that an evictor set meanwhile is taken back.
    pub fn still_owned(&self, slot: Slot) -> bool {
        let tag = self.cells[slot.at].get();
        tag == slot.tag || (leaving(tag) && same(tag, slot.tag) && self.cells[slot.at].replace(tag, slot.tag))
    }

    /// True when what was just counted in `slot` is what the client will be measured by. A shared slot is left as soon
    /// as the client has announced one of its own: that claim read the shared count before, or this reads the claim.
    pub(super) fn still_counts(&self, hash: Hash, slot: Slot) -> bool {
        match slot.tag {
            SHARED => self.has_no_place(hash),
            _ => self.still_owned(slot),
        }
    }

    /// Kept out of the path of every request, before which its many addresses would be worked out.
    #[cold]
    #[inline(never)]
    fn has_no_place(&self, hash: Hash) -> bool {
        self.places(hash).all(|(_, tag)| !same(tag, hash.tag))
    }

    pub(super) fn word(&self, slot: Slot, limit: &Limit) -> &'static C {
        &self.cells[slot.at + limit.word]
    }

    /// Every place where the client could be, with its tag.
    fn places(&self, hash: Hash) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.buckets_of(hash).into_iter().flat_map(|bucket| self.bucket(bucket))
    }

    fn bucket(&self, bucket: usize) -> impl Iterator<Item = (usize, u64)> + '_ {
        (0..WAYS).map(move |way| self.place(bucket, way)).map(|at| (at, self.cells[at].get()))
    }

    #[inline]
    fn place(&self, bucket: usize, way: usize) -> usize {
        LINE + (bucket * WAYS + way) * self.stride
    }

    #[inline(always)]
    pub(super) fn buckets_of(&self, hash: Hash) -> [usize; 2] {
        let [first, second] = hash.buckets.map(|bits| bits as usize & (self.buckets - 1));
        [first, if second == first { first ^ 1 & (self.buckets - 1) } else { second }]
    }

    /// Brings an announcement for `hash` at `at` to its end: confirmed, or withdrawn for another place of the client.
    fn settle(&self, hash: Hash, at: usize, tag: u64, limits: &[Limit], now: Now) {
        if leaving(tag) {
            self.cells[at].replace(tag, hash.tag);
            return;
        }
        for (other, held) in self.places(hash).filter(|(other, held)| *other != at && same(*held, hash.tag)) {
            if leaving(held) {
                self.cells[other].replace(held, hash.tag);
                return;
            }
            if held == hash.tag || other < at {
                self.cells[at].replace(tag, 0);
                return;
            }
            if !self.cells[other].replace(held, 0) {
                return;
            }
        }
        self.inherit(hash, at, tag, limits, now);
        self.cells[at].replace(tag, hash.tag);
    }

    /// Announces a claim on the best place; false when every place is held by someone who must not be forgotten.
    fn claim(&self, hash: Hash, limits: &[Limit], now: Now) -> bool {
        let Some((at, seen, use_seen)) = self.choose(hash, limits, now) else { return false };
        let claim = hash.tag | self.nonce() << 1 & NONCE_MASK | 1;
        let taken = match seen {
            owner if owner != 0 && !claiming(owner) => self.displace(at, owner, claim, limits, now),
            free => self.cells[at].replace(free, claim),
        };
        if taken {
            self.bump(CLAIMED);
            if use_seen > 0 {
                self.bump(EVICTED);
            }
            self.settle(hash, at, claim, limits, now);
        }
        true
    }

    /// A free place in the emptier bucket, else the least used place below half.
    fn choose(&self, hash: Hash, limits: &[Limit], now: Now) -> Option<(usize, u64, u64)> {
        let mut free = self.buckets_of(hash).map(|bucket| {
            let mut places = self.bucket(bucket).filter(|(_, tag)| *tag == 0);
            places.next().map(|(at, _)| (places.count(), at))
        });
        let room = |bucket: Option<(usize, usize)>| bucket.map(|(others, _)| others);
        if room(free[1]) > room(free[0]) {
            free.swap(0, 1);
        }
        if let Some((_, at)) = free[0] {
            return Some((at, 0, 0));
        }
        self.places(hash)
            .map(|(at, tag)| (at, tag, self.used(at, tag, limits, now)))
            .filter(|(_, _, used)| *used < HALF)
            .min_by_key(|(_, _, used)| *used)
    }

    /// How far the most used limit of the slot's owner is used, in 1024ths; 0 when all its windows are over.
    fn used(&self, at: usize, tag: u64, limits: &[Limit], now: Now) -> u64 {
        let owner = Slot { at, tag };
        let held = |limit: &Limit| limit.read(self.word(owner, limit).get(), print(tag), now);
        let share = |count: u32, limit: &Limit| (u64::from(count) * 1024 / u64::from(limit.count)).max(1);
        let part = |limit: &Limit| held(limit).map_or(0, |held| share(held.count, limit));
        limits.iter().map(part).max().unwrap_or(0)
    }

    /// Takes the place of an owner: mark, read its words again, replace.
    fn displace(&self, at: usize, owner: u64, claim: u64, limits: &[Limit], now: Now) -> bool {
        let mark = self.mark(owner);
        if !self.cells[at].replace(owner, mark) {
            return false;
        }
        if self.used(at, owner, limits, now) < HALF && self.cells[at].replace(mark, claim) {
            return true;
        }
        self.cells[at].replace(mark, owner & !NONCE_MASK);
        false
    }

    fn mark(&self, owner: u64) -> u64 {
        let nonce = self.nonce() << 1 & NONCE_MASK;
        owner & !NONCE_MASK | if nonce == 0 { 2 } else { nonce }
    }

    /// A client that was counted in a shared slot keeps that count when it gets its own. Written only while the claim
    /// stands unconfirmed (the tag is read after the word), for after that the client itself counts there.
    fn inherit(&self, hash: Hash, at: usize, claim: u64, limits: &[Limit], now: Now) {
        if self.cells[OVERFLOW_UNTIL_MS].get() <= now.ms {
            return;
        }
        let shared = self.shared(hash);
        for limit in limits {
            let Some(held) = limit.read(self.word(shared, limit).get(), print(shared.tag), now) else { continue };
            let cell = &self.cells[at + limit.word];
            let seen = cell.get();
            let own = limit.read(seen, hash.print(), now).map_or(0, |own| own.count);
            if own < held.count && self.cells[at].get() == claim {
                cell.replace(seen, limit.write(hash.print(), now, held.age_ms, held.count));
            }
        }
    }

    fn overflow(&self, hash: Hash, limits: &[Limit], now: Now) -> Slot {
        let until_ms = now.ms + limits.iter().map(|limit| limit.window_ms).max().unwrap_or(0);
        let until = &self.cells[OVERFLOW_UNTIL_MS];
        loop {
            let known = until.get();
            if known >= until_ms || until.replace(known, until_ms) {
                break;
            }
        }
        self.bump(OVERFLOWED);
        let shared = self.shared(hash);
        self.cells[shared.at].replace(0, shared.tag);
        shared
    }

    fn shared(&self, hash: Hash) -> Slot {
        let number = hash.buckets[0] as usize % OVERFLOW_SLOTS;
        Slot { at: LINE + (self.slots() + number) * self.stride, tag: SHARED }
    }

    /// Clears words whose window is over in `count` slots from `from` on, and frees the slots that are empty then.
    /// Returns where to go on; 0 after the last. The master calls it: the whole table at least once a day, so that a
    /// wrapped start never reads as live.
    pub fn sweep(&self, from: usize, count: usize, limits: &[Limit], now: Now) -> usize {
        let total = self.slots() + OVERFLOW_SLOTS;
        let to = from.saturating_add(count).min(total);
        (from..to).for_each(|number| self.sweep_slot(LINE + number * self.stride, number < self.slots(), limits, now));
        if to == total { 0 } else { to }
    }

    fn sweep_slot(&self, at: usize, owned: bool, limits: &[Limit], now: Now) {
        let tag = self.cells[at].get();
        if tag == 0 || claiming(tag) {
            return;
        }
        for number in 1..self.stride {
            let cell = &self.cells[at + number];
            let seen = cell.get();
            let limit = limits.iter().find(|limit| limit.word == number);
            let over = seen != 0 && limit.and_then(|limit| limit.read(seen, print(tag), now)).is_none();
            // Read after the word: a word of the next owner is foreign only to the one who was there before.
            if over && self.cells[at].get() != tag {
                return;
            }
            if over {
                cell.replace(seen, 0);
            }
        }
        let empty = || (1..self.stride).all(|number| self.cells[at + number].get() == 0);
        if owned && empty() {
            let mark = self.mark(tag);
            if self.cells[at].replace(tag, mark) {
                self.cells[at].replace(mark, if empty() { 0 } else { tag & !NONCE_MASK });
            }
        }
    }

    /// Clears one word of every slot. The master calls it for a word that goes to another limit.
    pub fn clear(&self, word: usize) {
        let slots = (0..self.slots() + OVERFLOW_SLOTS).map(|number| LINE + number * self.stride);
        for cell in slots.filter(|_| word < self.stride).map(|at| &self.cells[at + word]) {
            loop {
                let seen = cell.get();
                if seen == 0 || cell.replace(seen, 0) {
                    break;
                }
            }
        }
    }

    fn nonce(&self) -> u64 {
        self.bump(NONCE)
    }

    /// One more in a word of the head; the value before.
    fn bump(&self, word: usize) -> u64 {
        loop {
            let seen = self.cells[word].get();
            if self.cells[word].replace(seen, seen.wrapping_add(1)) {
                return seen;
            }
        }
    }
}

fn same(tag: u64, client: u64) -> bool {
    (tag ^ client) & !NONCE_MASK == 0
}

/// Announced, never counted in.
fn claiming(tag: u64) -> bool {
    tag & 1 == 1
}

/// An owner that someone wants to displace.
fn leaving(tag: u64) -> bool {
    !claiming(tag) && tag & NONCE_MASK != 0
}
