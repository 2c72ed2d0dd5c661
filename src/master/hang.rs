//! A worker whose event loop does not turn: asked what it does, killed a moment later, replaced even when the kernel
//! does not let go of it. Pure.
//!
//! ```text
//! Ready ──silent──▶ Examined ──150 ms──▶ Killed ──ended──▶ replaced
//!                                           └── not ended in a second: its place is given to another ──▶ replaced
//! ```

use super::report::Report;
use super::roster::{Child, ChildId, Kind, Life};
use super::state::{Action, KILL_AFTER, State};
use nix::sys::signal::Signal;
use std::borrow::Cow;
use std::time::Duration;

/// What threads get to leave their stacks; those that run take microseconds.
const EXAMINATION: Duration = Duration::from_millis(150);

/// Who has loops: one that leaves may hang too, and its clients need not wait for the drain's limit.
pub(super) fn turns(child: &Child) -> bool {
    child.was_ready && matches!(child.life, Life::Ready | Life::Leaving(_))
}

impl State {
    /// One of its loops has been silent for longer than the limit.
    pub(super) fn silent(&mut self, now: Duration, id: ChildId, silence: Duration) {
        let Some(child) = self.roster.get_mut(id).filter(|child| turns(child)) else { return };
        child.life = Life::Examined(now + EXAMINATION, silence);
        self.act(Action::Examine(id));
    }

    /// The time for its stacks is over.
    pub(super) fn examined(&mut self, now: Duration) {
        let hung: Vec<(ChildId, Duration)> = self
            .roster
            .all()
            .filter_map(|child| match child.life {
                Life::Examined(until, silence) if until <= now => Some((child.id, silence)),
                _ => None,
            })
            .collect();
        for (id, silence) in hung {
            if let Some(child) = self.roster.get(id).cloned() {
                self.report(Report::Hung { child, silence, seen: String::new(), held: Vec::new() });
            }
            self.kill(now, id, "its event loop did not turn");
        }
    }

    /// SIGKILL, once.
    pub(super) fn kill(&mut self, now: Duration, id: ChildId, why: impl Into<Cow<'static, str>>) {
        let Some(child) = self.roster.get_mut(id) else { return };
        if child.pid > 0 && !child.life.is_killed() {
            child.life = Life::Killed(now + KILL_AFTER);
            child.ended_for = Some(why.into());
            let pid = child.pid;
            self.act(Action::Kill(pid, Signal::SIGKILL));
        }
    }

    /// A worker that the kernel does not let go of (a dead disk, a frozen group) keeps its slot, and not its place.
    pub(super) fn give_up_places(&mut self, now: Duration) {
        let stuck: Vec<ChildId> = self
            .roster
            .of(Kind::Worker)
            .filter(|child| matches!(child.life, Life::Killed(until) if until <= now))
            .filter(|child| self.recycling(child.id) || self.places.iter().any(|place| place.child == Some(child.id)))
            .map(|child| child.id)
            .collect();
        for id in stuck {
            let place = self.vacate(id);
            self.recycle_ended(now, id, place);
        }
    }
}
