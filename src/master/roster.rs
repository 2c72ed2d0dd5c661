//! Who lives: children, the places that workers stand in, and how soon a place may be filled again. Pure.

use crate::board::SLOTS_MAX;
use crate::sys::wait::How;
use nix::libc::{SIGQUIT, SIGTERM};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;

/// First wait of a place whose children keep dying.
const DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest wait.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// So many deaths within [`DEATHS_WITHIN`] slow a place down.
const DEATHS_MAX: usize = 5;
const DEATHS_WITHIN: Duration = Duration::from_secs(10);
/// A fork that the kernel refused is tried once a second.
const FORK_RETRY: Duration = Duration::from_secs(1);

/// A child for its whole life; never used again.
pub type ChildId = u64;

/// What a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Writes the logs.
    Log,
    /// Brings the session store's schema up to date, then ends.
    Migration,
    /// Runs the model.
    Engine,
    /// Serves.
    Worker,
    /// A new program that shows that it could take over.
    Proof,
}

impl Kind {
    /// As the log names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Log => "log",
            Kind::Migration => "migration",
            Kind::Engine => "engine",
            Kind::Worker => "worker",
            Kind::Proof => "proof",
        }
    }
}

/// Where a child is in its life; the durations are monotonic times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// Forked; killed when it is not ready by then.
    Booting(Duration),
    /// It said so.
    Ready,
    /// Told to end; killed when it has not by then.
    Leaving(Duration),
    /// Hung since so long; asked what it does, and killed by then.
    Examined(Duration, Duration),
    /// Killed by us; only its end is awaited, and its place kept until then.
    Killed(Duration),
}

impl Life {
    /// Only its end is awaited.
    pub fn is_killed(self) -> bool {
        matches!(self, Life::Killed(_))
    }

    /// Nothing that it is told reaches it any more.
    pub fn is_doomed(self) -> bool {
        matches!(self, Life::Killed(_) | Life::Examined(..))
    }
}

/// One child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Child {
    /// Its name inside the master.
    pub id: ChildId,
    /// What it is.
    pub kind: Kind,
    /// Known from the fork on.
    pub pid: i32,
    /// Board slot of a worker.
    pub slot: usize,
    /// Which configuration it runs.
    pub generation: u32,
    /// Where it is in its life.
    pub life: Life,
    /// When it was forked.
    pub since: Duration,
    /// When it said that it was ready.
    pub was_ready: bool,
    /// Why we ended it.
    pub ended_for: Option<Cow<'static, str>>,
    /// Why it could not serve, in its own words.
    pub failed: Option<String>,
    /// Why it should be replaced.
    #[serde(default)]
    pub worn: Option<String>,
}

impl Child {
    /// It ended because it was to, and as it was to.
    pub fn should_end(&self, how: How) -> bool {
        match self.kind {
            Kind::Migration | Kind::Proof => self.ended_for.is_some() || how == How::Code(0),
            Kind::Log | Kind::Engine | Kind::Worker => {
                matches!(self.life, Life::Leaving(_)) && matches!(how, How::Code(0) | How::Signal(SIGTERM | SIGQUIT))
            }
        }
    }

    /// Why it could not do what it was for: in its own words, else how it ended and why we ended it.
    pub fn reason(&self, how: How) -> String {
        match (&self.failed, &self.ended_for) {
            (Some(own), _) => own.clone(),
            (None, Some(why)) => format!("{} {}: {why} ({how})", self.kind.as_str(), self.pid),
            (None, None) => format!("{} {}: {how}", self.kind.as_str(), self.pid),
        }
    }
}

/// How soon a dead child may be replaced.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Backoff {
    deaths: VecDeque<Duration>,
    delay: Duration,
    not_before: Duration,
    failures: u32,
}

impl Backoff {
    /// A child died at `now`; one that lived long and well is replaced at once.
    pub fn died(&mut self, now: Duration, was_ready: bool) {
        while self.deaths.front().is_some_and(|death| now.saturating_sub(*death) > DEATHS_WITHIN) {
            self.deaths.pop_front();
        }
        if self.deaths.is_empty() && was_ready {
            self.delay = Duration::ZERO;
        }
        self.deaths.push_back(now);
        self.failures = if was_ready { 0 } else { self.failures + 1 };
        if !was_ready || self.deaths.len() >= DEATHS_MAX {
            self.delay = (self.delay * 2).clamp(DELAY_MIN, DELAY_MAX);
            self.not_before = now + self.delay;
        }
        self.deaths.truncate(DEATHS_MAX);
    }

    /// The kernel refused the fork.
    pub fn refused(&mut self, now: Duration) {
        self.not_before = now + FORK_RETRY;
    }

    /// Earliest time of the next start.
    pub fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Deaths before readiness, one after the other.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// One worker's place: the number of places is the number of workers wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Who stands there.
    pub child: Option<ChildId>,
    /// How soon it may be filled again.
    pub backoff: Backoff,
    /// How soon a worker that is worn may be replaced.
    #[serde(default)]
    pub wear: Backoff,
}

/// All children.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Roster {
    children: Vec<Child>,
    last: ChildId,
}

impl Roster {
    /// A child that is about to be forked.
    pub fn enrol(&mut self, kind: Kind, generation: u32, now: Duration, boot_limit: Duration) -> ChildId {
        self.last += 1;
        let slot = if kind == Kind::Worker { self.free_slot() } else { 0 };
        self.children.push(Child {
            id: self.last,
            kind,
            pid: 0,
            slot,
            generation,
            life: Life::Booting(now + boot_limit),
            since: now,
            was_ready: false,
            ended_for: None,
            failed: None,
            worn: None,
        });
        self.last
    }

    /// Lowest board slot that no child holds. There are more slots than children may live at once.
    fn free_slot(&self) -> usize {
        let taken = |slot: &usize| self.of(Kind::Worker).any(|child| child.slot == *slot);
        (0..SLOTS_MAX).find(|slot| !taken(slot)).unwrap_or(SLOTS_MAX - 1)
    }

    /// True when another worker could get a slot.
    pub fn has_room(&self) -> bool {
        self.of(Kind::Worker).count() < SLOTS_MAX
    }

    /// Children of this kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Child> {
        self.children.iter().filter(move |child| child.kind == kind)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Child> {
        self.children.iter()
    }

    /// The child with this name.
    pub fn get(&self, id: ChildId) -> Option<&Child> {
        self.children.iter().find(|child| child.id == id)
    }

    /// The child with this name, to change.
    pub fn get_mut(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// Takes out the child with this process id; `None` for a stranger, who changes nothing.
    pub fn remove_pid(&mut self, pid: i32) -> Option<Child> {
        let at = self.children.iter().position(|child| child.pid == pid && pid > 0)?;
        Some(self.children.swap_remove(at))
    }

    /// Takes out a child that never came to life.
    pub fn remove(&mut self, id: ChildId) -> Option<Child> {
        let at = self.children.iter().position(|child| child.id == id)?;
        Some(self.children.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_place_is_filled_at_once_until_its_children_keep_dying() {
        let mut backoff = Backoff::default();
        for death in 1..=4 {
            backoff.died(S * death, true);
            assert!(backoff.not_before() <= S * death, "death {death}");
        }
        backoff.died(S * 5, true);
        assert_eq!(backoff.not_before(), S * 5 + DELAY_MIN);
        backoff.died(S * 6, true);
        assert_eq!(backoff.not_before(), S * 6 + DELAY_MIN * 2);
        backoff.died(S * 60, true);
        assert!(backoff.not_before() <= S * 60, "a long quiet life forgives");
    }

    #[test]
    fn a_death_before_readiness_waits_and_doubles_up_to_ten_seconds() {
        let mut backoff = Backoff::default();
        let mut waits = Vec::new();
        let mut now = S;
        for _ in 0..9 {
            backoff.died(now, false);
            waits.push((backoff.not_before() - now).as_millis());
            now = backoff.not_before();
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.failures(), 9);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_longest(deaths in proptest::collection::vec((0u64..20_000, any::<bool>()), 1..60)) {
            let mut backoff = Backoff::default();
            let mut now = Duration::ZERO;
            for (after_ms, was_ready) in deaths {
                now += Duration::from_millis(after_ms);
                backoff.died(now, was_ready);
                prop_assert!(backoff.not_before() <= now + DELAY_MAX);
            }
        }
    }
}
