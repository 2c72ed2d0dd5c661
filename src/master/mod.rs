//! The master: binds nothing itself, forks everyone, answers for everything, touches no request.
//!
//! ```text
//!            ┌────────────── follow-up events ──────────────┐
//! kernel ─▶ inbox ─▶ Event ─▶ state.on (pure) ─▶ Action ─▶ perform ─▶ fork, tell, kill, report
//! ```
//! One loop, one direction, one thread: `state` decides, `launch` forks, `inbox` is the only door.
//!
//! Deliberately absent: async, threads, any wait without a limit, and trust in what a worker wrote on the board.

mod addresses;
mod cause;
pub mod control;
mod counts;
mod death;
mod engines;
pub mod handover;
mod hang;
mod history;
mod inbox;
mod launch;
mod limits;
mod notify;
mod operator;
mod recycle;
mod report;
mod roll;
mod roster;
mod settle;
mod state;
mod status;
mod stop;
mod systemd;
#[cfg(test)]
mod tests;
mod upgrade;

pub use state::{EXIT_FAILURE, EXIT_NO_WORKER, Shape};

use crate::board::{Board, EngineState, Sender};
use crate::engine;
use crate::limit::Shared;
use crate::listener::{Listener, Wanted};
use crate::log::{self, Security, pipe::Pipes};
use crate::sys::clock;
use crate::sys::process::{self, Identity};
use crate::worker::{self, link};
use addresses::Addresses;
use control::Control;
use counts::Counts;
use death::Witness;
use engines::Engines;
use handover::Origin;
use history::History;
use inbox::Inbox;
use launch::Launcher;
use notify::Notify;
use operator::Waiting;
use report::Report;
use roster::Kind;
use socket2::Socket;
use state::{Action, Event, Phase, State};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;
use upgrade::Way;

/// How often the loops of all workers are looked at.
const SCAN: Duration = Duration::from_secs(1);

/// What the master is configured to do.
#[derive(Clone)]
pub struct Plan {
    /// What the state machine acts on.
    pub shape: Shape,
    /// Where to listen.
    pub listen: Wanted,
    /// Each worker's.
    pub worker: worker::Plan,
    /// The log process's.
    pub log: log::Plan,
    /// The engine's; `None` where an upstream answers.
    pub engine: Option<engine::Plan>,
    /// The operators' socket.
    pub control: PathBuf,
    /// The user that children run as.
    pub identity: Option<Identity>,
    /// What an exec'd child sees; no secrets.
    pub environment: Vec<(OsString, OsString)>,
    /// Said once, when this configuration comes into force.
    pub warnings: Vec<Notice>,
}

/// A warning of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The sentence.
    pub text: String,
    /// A value was mended: a security event.
    pub mended: bool,
}

impl Notice {
    fn log(&self) {
        match self.mended {
            true => log::security(Security::InvalidSetting, None, &[("setting", &self.text)]),
            false => tracing::warn!("{}", self.text),
        }
    }
}

/// Reads the configuration again.
pub type Load = Box<dyn Fn() -> Result<Plan, String>>;

/// What the master is given: bound sockets, and the way to read its configuration again.
pub struct Master {
    launcher: Launcher,
    inbox: Inbox,
    state: State,
    /// One a generation that somebody runs or may run.
    plans: BTreeMap<u32, Plan>,
    newest: u32,
    load: Load,
    notify: Notify,
    /// Of the last reload or upgrade, for systemd.
    remark: &'static str,
    next_scan: Duration,
    waiting: Waiting,
    history: History,
    witness: Witness,
    started: Duration,
    origin: Origin,
    /// The former program of an upgrade that is not done yet.
    former: Option<OwnedFd>,
}

/// Runs until the end; the value is the process's exit code.
///
/// # Errors
/// The kernel refuses what everything stands on: pipes, shared memory, waiting.
pub fn run(
    plan: Plan,
    listeners: Vec<Listener>,
    board: Board,
    engine_socket: Option<Socket>,
    load: Load,
    origin: Origin,
) -> io::Result<i32> {
    let mut pipes = Pipes::new();
    pipes.ensure(Sender::Master)?;
    let own_end = pipes.writer(Sender::Master).ok_or_else(|| io::Error::other("no log pipe"))?.try_clone_to_owned()?;
    log::start(&plan.log, Sender::Master, own_end, board).map_err(io::Error::other)?;
    let master = std::process::id() as i32;
    let limits = plan.worker.limits.as_ref().map(Shared::create).transpose()?;
    let launcher = Launcher {
        board,
        counts: Counts::new(0, limits),
        addresses: Addresses::new(0, listeners),
        pipes,
        log_link: None,
        engines: Engines::new(0, engine_socket),
        master,
        origin: origin.clone(),
    };
    let state = State::new(plan.shape.clone());
    let inbox = Inbox::open(Control::open(&plan.control), BTreeMap::new())?;
    let notify = Notify::from_environment(&origin.environment, false);
    let plans = BTreeMap::from([(0, plan)]);
    let (waiting, history) = (Waiting::default(), History::default());
    let (next_scan, started) = (Duration::ZERO, clock::monotonic());
    let former = None;
    let master = Master {
        launcher,
        inbox,
        state,
        plans,
        newest: 0,
        load,
        notify,
        remark: "",
        next_scan,
        waiting,
        history,
        witness: Witness::new(),
        started,
        origin,
        former,
    };
    master.greet();
    master.serve(Event::Start)
}

impl Master {
    /// Goes on in the place of a former program.
    ///
    /// # Errors
    /// As [`run`].
    pub fn go_on(self) -> io::Result<i32> {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "this program took over");
        self.serve(Event::TakenOver)
    }

    fn serve(mut self, first: Event) -> io::Result<i32> {
        let mut events = VecDeque::from([first]);
        events.extend(self.inbox.deaths());
        loop {
            while let Some(event) = events.pop_front() {
                for action in self.state.on(clock::monotonic(), event) {
                    if let Action::Finish(code) = action {
                        self.tell_operators_the_end(code);
                        return Ok(code);
                    }
                    events.extend(self.perform(action));
                }
            }
            if let Some(way) = self.state.way() {
                events.extend(self.replace(way)?);
                continue;
            }
            events.extend(self.inbox.next(Some(self.deadline()))?);
            events.extend(self.hear_operators());
            events.extend(self.scan());
        }
    }

    fn greet(&self) {
        let Some(plan) = self.plans.get(&0) else { return };
        for listener in self.launcher.addresses.of(0) {
            tracing::info!(address = %plan.listen.shown(listener.address()), version = env!("CARGO_PKG_VERSION"), "listening");
        }
        plan.warnings.iter().for_each(Notice::log);
        if process::is_root() && plan.identity.is_none() {
            tracing::warn!("running as root: set --user, so that the children are not");
        }
    }

    fn deadline(&self) -> Duration {
        let now = clock::monotonic();
        let scan = self.next_scan.max(now).min(self.limits_deadline().unwrap_or(Duration::MAX));
        self.state.deadline(now).map_or(scan, |deadline| deadline.min(scan))
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Fork(id) => return Some(self.fork(id)),
            Action::Tell(id, message) => {
                // A worker that is gone or does not read is killed at its limit.
                let said = self.inbox.link(id).map(|link| link::say(link, &message.encode()));
                tracing::debug!(?message, heard = matches!(said, Some(Ok(()))), "told");
            }
            Action::Examine(id) => self.examine(id),
            Action::Kill(pid, signal) => {
                process::kill(pid, signal);
            }
            Action::Load => return Some(self.load()),
            Action::Forget(generation) => self.forget(generation),
            Action::Engine(state) => self.launcher.board.set_engine_state(state),
            Action::CloseSlot(slot) => {
                self.launcher.board.slot(slot).close();
                self.launcher.pipes.mark_end(Sender::Slot(slot), self.launcher.board);
            }
            Action::Reopen => {
                if let Some(link) = &self.launcher.log_link {
                    let _ = log::pipe::reopen(link);
                }
            }
            // The master writes to its end, so there is no end of file to wait for.
            Action::RetireLog => {
                if let Some(link) = &self.launcher.log_link {
                    let _ = log::pipe::retire(link);
                }
            }
            Action::Report(report) => self.tell(report),
            Action::Finish(_) => {}
        }
        None
    }

    /// Everybody who wants to hear it does; ends with what only the kernel and the board know of them.
    fn tell(&mut self, mut report: Report) {
        match &mut report {
            Report::Ended { child, how, evidence, .. } => *evidence = self.evidence(child, *how),
            Report::Hung { child, seen, held, .. } => (*seen, *held) = (self.seen(child), self.held(child)),
            Report::Upgraded => self.former = None,
            _ => {}
        }
        report.log();
        cause::count(self.launcher.board.ends(), &report);
        self.history.note(clock::monotonic(), &report);
        self.tell_operators(&report);
        self.tell_systemd(&report);
    }

    fn fork(&mut self, id: u64) -> Event {
        let made = match self.state.child(id) {
            None => return Event::Tick,
            Some(child) => match self.plans.get(&child.generation) {
                None => Err(io::Error::other("its configuration is gone")),
                Some(plan) if child.kind == Kind::Proof => {
                    let parcel = self.parcel(Way::Forward, None);
                    parcel.and_then(|parcel| self.launcher.prove(plan, &parcel))
                }
                Some(plan) => self.launcher.fork(&child.clone(), plan),
            },
        };
        match made {
            Ok((pid, link)) => {
                self.inbox.listen(id, link);
                Event::Forked(id, pid)
            }
            Err(error) => Event::ForkFailed(id, error.to_string()),
        }
    }

    fn load(&mut self) -> Event {
        self.reload_begins();
        self.notify.reloading();
        let next = self.newest + 1;
        let read = (self.load)().and_then(|mut plan| {
            self.launcher.addresses.prepare(self.state.generation, next, &plan.listen)?;
            let counts = self.launcher.counts.prepare(next, plan.worker.limits.as_ref());
            counts.map_err(|error| format!("limits: {error}"))?;
            if self.state.rolls_engine(&plan.shape) {
                self.launcher.engines.prepare(next).map_err(|error| format!("a new engine's socket: {error}"))?;
            }
            self.launcher.engines.lead(next, &mut plan.worker.chat);
            Ok(plan)
        });
        match read {
            Err(reason) => {
                self.forget(next);
                Event::LoadRefused(reason)
            }
            Ok(plan) => {
                plan.warnings.iter().for_each(Notice::log);
                self.newest = next;
                let shape = plan.shape.clone();
                self.plans.insert(next, plan);
                Event::Loaded(next, shape)
            }
        }
    }

    fn forget(&mut self, generation: u32) {
        self.plans.remove(&generation);
        self.launcher.addresses.forget(generation);
        self.launcher.counts.forget(generation);
        self.launcher.engines.forget(generation);
    }

    /// Workers whose loops have been silent for too long; once a second, or as often as a watchdog wants.
    fn scan(&mut self) -> Vec<Event> {
        let now = clock::monotonic();
        if now < self.next_scan {
            return Vec::new();
        }
        self.next_scan = now + self.notify.every().unwrap_or(SCAN).min(SCAN);
        self.witness.look(now);
        let silent = match self.state.phase() {
            Phase::Stopping => Vec::new(),
            _ => {
                self.launcher.counts.sweep();
                self.silent(now).into_iter().chain(self.heavy()).collect()
            }
        };
        // Only now: the loop turned, and every heartbeat was looked at.
        self.tell_systemd_how_it_goes(now);
        silent
    }

    fn silent(&self, now: Duration) -> Vec<Event> {
        let now_ms = now.as_millis() as u64;
        let limit = self.state.shape().hang_timeout;
        let silence = |slot: usize| {
            let slot = self.launcher.board.slot(slot);
            let lanes = (0..slot.lane_count()).map(|number| slot.lane(number).silent_ms(now_ms));
            Duration::from_millis(lanes.max().unwrap_or(0))
        };
        let silent = self.state.watched().map(|(id, slot)| (id, silence(slot))).filter(|(_, silence)| *silence > limit);
        silent.map(|(id, silence)| Event::Silent(id, silence)).collect()
    }

    /// Workers that hold more memory than one may, by the kernel's word.
    fn heavy(&self) -> Vec<Event> {
        let most = self.state.shape().rss_bytes_max;
        if most == 0 {
            return Vec::new();
        }
        let pid = |id| self.state.child(id).map_or(0, |child| child.pid);
        let rss = self.state.watched().filter_map(|(id, _)| Some((id, process::rss_bytes(pid(id))?)));
        let heavy = rss.filter(|(_, bytes)| *bytes > most);
        heavy.map(|(id, bytes)| Event::Worn(id, format!("it held {} MiB", bytes >> 20))).collect()
    }
}

/// The state of an engine before its first start, for workers that come up earlier.
pub fn engine_expected(plan: &Plan) -> EngineState {
    match plan.engine {
        Some(_) => EngineState::Loading,
        None => EngineState::Absent,
    }
}
