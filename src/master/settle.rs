//! What should live against what does, after every event. Pure.

use super::report::Report;
use super::roster::{Child, ChildId, Kind, Life};
use super::state::{Action, HELPERS_END_LIMIT, Phase, State, helper};
use nix::sys::signal::Signal;
use std::time::Duration;

impl State {
    /// Kills whoever is past its limit.
    pub(super) fn overdue(&mut self, now: Duration) {
        let late = |child: &&Child| match child.life {
            Life::Booting(until) | Life::Leaving(until) => until <= now,
            Life::Ready | Life::Examined(..) | Life::Killed(_) => false,
        };
        let late: Vec<(ChildId, bool)> =
            self.roster.all().filter(late).map(|child| (child.id, matches!(child.life, Life::Booting(_)))).collect();
        for (id, booting) in late {
            self.kill(now, id, if booting { "it was not ready in time" } else { "it did not end in time" });
        }
    }

    /// Compares what lives with what should.
    pub(super) fn settle(&mut self, now: Duration) {
        self.settle_helper(now, Kind::Log, !self.logs_closed);
        match self.phase {
            Phase::Stopping => self.settle_stopping(now),
            Phase::Booting | Phase::Running | Phase::Reloading => {
                self.settle_helper(now, Kind::Engine, self.shape.engine.is_some());
                self.settle_former_engines(now);
                self.settle_store(now);
                self.settle_workers(now);
                self.settle_roll(now);
                // After a reload that has just ended, for which it waited.
                self.settle_upgrade(now);
                self.settle_recycle(now);
                self.settle_announcement();
            }
        }
    }

    fn settle_helper(&mut self, now: Duration, kind: Kind, wanted: bool) {
        let serves = |child: &Child| kind != Kind::Engine || self.engine_serves(child.generation);
        let absent = !self.roster.of(kind).any(serves);
        if wanted && absent && self.helpers[helper(kind)].not_before() <= now {
            self.launch(now, kind, self.generation);
        }
    }

    /// A former engine ends with the last worker that uses it.
    fn settle_former_engines(&mut self, now: Duration) {
        let since = self.engine_since;
        if !self.roster.of(Kind::Worker).any(|child| child.generation < since) {
            let former = self.roster.of(Kind::Engine).filter(|child| child.generation < since);
            let former = former.map(|child| child.id).collect();
            self.end(now, former);
        }
    }

    fn settle_store(&mut self, now: Duration) {
        if self.phase == Phase::Booting && !self.migrated && self.roster.of(Kind::Migration).next().is_none() {
            self.launch(now, Kind::Migration, self.generation);
        }
    }

    fn settle_workers(&mut self, now: Duration) {
        if !self.migrated {
            return;
        }
        for number in 0..self.places.len() {
            let place = &self.places[number];
            if place.child.is_none() && place.backoff.not_before() <= now && self.roster.has_room() {
                let id = self.launch(now, Kind::Worker, self.generation);
                self.places[number].child = Some(id);
            }
        }
        self.drain_surplus(now);
    }

    /// Workers that no place holds: taken away by TTOU, or of an older generation once the new one stands.
    pub(super) fn drain_surplus(&mut self, now: Duration) {
        let rolling = self.roll.is_some();
        let surplus: Vec<ChildId> = self
            .roster
            .of(Kind::Worker)
            .filter(|child| matches!(child.life, Life::Ready | Life::Booting(_)))
            .filter(|child| !rolling && !self.succeeds(child.id))
            .filter(|child| !self.places.iter().any(|place| place.child == Some(child.id)))
            .map(|child| child.id)
            .collect();
        for id in surplus {
            self.drain(now, id, self.shape.request_timeout, Duration::ZERO, "it was replaced");
        }
    }

    fn settle_announcement(&mut self) {
        if !self.announced && self.all_ready() {
            self.announced = true;
            self.report(Report::Serving { workers: self.places.len() });
        }
        if self.phase == Phase::Booting && self.roster.of(Kind::Worker).any(|child| child.life == Life::Ready) {
            self.enter(Phase::Running);
        }
    }

    /// True when each place holds a worker of this generation that is ready.
    pub(super) fn all_ready(&self) -> bool {
        self.places.iter().all(|place| {
            let child = place.child.and_then(|id| self.roster.get(id));
            child.is_some_and(|child| child.life == Life::Ready && child.generation == self.generation)
        })
    }

    /// Workers first, then the engine that they use, then the log that all write to.
    fn settle_stopping(&mut self, now: Duration) {
        let any = |state: &State, kind| state.roster.of(kind).next().is_some();
        // One that the kernel does not let go of is not waited for.
        let held = |child: &Child| matches!(child.life, Life::Killed(until) if until <= now);
        let workers = self.roster.of(Kind::Worker).any(|child| !held(child));
        if workers || any(self, Kind::Migration) || any(self, Kind::Proof) {
            return;
        }
        if any(self, Kind::Engine) {
            return self.end_helpers(now, Kind::Engine);
        }
        if !self.logs_closed {
            self.logs_closed = true;
            self.report(Report::Stopped { code: self.exit_code });
            self.act(Action::RetireLog);
        }
        match any(self, Kind::Log) {
            true => self.end_helpers(now, Kind::Log),
            false => self.act(Action::Finish(self.exit_code)),
        }
    }

    pub(super) fn end_helpers(&mut self, now: Duration, kind: Kind) {
        self.end(now, self.ids(kind));
    }

    /// Asks once (the log process ends by itself, at end of file), and leaves the rest to `overdue`.
    fn end(&mut self, now: Duration, helpers: Vec<ChildId>) {
        for id in helpers {
            let Some(child) = self.roster.get_mut(id) else { continue };
            if matches!(child.life, Life::Ready | Life::Booting(_)) {
                child.life = Life::Leaving(now + HELPERS_END_LIMIT);
                child.ended_for = Some("its work is done".into());
                let (kind, pid) = (child.kind, child.pid);
                if kind == Kind::Engine {
                    self.act(Action::Kill(pid, Signal::SIGTERM));
                }
            }
        }
    }

    /// Lets a new log process take over under the current configuration: it waits for the old one's lock, and both read
    /// the same pipes, so nothing is lost.
    pub(super) fn retire_log(&mut self, now: Duration) {
        self.end_helpers(now, Kind::Log);
        self.act(Action::RetireLog);
    }
}
