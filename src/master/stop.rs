//! The end: told once, shortened when told again. Pure; `settle` does the rest.

use super::roster::{Kind, Life};
use super::state::{Action, KILL_AFTER, Phase, State};
use nix::sys::signal::Signal;
use std::time::Duration;

impl State {
    pub(super) fn stop(&mut self, now: Duration) {
        let again = self.phase == Phase::Stopping;
        let (limit, delay) = match again {
            true => (self.shape.graceful_timeout.min(KILL_AFTER), Duration::ZERO),
            false => (self.shape.graceful_timeout, self.shape.drain_delay),
        };
        self.begin_stopping(now, 0);
        for id in self.ids(Kind::Worker) {
            self.drain(now, id, limit, delay, "the server stops");
        }
    }

    pub(super) fn stop_now(&mut self, now: Duration) {
        self.begin_stopping(now, 0);
        for id in self.ids(Kind::Worker) {
            let Some(child) = self.roster.get_mut(id) else { continue };
            if !child.life.is_doomed() {
                child.life = Life::Leaving(now + KILL_AFTER);
                child.ended_for = Some("the server stops now".into());
                let pid = child.pid;
                self.act(Action::Kill(pid, Signal::SIGQUIT));
            }
        }
    }

    pub(super) fn begin_stopping(&mut self, now: Duration, code: i32) {
        if self.phase != Phase::Stopping {
            self.exit_code = code;
            self.roll = None;
            self.recycle = None;
            self.reload_waits = false;
            self.forget_upgrade();
            self.enter(Phase::Stopping);
            for id in [self.ids(Kind::Migration), self.ids(Kind::Proof)].concat() {
                self.kill(now, id, "the server stops");
            }
        }
    }
}
