//! Replacing the program under a running server: same process, same children, same sockets.
//!
//! ```text
//! master (old)  ── parcel: sealed memfd ──▶ child: `chatcorn proof` (new) ── boots a canary ── "ready", 0
//!   │ everything heard, signals blocked
//!   └─ execve (new) ── parcel ──▶ master (new) ── reload rolls workers and log process ──▶ done
//!                                   └─ canary fails ── execve (old, by its kept descriptor) ── parcel ──▶ as before
//! ```
//! A process keeps its id, its children and its open descriptors over an execve, so nobody outside notices. What
//! cannot be read (another version, another layout of the shared memory) is refused by the proof, with nothing touched.
//! Deliberately absent: a second master, and a copy of a secret anywhere but in the sealed memory.

mod parcel;
pub mod proof;

pub use parcel::{Parcel, VARIABLE};

use super::Master;
use super::addresses::Addresses;
use super::control::Control;
use super::counts::Counts;
use super::death::Witness;
use super::engines::Engines;
use super::inbox::Inbox;
use super::launch::Launcher;
use super::notify::Notify;
use super::state::Event;
use super::upgrade::Way;
use super::{Load, Plan};
use crate::board::{Board, Sender};
use crate::limit::Shared;
use crate::listener::Listener;
use crate::log::{self, pipe::Pipes};
use crate::sys::{clock, exec, fd, signal};
use parcel::Descriptors;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

/// How this program was started: what a successor needs to be started alike.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Its command line.
    pub arguments: Vec<OsString>,
    /// Its environment, secrets included.
    pub environment: Vec<(OsString, OsString)>,
    /// The same as other processes may see it.
    pub shown: Vec<(OsString, OsString)>,
    /// The file that an upgrade starts.
    pub program: PathBuf,
}

impl Origin {
    /// The environment of a program that gets a parcel. What a program on the way added is not in it.
    pub(super) fn shown_with(&self, parcel: RawFd) -> Vec<(OsString, OsString)> {
        let shown = self.shown.iter().filter(|(name, _)| name != VARIABLE).cloned();
        shown.chain([(OsString::from(VARIABLE), OsString::from(parcel.to_string()))]).collect()
    }
}

impl Master {
    /// Replaces the program; returns only when that has to wait or cannot be.
    pub(super) fn replace(&mut self, way: Way) -> io::Result<Vec<Event>> {
        let former = signal::block_all()?;
        // What was heard already must not be lost with this program; what comes from now on waits in the kernel.
        let mut late = self.inbox.next(Some(clock::monotonic()))?;
        late.retain(|event| *event != Event::Tick);
        if !late.is_empty() || self.inbox.has_asked() {
            signal::restore(&former)?;
            return Ok(late);
        }
        let failed = match self.execute(way) {
            Ok(never) => match never {},
            Err(error) => format!("{}: {error}", self.origin.program.display()),
        };
        signal::restore(&former)?;
        Ok(vec![Event::ReplaceFailed(failed)])
    }

    fn execute(&mut self, way: Way) -> io::Result<std::convert::Infallible> {
        let old = match (way, self.former.take()) {
            (Way::Back, Some(former)) => former,
            _ => exec::own_program()?,
        };
        let parcel = self.parcel(way, Some(old.as_raw_fd()))?;
        let file = parcel.seal()?;
        let kept: Vec<RawFd> = parcel.descriptors.all().chain([file.as_raw_fd()]).collect();
        kept.iter().try_for_each(|raw| fd::keep_over_exec(*raw))?;
        let environment = self.origin.shown_with(file.as_raw_fd());
        let failed = match way {
            Way::Forward => exec::exec(self.origin.program.as_os_str(), &self.origin.arguments, &environment),
            Way::Back => exec::exec_descriptor(&old, &self.origin.arguments, &environment),
        };
        kept.iter().try_for_each(|raw| fd::close_on_exec(*raw))?;
        failed
    }

    /// Everything that a successor needs.
    pub(super) fn parcel(&self, way: Way, old: Option<RawFd>) -> io::Result<Parcel> {
        let launcher = &self.launcher;
        let raw = |owned: &OwnedFd| owned.as_raw_fd();
        let listeners = launcher.addresses.of(self.state.generation);
        let descriptors = Descriptors {
            old,
            listeners: listeners.iter().map(|l| (l.asked().clone(), l.as_raw_fd())).collect(),
            board: launcher.board.as_fd().as_raw_fd(),
            limits: launcher.counts.memory().map(|limits| limits.as_fd().as_raw_fd()),
            pipes: launcher.pipes.descriptors(),
            log_link: launcher.log_link.as_ref().map(raw),
            engine_socket: launcher.engines.of(self.state.generation).map(AsRawFd::as_raw_fd),
            links: self.inbox.descriptors(),
            control: self.inbox.control.descriptor(),
            calls: self.waiting_calls(),
        };
        Parcel::new(way, descriptors, self)
    }
}

/// Goes back to the former program because this one cannot take over; returns when that cannot be either.
pub fn give_back(mut parcel: Parcel, reason: &str) -> io::Error {
    let Some(old) = parcel.descriptors.old.filter(|_| parcel.way == Way::Forward) else {
        return io::Error::other(reason.to_owned());
    };
    parcel.refuse(reason);
    let gone = || -> io::Result<std::convert::Infallible> {
        signal::block_all()?;
        let file = parcel.seal()?;
        parcel.descriptors.all().chain([file.as_raw_fd()]).try_for_each(fd::keep_over_exec)?;
        exec::exec_descriptor(
            &fd::duplicate(old)?,
            &parcel.origin.arguments,
            &parcel.origin.shown_with(file.as_raw_fd()),
        )
    };
    match gone() {
        Ok(never) => match never {},
        Err(error) => io::Error::other(format!("{reason}; and the former program cannot be executed: {error}")),
    }
}

/// Goes on where the former program stopped; the value is the process's exit code.
///
/// # Errors
/// A descriptor of the parcel is not what it should be; nothing was touched, so the former program can go on.
pub fn resume(plan: Plan, parcel: &Parcel, load: Load) -> io::Result<Master> {
    let old = &parcel.descriptors;
    let mut pipes = Pipes::adopt(&old.pipes)?;
    pipes.ensure(Sender::Master)?;
    let own_end = pipes.writer(Sender::Master).ok_or_else(|| io::Error::other("no log pipe"))?.try_clone_to_owned()?;
    let board = Board::adopt(fd::duplicate(old.board)?)?;
    log::start(&plan.log, Sender::Master, own_end, board).map_err(io::Error::other)?;
    let limits = match (old.limits, &plan.worker.limits) {
        (Some(raw), Some(limits)) => Some(Shared::adopt(fd::duplicate(raw)?, limits)?),
        _ => None,
    };
    let (state, history) = parcel.mind()?;
    let listeners =
        old.listeners.iter().map(|(address, raw)| Ok(Listener::adopt(address.clone(), fd::duplicate(*raw)?)));
    let launcher = Launcher {
        board,
        counts: Counts::new(state.generation, limits),
        addresses: Addresses::new(state.generation, listeners.collect::<io::Result<_>>()?),
        pipes,
        log_link: old.log_link.map(fd::duplicate).transpose()?,
        engines: Engines::new(
            state.engine_since,
            old.engine_socket.map(fd::duplicate).transpose()?.map(socket2::Socket::from),
        ),
        master: std::process::id() as i32,
        origin: parcel.origin.clone(),
    };
    let control = Control::adopt(old.control, &plan.control, &old.calls);
    let links = old.links.iter().map(|(id, raw)| Ok((*id, fd::duplicate(*raw)?))).collect::<io::Result<_>>()?;
    let notify = Notify::from_environment(&parcel.origin.environment, state.announced);
    let former = old.old.filter(|_| parcel.way == Way::Forward).map(fd::duplicate).transpose()?;
    let inbox = Inbox::open(control, links)?;
    // Everything is held by a duplicate now: until here the former program could still have gone on.
    old.all().for_each(|raw| drop(fd::adopt(raw)));
    Ok(Master {
        launcher,
        inbox,
        plans: BTreeMap::from([(state.generation, plan)]),
        state,
        newest: parcel.newest,
        load,
        notify,
        remark: "",
        next_scan: Duration::ZERO,
        waiting: parcel.waiting(),
        history,
        witness: Witness::new(),
        started: parcel.started,
        origin: parcel.origin.clone(),
        former,
    })
}
