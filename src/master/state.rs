//! What the master decides. Pure: no process, no clock, no log; the same events give the same actions.
//!
//! ```text
//! Booting ──all workers ready──▶ Running ──HUP──▶ Reloading (migrate, canary, rest, drain the old) ──▶ Running
//!    │ none can boot: 3             │ TERM, INT, QUIT
//!    └──────────────▶ Stopping ◀────┘  workers, then the engine, then the log ──▶ Finish
//! ```
//! After every event `settle` compares what lives with what should, so a death at any moment has one answer.

use super::death::Evidence;
use super::hang::turns;
use super::recycle::Recycle;
use super::report::Report;
use super::roll::{Roll, Stage};
use super::roster::{Backoff, Child, ChildId, Kind, Life, Place, Roster};
use super::upgrade::Upgrade;
use crate::board::EngineState;
use crate::sys::wait::How;
use crate::worker::link::{ToMaster, ToWorker};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A kept connection may bring one more request for so long after the worker was told to drain.
const GRACE: Duration = Duration::from_secs(5);
/// Loading a model takes this long at most: a large one from a slow disk takes minutes.
const ENGINE_BOOT_LIMIT: Duration = Duration::from_secs(600);
/// Bringing a schema up to date takes this long at most.
const MIGRATION_LIMIT: Duration = Duration::from_secs(120);
/// A told child that is not gone so long after its limit is killed.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(1);
/// What a new program gets beside the boot of its worker to show that it stands.
const PROOF_LIMIT: Duration = Duration::from_secs(3);
/// What the engine and the log process get to end.
pub(super) const HELPERS_END_LIMIT: Duration = Duration::from_secs(2);
/// Workers alive at once, as a multiple of those wanted; beyond it the next reload waits.
const ALIVE_FACTOR_MAX: usize = 3;
/// The highest number of workers that may be asked for.
pub(super) const WORKERS_MAX: usize = crate::board::SLOTS_MAX / ALIVE_FACTOR_MAX;
/// Each place tries so often before the first boot is given up.
const BOOT_TRIES: u32 = 2;

/// Exit code when no worker could boot.
pub const EXIT_NO_WORKER: i32 = 3;
/// Exit code of a failure.
pub const EXIT_FAILURE: i32 = 1;

/// What of a configuration the master itself acts on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Workers wanted.
    pub workers: usize,
    /// The engine's settings as one number; `None`: no engine.
    pub engine: Option<u64>,
    /// It listens where we say, so a new one can come up beside it: our own, and no other command.
    pub engine_beside: bool,
    /// A worker that is not ready by then is killed.
    pub boot_timeout: Duration,
    /// A worker whose loops have not turned for so long is killed.
    pub hang_timeout: Duration,
    /// Limit of a drain when the server stops.
    pub graceful_timeout: Duration,
    /// Limit of a drain when the workers are replaced.
    pub request_timeout: Duration,
    /// How long a stopping server still accepts.
    pub drain_delay: Duration,
    /// Resident bytes beyond which a worker is recycled; 0: never.
    #[serde(default)]
    pub rss_bytes_max: u64,
}

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The loop begins.
    Start,
    /// TERM: end what is under way, then stop.
    Stop,
    /// INT or QUIT: stop now.
    StopNow,
    /// HUP.
    Reload,
    /// USR2.
    Upgrade,
    /// This process is the new program of an upgrade, and has taken over.
    TakenOver,
    /// The program could not be replaced.
    ReplaceFailed(String),
    /// USR1.
    Reopen,
    /// TTIN.
    More,
    /// TTOU.
    Fewer,
    /// So many workers.
    Scale(usize),
    /// The files were read again and are good; they are this generation.
    Loaded(u32, Shape),
    /// They are not.
    LoadRefused(String),
    /// A child lives.
    Forked(ChildId, i32),
    /// It could not be made.
    ForkFailed(ChildId, String),
    /// A child said something.
    Said(ChildId, ToMaster),
    /// A process ended, ours or not.
    Exited(i32, How),
    /// A worker's loop has been silent for so long.
    Silent(ChildId, Duration),
    /// A worker is over its measure, for this reason.
    Worn(ChildId, String),
    /// Some time passed.
    Tick,
}

/// Everything that the master can do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make this child; its answer is `Forked` or `ForkFailed`.
    Fork(ChildId),
    /// Say something to a worker.
    Tell(ChildId, ToWorker),
    /// Ask the threads of a hung worker what they do.
    Examine(ChildId),
    /// A signal to a child that is not reaped.
    Kill(i32, Signal),
    /// Read the configuration again; its answer is `Loaded` or `LoadRefused`.
    Load,
    /// This generation's configuration is not needed.
    Forget(u32),
    /// What the workers see of the engine.
    Engine(EngineState),
    /// A reaped worker's slot is free.
    CloseSlot(usize),
    /// The log process shall open its files anew.
    Reopen,
    /// The log process shall write what has arrived and leave.
    RetireLog,
    /// A line in the log.
    Report(Report),
    /// The end, with this exit code.
    Finish(i32),
}

/// Where the master is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// No worker was ready yet.
    Booting,
    /// Serving.
    Running,
    /// Serving, with a new generation coming up.
    Reloading,
    /// Told to stop.
    Stopping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Booting => "booting",
            Phase::Running => "running",
            Phase::Reloading => "reloading",
            Phase::Stopping => "stopping",
        })
    }
}

/// The master's whole mind. An upgrade hands it on: see `handover`.
#[derive(Serialize, Deserialize)]
pub struct State {
    pub(super) phase: Phase,
    pub(super) shape: Shape,
    pub(super) generation: u32,
    pub(super) roster: Roster,
    pub(super) places: Vec<Place>,
    /// None while the program is replaced.
    #[serde(skip)]
    pub(super) roll: Option<Roll>,
    pub(super) reload_waits: bool,
    #[serde(default)]
    pub(super) recycle: Option<Recycle>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) upgrade_waits: bool,
    pub(super) migrated: bool,
    pub(super) announced: bool,
    pub(super) helpers: [Backoff; 2],
    /// The engine that serves now began with this generation; one of an older generation ends with its last worker.
    pub(super) engine_since: u32,
    engine_state: EngineState,
    pub(super) logs_closed: bool,
    pub(super) exit_code: i32,
    #[serde(skip)]
    pub(super) actions: Vec<Action>,
}

impl State {
    /// The mind of a master that has bound its sockets and forked nobody; its configuration is generation 0.
    pub fn new(shape: Shape) -> State {
        let places = vec![Place::default(); shape.workers];
        State {
            phase: Phase::Booting,
            shape,
            generation: 0,
            roster: Roster::default(),
            places,
            roll: None,
            reload_waits: false,
            recycle: None,
            upgrade: None,
            upgrade_waits: false,
            migrated: false,
            announced: false,
            helpers: [Backoff::default(), Backoff::default()],
            engine_since: 0,
            engine_state: EngineState::Absent,
            logs_closed: false,
            exit_code: 0,
            actions: Vec::new(),
        }
    }

    /// What to do about `event`, which happened at `now` (monotonic).
    pub fn on(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Start | Event::Tick => {}
            Event::Stop => self.stop(now),
            Event::StopNow => self.stop_now(now),
            Event::Reload => self.ask_reload(),
            Event::Upgrade => self.ask_upgrade(),
            Event::TakenOver => self.taken_over(),
            Event::ReplaceFailed(reason) => self.replace_failed(&reason),
            Event::Reopen => self.act(Action::Reopen),
            Event::More => self.resize(self.places.len() + 1),
            Event::Fewer => self.resize(self.places.len().saturating_sub(1).max(1)),
            Event::Scale(workers) => self.resize(workers.max(1)),
            Event::Loaded(generation, shape) => self.loaded(now, generation, shape),
            Event::LoadRefused(reason) => self.load_refused(reason),
            Event::Forked(id, pid) => self.forked(id, pid),
            Event::ForkFailed(id, reason) => self.fork_failed(now, id, reason),
            Event::Said(id, message) => self.said(now, id, message),
            Event::Exited(pid, how) => self.exited(now, pid, how),
            Event::Silent(id, silence) => self.silent(now, id, silence),
            Event::Worn(id, why) => self.worn(id, why),
        }
        self.examined(now);
        self.overdue(now);
        self.give_up_places(now);
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// When `Event::Tick` is due at the latest; what is past by `now` has been dealt with.
    pub fn deadline(&self, now: Duration) -> Option<Duration> {
        let lives = self.roster.all().filter_map(|child| match child.life {
            Life::Booting(until) | Life::Leaving(until) | Life::Examined(until, _) | Life::Killed(until) => Some(until),
            Life::Ready => None,
        });
        let empty = self.places.iter().filter(|place| place.child.is_none()).map(|place| place.backoff.not_before());
        let helpers = self.helpers.iter().map(Backoff::not_before);
        lives.chain(empty).chain(helpers).chain(self.recycle_due()).filter(|at| *at > now).min()
    }

    /// Where the master is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The child with this name.
    pub fn child(&self, id: ChildId) -> Option<&Child> {
        self.roster.get(id)
    }

    /// Workers that should turn their loops: for the scan of the board.
    pub fn watched(&self) -> impl Iterator<Item = (ChildId, usize)> {
        self.roster.of(Kind::Worker).filter(|child| turns(child)).map(|child| (child.id, child.slot))
    }

    /// What it acts on.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.act(Action::Report(report));
    }

    pub(super) fn enter(&mut self, next: Phase) {
        if next != self.phase {
            self.report(Report::Phase { from: self.phase, to: next });
            self.phase = next;
        }
    }

    pub(super) fn launch(&mut self, now: Duration, kind: Kind, generation: u32) -> ChildId {
        let limit = match kind {
            Kind::Worker => self.shape.boot_timeout,
            Kind::Engine => ENGINE_BOOT_LIMIT,
            Kind::Log => HELPERS_END_LIMIT,
            Kind::Migration => MIGRATION_LIMIT,
            Kind::Proof => self.shape.boot_timeout + PROOF_LIMIT,
        };
        let id = self.roster.enrol(kind, generation, now, limit);
        self.act(Action::Fork(id));
        id
    }

    /// Tells a worker to finish and go; the master kills it a second after its limit.
    pub(super) fn drain(
        &mut self,
        now: Duration,
        id: ChildId,
        limit: Duration,
        delay: Duration,
        why: impl Into<Cow<'static, str>>,
    ) {
        let Some(child) = self.roster.get_mut(id) else { return };
        if !child.life.is_doomed() {
            child.life = Life::Leaving(now + delay + limit + KILL_AFTER);
            child.ended_for = Some(why.into());
            self.act(Action::Tell(id, ToWorker::Drain { limit, grace: GRACE.min(limit), delay }));
        }
    }

    fn resize(&mut self, workers: usize) {
        if self.phase != Phase::Stopping && workers <= WORKERS_MAX {
            self.places.resize_with(workers, Place::default);
            self.report(Report::Resized { workers });
        }
    }

    pub(super) fn ids(&self, kind: Kind) -> Vec<ChildId> {
        self.roster.of(kind).map(|child| child.id).collect()
    }

    fn forked(&mut self, id: ChildId, pid: i32) {
        if let Some(child) = self.roster.get_mut(id) {
            child.pid = pid;
            let (kind, generation) = (child.kind, child.generation);
            if kind == Kind::Engine && self.engine_serves(generation) {
                self.show_engine(EngineState::Loading);
            }
        }
    }

    fn fork_failed(&mut self, now: Duration, id: ChildId, reason: String) {
        let Some(child) = self.roster.remove(id) else { return };
        self.report(Report::ForkFailed { kind: child.kind, reason: reason.clone() });
        match child.kind {
            Kind::Worker => {
                if let Some(place) = self.vacate(id) {
                    self.places[place].backoff.refused(now);
                }
                self.recycle_ended(now, id, None);
                self.canary_failed(now, id, &reason);
            }
            Kind::Migration => self.migration_ended(now, id, Err(reason)),
            Kind::Proof => self.proof_ended(id, Err(reason)),
            Kind::Engine if self.engine_comes(id) => self.refuse_roll(now, &reason),
            Kind::Log | Kind::Engine => self.helpers[helper(child.kind)].refused(now),
        }
    }

    pub(super) fn vacate(&mut self, id: ChildId) -> Option<usize> {
        let place = self.places.iter().position(|place| place.child == Some(id))?;
        self.places[place].child = None;
        Some(place)
    }

    fn said(&mut self, now: Duration, id: ChildId, message: ToMaster) {
        let Some(child) = self.roster.get_mut(id) else { return };
        match message {
            ToMaster::Failed(reason) => child.failed = Some(reason),
            ToMaster::Worn(why) => self.worn(id, why),
            ToMaster::Ready if matches!(child.life, Life::Booting(_)) => {
                child.life = Life::Ready;
                child.was_ready = true;
                let ready = Report::Ready {
                    kind: child.kind,
                    pid: child.pid,
                    slot: child.slot,
                    after: now.saturating_sub(child.since),
                };
                let (kind, generation) = (child.kind, child.generation);
                self.report(ready);
                match kind {
                    Kind::Engine if self.engine_comes(id) => self.prepared_for_roll(),
                    Kind::Engine if self.engine_serves(generation) => self.show_engine(EngineState::Ready),
                    Kind::Engine => {}
                    Kind::Worker => {
                        self.successor_ready(now, id);
                        self.canary_ready(now, id);
                    }
                    Kind::Log | Kind::Migration | Kind::Proof => {}
                }
            }
            ToMaster::Ready | ToMaster::Limits { .. } => {}
        }
    }

    fn exited(&mut self, now: Duration, pid: i32, how: How) {
        let Some(child) = self.roster.remove_pid(pid) else {
            return self.report(Report::Stranger { pid, how });
        };
        let (age, expected) = (now.saturating_sub(child.since), child.should_end(how));
        self.report(Report::Ended { child: child.clone(), how, age, expected, evidence: Evidence::default() });
        match child.kind {
            Kind::Worker => self.worker_ended(now, &child, how),
            Kind::Migration => {
                let ended = if how == How::Code(0) { Ok(()) } else { Err(child.reason(how)) };
                self.migration_ended(now, child.id, ended);
            }
            Kind::Engine if self.engine_comes(child.id) => self.refuse_roll(now, &child.reason(how)),
            Kind::Engine if !self.engine_serves(child.generation) => {
                if self.shape.engine.is_none() {
                    self.show_engine(EngineState::Absent);
                }
            }
            Kind::Engine => {
                self.helper_ended(now, &child);
                let down = if self.shape.engine.is_some() { EngineState::Down } else { EngineState::Absent };
                self.show_engine(down);
            }
            Kind::Log => self.helper_ended(now, &child),
            Kind::Proof if child.was_ready && how == How::Code(0) => self.proof_ended(child.id, Ok(())),
            Kind::Proof => self.proof_ended(child.id, Err(child.reason(how))),
        }
    }

    /// One that was told to end is no reason to wait with the next.
    fn helper_ended(&mut self, now: Duration, child: &Child) {
        if !matches!(child.life, Life::Leaving(_)) {
            self.helpers[helper(child.kind)].died(now, child.was_ready);
        }
    }

    fn worker_ended(&mut self, now: Duration, child: &Child, how: How) {
        self.act(Action::CloseSlot(child.slot));
        let expected = matches!(child.life, Life::Leaving(_));
        let place = self.vacate(child.id);
        if let Some(place) = place
            && !expected
        {
            self.places[place].backoff.died(now, child.was_ready);
        }
        self.recycle_ended(now, child.id, place);
        let reason = child.reason(how);
        self.canary_failed(now, child.id, &reason);
        let hopeless = self.places.iter().all(|place| place.backoff.failures() >= BOOT_TRIES);
        if self.phase == Phase::Booting && hopeless {
            self.report(Report::NoWorker { reason });
            self.begin_stopping(now, EXIT_NO_WORKER);
            self.stop_now(now);
        }
    }

    fn migration_ended(&mut self, now: Duration, id: ChildId, result: Result<(), String>) {
        match (self.roll.as_ref().map(|roll| roll.stage), result) {
            (Some(Stage::Migrating(own)), Err(reason)) if own == id => self.refuse_roll(now, &reason),
            (Some(Stage::Migrating(own)), Ok(())) if own == id => self.migrated_for_roll(now),
            (_, Ok(())) => self.migrated = true,
            (_, Err(reason)) if self.phase == Phase::Booting => {
                self.report(Report::StoreRefused { reason });
                self.begin_stopping(now, EXIT_FAILURE);
            }
            (_, Err(_)) => {}
        }
    }

    fn show_engine(&mut self, state: EngineState) {
        if self.engine_state != state {
            self.engine_state = state;
            self.act(Action::Engine(state));
        }
    }

    pub(super) fn alive_max(&self) -> usize {
        ALIVE_FACTOR_MAX * self.places.len()
    }
}

/// The index of a helper's back-off.
pub(super) fn helper(kind: Kind) -> usize {
    usize::from(kind == Kind::Engine)
}
