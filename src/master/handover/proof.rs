//! `chatcorn proof`: a new program shows that it could take over, and touches nothing.
//!
//! It reads the parcel and the configuration, looks at the shared memory, and boots one worker: with a socket that
//! nobody knows, a board and limits of its own and an empty store, so that nothing real is served, counted or migrated.

use super::Parcel;
use crate::board::Board;
use crate::chat::store;
use crate::limit::Shared;
use crate::listener::{self, Address, Listener};
use crate::log::pipe::Pipes;
use crate::master::Plan;
use crate::master::addresses::Addresses;
use crate::master::counts::Counts;
use crate::master::engines::Engines;
use crate::master::launch::Launcher;
use crate::master::roster::{Child, Kind, Life};
use crate::sys::{clock, fd, process, wait};
use crate::worker::link::{self, Received, ToMaster};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// The variable that says which descriptor leads to the master that started the proof.
pub const LINK_VARIABLE: &str = "CHATCORN_PROOF_LINK";

/// Proves that a server could go on with `plan`.
///
/// # Errors
/// A sentence that says what would not stand.
pub fn run(parcel: &Parcel, plan: Plan) -> Result<(), String> {
    let place = Place::make().map_err(|error| format!("no room for a proof: {error}"))?;
    look(parcel, &plan).and_then(|()| boot(parcel, plan, &place))
}

/// Tells the master that started this proof how it went.
///
/// # Errors
/// Nobody listens.
pub fn tell(result: &Result<(), String>) -> Result<(), String> {
    let number = std::env::var(LINK_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(-1);
    let word = result.clone().map_or_else(ToMaster::Failed, |()| ToMaster::Ready);
    let said = fd::duplicate(number).and_then(|link| link::say(&link, &word.encode()));
    said.map_err(|error| format!("nobody asked for a proof: {error}"))
}

/// Whether this program understands what it would be given.
fn look(parcel: &Parcel, plan: &Plan) -> Result<(), String> {
    parcel.mind().map_err(|error| format!("the running master's state: {error}"))?;
    let board = fd::duplicate(parcel.descriptors.board).and_then(Board::adopt);
    board.map_err(|error| format!("the running server's board: {error}"))?;
    if let (Some(raw), Some(limits)) = (parcel.descriptors.limits, &plan.worker.limits) {
        let adopted = fd::duplicate(raw).and_then(|file| Shared::fits(file, limits));
        adopted.map_err(|error| format!("the running server's limits: {error}"))?;
    }
    Ok(())
}

fn boot(parcel: &Parcel, mut plan: Plan, place: &Place) -> Result<(), String> {
    let told = |error: io::Error| format!("a first worker: {error}");
    plan.worker.store.place = store::Place::File(place.0.join("proof.db"));
    store::migrate(&plan.worker.store).map_err(|error| format!("an empty store: {error}"))?;
    place.give_to(plan.identity).map_err(told)?;
    let (mut launcher, limit) = (launcher(parcel, &plan).map_err(told)?, plan.shape.boot_timeout);
    let (pid, link) = launcher.fork(&canary(), &plan).map_err(told)?;
    let ready = await_ready(&link, limit);
    process::kill(pid, Signal::SIGKILL);
    let ended = wait::until_ended(pid);
    ready.map_err(|reason| match ended {
        Some(how) if reason.is_empty() => format!("its first worker ended before it was ready: {how}"),
        _ => format!("its first worker: {reason}"),
    })
}

fn launcher(parcel: &Parcel, plan: &Plan) -> io::Result<Launcher> {
    let socket: OwnedFd = listener::private_socket()?.into();
    Ok(Launcher {
        board: Board::create()?,
        counts: Counts::new(0, plan.worker.limits.as_ref().map(Shared::create).transpose()?),
        addresses: Addresses::new(0, vec![Listener::adopt(Address::Unix(PathBuf::from("proof")), socket)]),
        pipes: Pipes::new(),
        log_link: None,
        engines: Engines::default(),
        master: std::process::id() as i32,
        origin: parcel.origin.clone(),
    })
}

fn canary() -> Child {
    let life = Life::Booting(Duration::ZERO);
    let since = clock::monotonic();
    let (ended_for, failed, worn) = (None, None, None);
    Child {
        id: 0,
        kind: Kind::Worker,
        pid: 0,
        slot: 0,
        generation: 0,
        life,
        since,
        was_ready: false,
        ended_for,
        failed,
        worn,
    }
}

/// The reason is empty when the worker ended without a word.
fn await_ready(link: &OwnedFd, limit: Duration) -> Result<(), String> {
    let end = clock::monotonic() + limit;
    loop {
        match link::take(link) {
            Received::Closed => return Err(String::new()),
            Received::Packet(packet) => match ToMaster::decode(&packet) {
                Some(ToMaster::Ready) => return Ok(()),
                Some(ToMaster::Failed(reason)) => return Err(reason),
                Some(ToMaster::Limits { .. } | ToMaster::Worn(_)) | None => {}
            },
            Received::Nothing => {
                let left = end.saturating_sub(clock::monotonic());
                if left.is_zero() {
                    return Err("it was not ready in time".into());
                }
                let left = PollTimeout::try_from(left.as_millis().min(1000) as i32 + 1).unwrap_or(PollTimeout::ZERO);
                let _ = poll(&mut [PollFd::new(link.as_fd(), PollFlags::POLLIN)], left);
            }
        }
    }
}

/// A directory for the empty store; it goes with the proof.
struct Place(PathBuf);

impl Place {
    fn make() -> io::Result<Place> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("chatcorn-proof-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Place(path))
    }

    /// The worker may not be root.
    fn give_to(&self, identity: Option<process::Identity>) -> io::Result<()> {
        let Some(identity) = identity else { return Ok(()) };
        let give = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(identity.uid), Some(identity.gid));
        give(&self.0)?;
        std::fs::read_dir(&self.0)?.try_for_each(|entry| give(&entry?.path()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
