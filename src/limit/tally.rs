//! Counting in a client's slot: look at every limit, then count in each, narrow windows first; if one filled
//! meanwhile, take the earlier ones back.
//!
//! Each word is bounded by its own compare-and-swap, so nothing is over-admitted whatever happens in between. Who sees
//! another's reservation that is about to be taken back is subject to the wider limit that refuses it, too. A worker
//! killed between two words has counted one request of one client too many, until that window ends.

use super::table::{Cell, Hash, Slot, Table};
use super::word::{Held, Limit, Now, owner};
use std::cmp::Ordering;

/// Rounds in which others may displace a slot under a request before it is refused, to be safe.
const TRIES_MAX: usize = 64;

/// How one limit stands for a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Admitted in the window under way; 0 when there is none.
    pub count: u32,
    /// Milliseconds until it ends; 0 when there is none.
    pub reset_ms: u64,
}

/// Limits that one request may be measured by.
pub const APPLIED_MAX: usize = 8;

/// The standings of a request's limits, in their order.
pub type Standings = [Standing; APPLIED_MAX];

/// Their words.
type Words = [u64; APPLIED_MAX];

/// Who asks, the limits that apply, all limits, when, and for how many units.
type Asked<'a> = (Hash, &'a [Limit], &'a [Limit], Now, u32);

enum Commit {
    Counted,
    Full,
    /// The slot went to another client meanwhile.
    Displaced,
}

impl<C: Cell> Table<C> {
    /// Admits one request if each of `limits` has room, and counts it in all of them, else in none; true when admitted.
    /// `limits` stand narrow before wide; `all` are the limits that words may hold. How the limits stand after that is
    /// written to `standings`, in place: it is copied nowhere on a request's path.
    #[inline]
    pub fn admit(&self, hash: Hash, limits: &[Limit], all: &[Limit], now: Now, standings: &mut Standings) -> bool {
        self.admit_some(hash, limits, all, now, 1, standings)
    }

    /// The same for a request that costs `cost` units.
    #[inline]
    pub fn admit_some(
        &self,
        hash: Hash,
        limits: &[Limit],
        all: &[Limit],
        now: Now,
        cost: u32,
        standings: &mut Standings,
    ) -> bool {
        let (asked, standings) = ((hash, limits, all, now, cost), standings);
        self.try_once(asked, standings).unwrap_or_else(|| self.try_again(asked, standings))
    }

    /// What was decided; nothing when the slot went to another client meanwhile.
    #[inline(always)]
    fn try_once(&self, (hash, limits, all, now, cost): Asked<'_>, standings: &mut Standings) -> Option<bool> {
        let slot = self.find_or_claim(hash, all, now);
        let mut seen = [0; APPLIED_MAX];
        if self.look_at(slot, limits, now, cost, standings, &mut seen) {
            return Some(false);
        }
        match self.commit(hash, slot, limits, now, cost, (standings, &seen)) {
            Commit::Counted => Some(true),
            Commit::Full => {
                self.look(slot, limits, now, cost, standings);
                Some(false)
            }
            Commit::Displaced => None,
        }
    }

    #[cold]
    #[inline(never)]
    fn try_again(&self, asked: Asked<'_>, standings: &mut Standings) -> bool {
        (1..TRIES_MAX).find_map(|_| self.try_once(asked, standings)).unwrap_or(false)
    }

    /// How `limits` stand, written to `standings`; true when one of them has no room for `cost`. Writes no word.
    #[inline]
    pub fn look(&self, slot: Slot, limits: &[Limit], now: Now, cost: u32, standings: &mut Standings) -> bool {
        self.look_at(slot, limits, now, cost, standings, &mut [0; APPLIED_MAX])
    }

    /// The same; the words as they were `seen` are where counting begins.
    #[inline(always)]
    fn look_at(
        &self,
        slot: Slot,
        limits: &[Limit],
        now: Now,
        cost: u32,
        standings: &mut Standings,
        seen: &mut Words,
    ) -> bool {
        let mut full = false;
        for ((limit, standing), seen) in limits.iter().zip(standings).zip(seen) {
            *seen = self.word(slot, limit).get();
            let held = limit.read(*seen, print_of(slot), now);
            *standing = held.map_or_else(Standing::default, |held| standing_of(limit, held));
            full |= !has_room(limit, standing.count, cost);
        }
        full
    }

    /// How `limits` stand for a client that may have no slot.
    pub fn standings(&self, hash: Hash, limits: &[Limit], now: Now) -> Standings {
        let mut standings = Standings::default();
        if let Some(slot) = self.find(hash) {
            self.look(slot, limits, now, 1, &mut standings);
        }
        standings
    }

    /// Takes over what a better informed store said. In the same window the larger count holds (answers overtake each
    /// other), of two windows the later.
    pub fn learn(&self, hash: Hash, limits: &[Limit], all: &[Limit], now: Now, standings: &Standings) {
        let slot = self.find_or_claim(hash, all, now);
        for (limit, standing) in limits.iter().zip(standings).filter(|(_, standing)| standing.count > 0) {
            let age_ms = limit.window_ms.saturating_sub(standing.reset_ms);
            self.update(slot, limit, now, |held| match held {
                Some(held) => match same_window(limit, held.age_ms, age_ms) {
                    Ordering::Less => None,
                    Ordering::Equal => (standing.count > held.count).then_some((held.age_ms, standing.count)),
                    Ordering::Greater => Some((age_ms, standing.count)),
                },
                None => Some((age_ms, standing.count)),
            });
        }
    }

    /// Adds units to windows that others measure, by their resets.
    pub fn add(&self, hash: Hash, limits: &[Limit], all: &[Limit], now: Now, units: &Standings) {
        let slot = self.find_or_claim(hash, all, now);
        for (limit, units) in limits.iter().zip(units).filter(|(_, units)| units.count > 0) {
            let age_ms = limit.window_ms.saturating_sub(units.reset_ms);
            self.update(slot, limit, now, |held| match held {
                Some(held) if same_window(limit, held.age_ms, age_ms).is_eq() => {
                    Some((held.age_ms, held.count.saturating_add(units.count)))
                }
                _ => Some((age_ms, units.count)),
            });
        }
    }

    /// Puts `used` in the place of `reserved` units, in windows that began `ages_ms` ago and are still under way.
    pub fn exchange(&self, hash: Hash, limits: &[Limit], now: Now, ages_ms: &[u64], reserved: u32, used: u32) {
        let Some(slot) = self.find(hash) else { return };
        for (limit, age_ms) in limits.iter().zip(ages_ms) {
            self.update(slot, limit, now, |held| {
                let held = held.filter(|held| same_window(limit, held.age_ms, *age_ms).is_eq())?;
                Some((held.age_ms, held.count.saturating_sub(reserved).saturating_add(used)))
            });
        }
    }

    /// Takes up to `units` back from windows that began `ages_ms` ago; how many it took of each.
    pub fn withdraw(&self, hash: Hash, limits: &[Limit], now: Now, ages_ms: &[u64], units: u32) -> [u32; APPLIED_MAX] {
        let mut taken = [0; APPLIED_MAX];
        let Some(slot) = self.find(hash).filter(|_| units > 0) else { return taken };
        for ((limit, age_ms), taken) in limits.iter().zip(ages_ms).zip(&mut taken) {
            self.update(slot, limit, now, |held| {
                let held = held.filter(|held| same_window(limit, held.age_ms, *age_ms).is_eq());
                *taken = held.map_or(0, |held| held.count.min(units));
                held.map(|held| (held.age_ms, held.count - *taken))
            });
        }
        taken
    }

    /// True while a mark of [`Table::mark_once`] stands.
    pub fn is_marked(&self, slot: Slot, limit: &Limit, now: Now) -> bool {
        limit.read(self.word(slot, limit).get(), print_of(slot), now).is_some()
    }

    /// Marks `limit` as begun now, once in its window; true for the one caller who did.
    pub fn mark_once(&self, slot: Slot, limit: &Limit, now: Now) -> bool {
        let cell = self.word(slot, limit);
        let seen = cell.get();
        let live = limit.read(seen, print_of(slot), now).is_some();
        !live && self.still_owned(slot) && cell.replace(seen, limit.write(print_of(slot), now, 0, 1))
    }

    /// Takes every unit out of the client's words and returns them.
    pub fn take(&self, hash: Hash, limits: &[Limit], now: Now) -> Standings {
        let mut taken = Standings::default();
        let Some(slot) = self.find(hash) else { return taken };
        for (limit, taken) in limits.iter().zip(&mut taken) {
            let cell = self.word(slot, limit);
            loop {
                let seen = cell.get();
                let held = limit.read(seen, print_of(slot), now);
                if held.is_none() || cell.replace(seen, 0) {
                    *taken = held.map_or_else(Standing::default, |held| standing_of(limit, held));
                    break;
                }
            }
        }
        taken
    }

    #[inline(always)]
    fn commit(
        &self,
        hash: Hash,
        slot: Slot,
        limits: &[Limit],
        now: Now,
        cost: u32,
        (standings, seen): (&mut Standings, &Words),
    ) -> Commit {
        let mut written = [0; APPLIED_MAX];
        for (number, (((limit, standing), seen), written_here)) in
            limits.iter().zip(standings).zip(seen).zip(&mut written).enumerate()
        {
            // A live window that nobody touched since it was looked at, as nearly always: one swap, nothing read again.
            let more = seen + u64::from(cost);
            if standing.count > 0 && self.word(slot, limit).replace(*seen, more) {
                *written_here = more;
                standing.count += cost;
                continue;
            }
            match self.count(slot, limit, now, cost) {
                Ok((word, new)) => (*written_here, *standing) = (word, new),
                Err(why) => {
                    self.undo(slot, &limits[..number], &written, cost);
                    return why;
                }
            }
        }
        if self.still_counts(hash, slot) {
            return Commit::Counted;
        }
        self.undo(slot, limits, &written, cost);
        Commit::Displaced
    }

    /// Counts `cost` units; the word it wrote, and how the limit stands then.
    #[inline(never)]
    fn count(&self, slot: Slot, limit: &Limit, now: Now, cost: u32) -> Result<(u64, Standing), Commit> {
        let cell = self.word(slot, limit);
        loop {
            let seen = cell.get();
            let (new, held) = match limit.read(seen, print_of(slot), now) {
                Some(held) if !has_room(limit, held.count, cost) => return Err(Commit::Full),
                Some(held) => (seen + u64::from(cost), Held { count: held.count + cost, ..held }),
                // Someone else's word, or nobody's: only the owner of the slot may write over it. It was read before
                // the tag, so a new owner's word fails the swap.
                None if !self.still_owned(slot) => return Err(Commit::Displaced),
                None => (limit.write(print_of(slot), now, 0, cost), Held { count: cost, age_ms: 0 }),
            };
            if cell.replace(seen, new) {
                return Ok((new, standing_of(limit, held)));
            }
        }
    }

    /// Takes `cost` units back from each, as far as the windows that were counted in still stand there.
    #[cold]
    #[inline(never)]
    fn undo(&self, slot: Slot, limits: &[Limit], written: &[u64], cost: u32) {
        for (limit, written) in limits.iter().zip(written) {
            let cell = self.word(slot, limit);
            loop {
                let seen = cell.get();
                if !limit.same_window(seen, *written) || cell.replace(seen, limit.less(seen, cost)) {
                    break;
                }
            }
        }
    }

    /// Writes what `change` makes of a word: an age and a count, or nothing.
    fn update(&self, slot: Slot, limit: &Limit, now: Now, mut change: impl FnMut(Option<Held>) -> Option<(u64, u32)>) {
        loop {
            let cell = self.word(slot, limit);
            let seen = cell.get();
            let held = limit.read(seen, print_of(slot), now);
            let Some((age_ms, count)) = change(held) else { return };
            if owner(seen) != print_of(slot) && !self.still_owned(slot) {
                return;
            }
            let keep = held.is_some_and(|held| held.age_ms == age_ms);
            let window = limit.write(print_of(slot), now, age_ms, count);
            let new = if keep { limit.recount(seen, count) } else { window };
            if cell.replace(seen, new) {
                return;
            }
        }
    }
}

/// True when `cost` more fit.
#[inline]
fn has_room(limit: &Limit, count: u32, cost: u32) -> bool {
    u64::from(count) + u64::from(cost) <= u64::from(limit.count)
}

fn print_of(slot: Slot) -> u16 {
    (slot.tag >> 48) as u16
}

fn standing_of(limit: &Limit, held: Held) -> Standing {
    Standing { count: held.count, reset_ms: limit.reset_ms(held) }
}

/// `Less` when the told window began before the held one, `Greater` when after; see [`Limit::slack_ms`].
fn same_window(limit: &Limit, held_age_ms: u64, told_age_ms: u64) -> Ordering {
    if held_age_ms.abs_diff(told_age_ms) <= limit.slack_ms() { Ordering::Equal } else { held_age_ms.cmp(&told_age_ms) }
}
