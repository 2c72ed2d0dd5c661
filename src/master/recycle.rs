//! A worker that is over its measure is replaced: its successor is ready before it drains, and one at a time. Pure.
//!
//! ```text
//! worn ─▶ successor forked ─▶ ready: takes the place ─▶ the worn one drains ─▶ gone: the next one's turn
//!            └─ did not come up: the worn one stays, and the place waits
//! ```

use super::roster::{ChildId, Kind, Life};
use super::state::{Phase, State};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A worker worn out sooner than this makes its place wait, longer each time: a measure that every newcomer is over
/// must not keep the machine forking.
const SOON: Duration = Duration::from_secs(10);

/// One replacement under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycle {
    old: ChildId,
    /// Until it is ready and has taken the place.
    new: Option<ChildId>,
}

impl State {
    /// This worker is over its measure, for this reason.
    pub(super) fn worn(&mut self, id: ChildId, why: String) {
        if let Some(child) = self.roster.get_mut(id).filter(|child| child.life == Life::Ready) {
            child.worn.get_or_insert(why);
        }
    }

    pub(super) fn settle_recycle(&mut self, now: Duration) {
        let busy = self.recycle.is_some() || self.roll.is_some() || self.proves() || self.phase != Phase::Running;
        if busy || !self.roster.has_room() || self.roster.of(Kind::Worker).count() >= self.alive_max() {
            return;
        }
        let worn = self.places.iter().position(|place| {
            let child = place.child.and_then(|id| self.roster.get(id));
            place.wear.not_before() <= now
                && child.is_some_and(|child| child.life == Life::Ready && child.worn.is_some())
        });
        let Some((place, old)) = worn.and_then(|place| Some((place, self.places[place].child?))) else { return };
        let age = self.roster.get(old).map_or(Duration::ZERO, |child| now.saturating_sub(child.since));
        self.places[place].wear.died(now, age >= SOON);
        let new = self.launch(now, Kind::Worker, self.generation);
        self.recycle = Some(Recycle { old, new: Some(new) });
    }

    /// It stands: the place is its own, and the worn one may go.
    pub(super) fn successor_ready(&mut self, now: Duration, id: ChildId) {
        let Some(Recycle { old, new: Some(new) }) = self.recycle else { return };
        if new != id {
            return;
        }
        let Some(place) = self.places.iter_mut().find(|place| place.child == Some(old)) else {
            self.recycle = None;
            return;
        };
        place.child = Some(new);
        self.recycle = Some(Recycle { old, new: None });
        let worn = self.roster.get(old).and_then(|child| child.worn.clone()).unwrap_or_default();
        self.drain(now, old, self.shape.request_timeout, Duration::ZERO, format!("it was recycled: {worn}"));
    }

    /// A worker ended, or could not be forked; `place` is the one that it left.
    pub(super) fn recycle_ended(&mut self, now: Duration, id: ChildId, place: Option<usize>) {
        match self.recycle {
            Some(Recycle { old, new }) if old == id => {
                // It died before its successor was ready: that one is the replacement.
                if let (Some(place), Some(new)) = (place, new) {
                    self.places[place].child = Some(new);
                }
                self.recycle = None;
            }
            Some(Recycle { old, new: Some(new) }) if new == id => {
                if let Some(place) = self.places.iter_mut().find(|place| place.child == Some(old)) {
                    place.wear.died(now, false);
                }
                self.recycle = None;
            }
            _ => {}
        }
    }

    /// It is one of the two of a replacement.
    pub(super) fn recycling(&self, id: ChildId) -> bool {
        self.recycle.is_some_and(|two| two.old == id || two.new == Some(id))
    }

    /// It stands in no place yet, and is wanted all the same.
    pub(super) fn succeeds(&self, id: ChildId) -> bool {
        let Some(Recycle { old, new }) = self.recycle else { return false };
        new == Some(id) && self.places.iter().any(|place| place.child == Some(old))
    }

    /// When a worn worker that waits may be replaced.
    pub(super) fn recycle_due(&self) -> impl Iterator<Item = Duration> {
        self.places.iter().map(|place| place.wear.not_before())
    }
}
