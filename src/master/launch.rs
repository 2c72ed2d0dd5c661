//! Children: what each kind is given and becomes. The one place that forks.

use super::Plan;
use super::addresses::Addresses;
use super::counts::Counts;
use super::handover::{Origin, Parcel, proof};
use super::roster::{Child, Kind};
use crate::board::{Board, Sender};
use crate::chat::store;
use crate::engine::command::{self, Command};
use crate::engine::{self, SETTINGS_VARIABLE, Settings};
use crate::log::writer;
use crate::log::{self, pipe, pipe::Pipes};
use crate::sys::fork::{fork_child, leave};
use crate::sys::{exec, fd, process, signal};
use crate::worker::link::{self, ToMaster};
use crate::worker::{self, Kit};
use nix::sys::signal::Signal;
use socket2::Socket;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How much sooner than the master a child dies when memory runs out, in thousandths: what is left is replaced, and the
/// master never chosen.
const SPARED_BY: i32 = 300;

/// What children are made from.
pub struct Launcher {
    /// What all see.
    pub board: Board,
    /// What all workers count in.
    pub counts: Counts,
    /// The shared sockets.
    pub addresses: Addresses,
    /// One a sender, kept over restarts.
    pub pipes: Pipes,
    /// To the log process that lives, to hand it new pipes.
    pub log_link: Option<OwnedFd>,
    /// The engine's listening socket, kept over its restarts.
    pub engine_socket: Option<Socket>,
    /// This process.
    pub master: i32,
    /// How it was started.
    pub origin: Origin,
}

/// A child that was made: its process id and the master's end of its link.
pub type Made = (i32, OwnedFd);

impl Launcher {
    /// Makes a child.
    ///
    /// # Errors
    /// Out of processes, descriptors or memory.
    pub fn fork(&mut self, child: &Child, plan: &Plan) -> io::Result<Made> {
        match child.kind {
            Kind::Log => self.log(plan),
            Kind::Migration => self.migration(plan),
            Kind::Engine => self.engine(plan),
            Kind::Worker => self.worker(plan, child),
            Kind::Proof => Err(io::Error::other("a proof needs a parcel")),
        }
    }

    fn log(&mut self, plan: &Plan) -> io::Result<Made> {
        self.pipes.ensure(Sender::Master)?;
        let (ours, theirs) = fd::packet_pair()?;
        let readers: Vec<(Sender, RawFd)> =
            self.pipes.readers().into_iter().map(|(s, fd)| (s, fd.as_raw_fd())).collect();
        let keep: Vec<RawFd> = readers.iter().map(|(_, fd)| *fd).chain([theirs.as_raw_fd()]).collect();
        let pid = self.child("log", plan, &keep, false, || {
            let adopt = |(sender, fd)| fd::adopt(fd).ok().map(|fd| (sender, fd));
            let readers = readers.iter().copied().filter_map(adopt).collect();
            let _ = signal::ignore(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP]);
            let _ = signal::unblock_all();
            Ok(writer::run(&plan.log, self.board, readers, theirs.try_clone()?))
        })?;
        self.log_link = Some(ours.try_clone()?);
        Ok((pid, ours))
    }

    fn worker(&mut self, plan: &Plan, child: &Child) -> io::Result<Made> {
        let slot = child.slot;
        let writer = self.log_end(Sender::Slot(slot))?;
        let listeners = self.addresses.of(child.generation).iter();
        let sockets = listeners.map(|listener| listener.gate()).collect::<io::Result<Vec<_>>>()?;
        let (ours, theirs) = fd::packet_pair()?;
        self.board.open(slot);
        let keep: Vec<RawFd> = sockets
            .iter()
            .map(|gate| gate.socket.as_raw_fd())
            .chain([writer.as_raw_fd(), theirs.as_raw_fd()])
            .collect();
        let kit = Kit {
            plan: plan.worker.clone(),
            listeners: sockets,
            link: theirs,
            log: writer,
            limits: self.counts.of(child.generation),
            board: self.board,
            slot,
        };
        let mut kit = Some(kit);
        let pid = self.child(&format!("worker {slot}"), plan, &keep, true, || {
            let kit = kit.take().ok_or_else(|| io::Error::other("a worker starts once"))?;
            fd::place(&kit.log, 1)?;
            fd::place(&kit.log, 2)?;
            Ok(worker::run(kit))
        })?;
        Ok((pid, ours))
    }

    /// Brings the schema up to date and ends; a failure is told over the link.
    fn migration(&mut self, plan: &Plan) -> io::Result<Made> {
        let writer = self.log_end(Sender::Master)?;
        let (ours, theirs) = fd::packet_pair()?;
        let pid = self.child("migration", plan, &[writer.as_raw_fd(), theirs.as_raw_fd()], true, || {
            fd::place(&writer, 1)?;
            fd::place(&writer, 2)?;
            signal::unblock_all()?;
            match store::migrate(&plan.worker.store) {
                // Whoever reaches the server later does it then; chat answers 503 until one can.
                Ok(_) | Err(store::StoreError::Away(_)) => Ok(0),
                Err(error) => {
                    link::say(&theirs, &ToMaster::Failed(error.to_string()).encode())?;
                    Ok(1)
                }
            }
        })?;
        Ok((pid, ours))
    }

    /// The program that an upgrade would start, as a child of which nothing depends. It keeps this process's user, as
    /// the master that it would become.
    ///
    /// # Errors
    /// As [`Launcher::fork`].
    pub fn prove(&mut self, plan: &Plan, parcel: &Parcel) -> io::Result<Made> {
        let writer = self.log_end(Sender::Master)?;
        let (ours, theirs) = fd::packet_pair()?;
        let file = parcel.seal()?;
        let shared: Vec<RawFd> =
            [Some(parcel.descriptors.board), parcel.descriptors.limits].into_iter().flatten().collect();
        let keep: Vec<RawFd> =
            shared.iter().copied().chain([file.as_raw_fd(), writer.as_raw_fd(), theirs.as_raw_fd()]).collect();
        let plan = Plan { identity: None, ..plan.clone() };
        let pid = self.child("proof", &plan, &keep, true, || {
            fd::place(&writer, 1)?;
            fd::place(&writer, 2)?;
            let inherited = [file.as_raw_fd(), theirs.as_raw_fd()];
            shared.iter().copied().chain(inherited).try_for_each(fd::keep_over_exec)?;
            signal::unblock_all()?;
            let mut environment = self.origin.shown_with(file.as_raw_fd());
            environment.push((proof::LINK_VARIABLE.into(), theirs.as_raw_fd().to_string().into()));
            let args: Vec<OsString> = vec!["chatcorn".into(), "proof".into()];
            let program = &self.origin.program;
            let error = match exec::exec(program.as_os_str(), &args, &environment) {
                Ok(never) => match never {},
                Err(error) => error,
            };
            link::say(&theirs, &ToMaster::Failed(format!("{}: {error}", program.display())).encode())?;
            Ok(1)
        })?;
        Ok((pid, ours))
    }

    fn engine(&mut self, plan: &Plan) -> io::Result<Made> {
        let (engine, socket) = match (&plan.engine, &self.engine_socket) {
            (Some(engine::Plan::Own(engine)), Some(socket)) => (engine, socket),
            (Some(engine::Plan::Command(command)), _) => return self.engine_command(plan, command),
            _ => return Err(io::Error::other("no engine is configured")),
        };
        let socket = socket.try_clone()?;
        let writer = self.log_end(Sender::Engine)?;
        let (ours, theirs) = fd::packet_pair()?;
        let board = std::os::fd::AsFd::as_fd(&self.board).as_raw_fd();
        let keep = [socket.as_raw_fd(), writer.as_raw_fd(), theirs.as_raw_fd(), board];
        let pid = self.child("engine", plan, &keep, true, || {
            fd::place(&writer, 1)?;
            fd::place(&writer, 2)?;
            for inherited in [socket.as_raw_fd(), theirs.as_raw_fd(), board] {
                fd::keep_over_exec(inherited)?;
            }
            let settings = Settings {
                listener_fd: socket.as_raw_fd(),
                link_fd: theirs.as_raw_fd(),
                board_fd: board,
                ..engine.clone()
            };
            let mut environment = plan.environment.clone();
            environment.push((SETTINGS_VARIABLE.into(), settings.to_json().into()));
            environment.push((log::PLAN_VARIABLE.into(), plan.log.to_words().into()));
            signal::unblock_all()?;
            let args: Vec<OsString> = vec!["chatcorn".into(), "engine".into()];
            match exec::exec(OsStr::new("/proc/self/exe"), &args, &environment)? {}
        })?;
        Ok((pid, ours))
    }

    /// The keeper of another engine; see [`command`].
    fn engine_command(&mut self, plan: &Plan, command: &Command) -> io::Result<Made> {
        let writer = self.log_end(Sender::Engine)?;
        let (ours, theirs) = fd::packet_pair()?;
        let board = self.board;
        let pid = self.child("engine", plan, &[writer.as_raw_fd(), theirs.as_raw_fd()], true, || {
            fd::place(&writer, 1)?;
            fd::place(&writer, 2)?;
            let log =
                || log::start(&plan.log, Sender::Engine, writer.try_clone().map_err(|error| error.to_string())?, board);
            command::run(command, &plan.environment, theirs.try_clone()?, log)
        })?;
        Ok((pid, ours))
    }

    /// A sender's end of its pipe; a new pipe is told to the log process that lives.
    fn log_end(&mut self, sender: Sender) -> io::Result<OwnedFd> {
        let new = self.pipes.ensure(sender)?;
        if let (true, Some(link)) = (new, &self.log_link)
            && let Some((_, reader)) = self.pipes.readers().into_iter().find(|(other, _)| *other == sender)
        {
            // A log process that just died is replaced by one that gets all of them.
            let _ = pipe::hand_over(link, sender, reader);
        }
        let writer = self.pipes.writer(sender).ok_or_else(|| io::Error::other("a pipe was closed"))?;
        writer.try_clone_to_owned()
    }

    /// Forks; in the child gives up what it must not have and runs `main`, whose value is its exit code.
    fn child(
        &self,
        name: &str,
        plan: &Plan,
        keep: &[RawFd],
        dies_with_master: bool,
        main: impl FnOnce() -> io::Result<i32>,
    ) -> io::Result<i32> {
        let (identity, master) = (plan.identity, self.master);
        let pid = fork_child(|| -> Infallible {
            process::name(name);
            fd::close_all_but(keep);
            // Before the user is dropped: who was root may not write his own afterwards.
            let _ = process::die_sooner(SPARED_BY);
            let begun = identity
                .map_or(Ok(()), process::drop_to)
                .and_then(|()| process::no_new_privileges())
                .and_then(|()| if dies_with_master { process::die_with_parent(master) } else { Ok(()) });
            match begun.and_then(|()| main()) {
                Ok(code) => leave(code),
                Err(error) => {
                    // Its stderr is a log pipe by now, or the terminal.
                    eprintln!("chatcorn {name}: {error}");
                    leave(1)
                }
            }
        })?;
        Ok(pid.as_raw())
    }
}
