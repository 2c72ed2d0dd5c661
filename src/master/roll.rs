//! A reload: one new worker proves that the new configuration stands, then the rest, then the old ones drain. Pure.

use super::report::Report;
use super::roster::{Child, ChildId, Kind, Life, Place};
use super::state::{Action, Phase, Shape, State};
use super::upgrade::Upgrade;
use std::time::Duration;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// This child brings the schema up to date.
    Migrating(ChildId),
    /// This engine comes up beside the one that serves.
    Preparing(ChildId),
    /// Done; the canary is next.
    Migrated,
    /// This worker is the first of its generation.
    Canary(ChildId),
    /// The generation is the current one; its other workers come up.
    Rest,
}

/// One reload under way.
#[derive(Clone, Debug)]
pub struct Roll {
    /// The generation that comes.
    pub generation: u32,
    /// What it wants.
    pub shape: Shape,
    /// How far it is.
    pub stage: Stage,
    began: Duration,
}

impl State {
    /// HUP: at once, or when the reload that is under way has ended; the latest wins.
    pub(super) fn ask_reload(&mut self) {
        if self.phase != Phase::Stopping {
            self.reload_waits = true;
        }
    }

    pub(super) fn loaded(&mut self, now: Duration, generation: u32, shape: Shape) {
        if self.phase != Phase::Running {
            return self.act(Action::Forget(generation));
        }
        self.enter(Phase::Reloading);
        let id = self.launch(now, Kind::Migration, generation);
        self.roll = Some(Roll { generation, shape, stage: Stage::Migrating(id), began: now });
    }

    pub(super) fn load_refused(&mut self, reason: String) {
        self.report(Report::ReloadRefused { reason: reason.clone() });
        self.upgrade_failed(&reason);
    }

    /// An engine is rolled by an upgrade, which brings new code, and by a reload that changes its settings.
    pub(super) fn rolls_engine(&self, shape: &Shape) -> bool {
        let both = shape.engine.is_some() && self.shape.engine.is_some() && shape.engine_beside;
        both && (self.upgrade == Some(Upgrade::Rolling) || shape.engine != self.shape.engine)
    }

    pub(super) fn migrated_for_roll(&mut self, now: Duration) {
        let Some((generation, shape)) = self.roll.as_ref().map(|roll| (roll.generation, roll.shape.clone())) else {
            return;
        };
        let stage = match self.rolls_engine(&shape) {
            true => Stage::Preparing(self.launch(now, Kind::Engine, generation)),
            false => Stage::Migrated,
        };
        if let Some(roll) = &mut self.roll {
            roll.stage = stage;
        }
    }

    /// This engine is the one that the reload under way waits for.
    pub(super) fn engine_comes(&self, id: ChildId) -> bool {
        self.roll.as_ref().is_some_and(|roll| roll.stage == Stage::Preparing(id))
    }

    /// An engine of this generation is the one that workers are to use now.
    pub(super) fn engine_serves(&self, generation: u32) -> bool {
        (self.engine_since..=self.generation).contains(&generation)
    }

    pub(super) fn prepared_for_roll(&mut self) {
        if let Some(roll) = &mut self.roll {
            roll.stage = Stage::Migrated;
        }
    }

    pub(super) fn canary_ready(&mut self, now: Duration, id: ChildId) {
        let Some(roll) = self.roll.as_mut().filter(|roll| roll.stage == Stage::Canary(id)) else { return };
        roll.stage = Stage::Rest;
        let (generation, shape) = (roll.generation, roll.shape.clone());
        let engine_changed = self.rolls_engine(&shape) || shape.engine.is_none();
        // Two of a foreign command would want the same port: the old one makes room.
        let makes_room = !engine_changed && shape.engine != self.shape.engine;
        // TTIN and TTOU are kept until the configured number itself changes.
        if shape.workers != self.shape.workers {
            self.places.resize_with(shape.workers, Place::default);
        }
        let old = std::mem::replace(&mut self.generation, generation);
        self.shape = shape;
        self.places.iter_mut().for_each(|place| *place = Place::default());
        self.places[0].child = Some(id);
        self.recycle = None;
        self.act(Action::Forget(old));
        self.retire_log(now);
        if engine_changed {
            self.engine_since = generation;
        }
        if makes_room {
            self.end_helpers(now, Kind::Engine);
        }
    }

    pub(super) fn canary_failed(&mut self, now: Duration, id: ChildId, reason: &str) {
        if self.roll.as_ref().is_some_and(|roll| roll.stage == Stage::Canary(id)) {
            self.refuse_roll(now, reason);
        }
    }

    /// Everything stays as it was.
    pub(super) fn refuse_roll(&mut self, now: Duration, reason: &str) {
        if let Some(roll) = self.roll.take() {
            self.act(Action::Forget(roll.generation));
            let coming = self.roster.of(Kind::Engine).filter(|child| child.generation > self.generation);
            for id in coming.map(|child| child.id).collect::<Vec<_>>() {
                self.kill(now, id, "its reload was refused");
            }
            self.report(Report::ReloadRefused { reason: reason.to_owned() });
            self.enter(Phase::Running);
            self.upgrade_failed(reason);
        }
    }

    /// Of the reload under way: workers of its generation that are ready, and those wanted.
    pub(super) fn rolled(&self) -> Option<(usize, usize)> {
        let roll = self.roll.as_ref()?;
        let ready = |child: &&Child| child.generation == roll.generation && child.life == Life::Ready;
        Some((self.roster.of(Kind::Worker).filter(ready).count(), roll.shape.workers.max(self.places.len())))
    }

    pub(super) fn settle_roll(&mut self, now: Duration) {
        match self.roll.as_ref().map(|roll| (roll.stage, roll.generation, roll.began)) {
            Some((Stage::Migrated, generation, _)) => {
                let id = self.launch(now, Kind::Worker, generation);
                if let Some(roll) = &mut self.roll {
                    roll.stage = Stage::Canary(id);
                }
            }
            Some((Stage::Rest, _, began)) if self.all_ready() => self.finish_roll(now, began),
            None if self.reload_waits && self.phase == Phase::Running && self.may_roll() && !self.proves() => {
                self.reload_waits = false;
                self.act(Action::Load);
            }
            _ => {}
        }
    }

    /// A new generation beside those that still drain must not pass the limit of workers alive.
    pub(super) fn may_roll(&self) -> bool {
        self.roster.of(Kind::Worker).count() + self.places.len() <= self.alive_max()
    }

    fn finish_roll(&mut self, now: Duration, began: Duration) {
        self.roll = None;
        let generation = self.generation;
        let old: Vec<ChildId> = self
            .roster
            .of(Kind::Worker)
            .filter(|child| {
                child.generation != generation && !matches!(child.life, Life::Leaving(_)) && !child.life.is_killed()
            })
            .map(|child| child.id)
            .collect();
        self.report(Report::Reloaded {
            workers: self.places.len(),
            draining: old.len(),
            after: now.saturating_sub(began),
        });
        for id in old {
            self.drain(now, id, self.shape.request_timeout, Duration::ZERO, "it was replaced by a reload");
        }
        // Of the new generation, in a place that was taken away meanwhile.
        self.drain_surplus(now);
        self.enter(Phase::Running);
        self.upgrade_done();
    }
}
