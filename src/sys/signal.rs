//! Signals as bytes: each handler writes its number to a pipe, and a loop reads it when it is ready to.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use signal_hook::{SigId, low_level};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

/// Actions that this process registered, so that a forked child can forget them: tokio and signal-hook share one
/// registry, and an inherited action would write a child's signals into the master's pipe.
static REGISTERED: Mutex<Vec<SigId>> = Mutex::new(Vec::new());

/// The read end of a pipe into which the registered signals arrive as their numbers, one byte each.
pub struct SelfPipe {
    read: OwnedFd,
    _write: OwnedFd,
}

impl SelfPipe {
    /// Registers `signals` and unblocks everything: what came while signals were blocked arrives now.
    ///
    /// # Errors
    /// Out of descriptors, or a signal that cannot be caught.
    pub fn open(signals: &[Signal]) -> io::Result<SelfPipe> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?;
        for signal in signals {
            register(*signal, write.as_raw_fd())?;
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(SelfPipe { read, _write: write })
    }

    /// Signals that have arrived, oldest first; a signal that came several times may be there several times.
    pub fn drain(&self) -> Vec<Signal> {
        let mut arrived = Vec::new();
        let mut bytes = [0u8; 64];
        while let Ok(count @ 1..) = nix::unistd::read(&self.read, &mut bytes) {
            arrived.extend(bytes[..count].iter().filter_map(|byte| Signal::try_from(i32::from(*byte)).ok()));
        }
        arrived
    }
}

impl AsFd for SelfPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

impl AsRawFd for SelfPipe {
    fn as_raw_fd(&self) -> i32 {
        self.read.as_raw_fd()
    }
}

fn register(signal: Signal, pipe: i32) -> io::Result<()> {
    let byte = [signal as i32 as u8];
    let action = move || {
        // SAFETY: write(2) is async-signal-safe; the pipe is non-blocking and lives as long as the process (a full
        // pipe loses nothing: what it holds already wakes the loop, and the loop handles a signal once).
        unsafe { nix::libc::write(pipe, byte.as_ptr().cast(), 1) };
    };
    // SAFETY: the action only calls write(2), touches no lock and allocates nothing.
    let id = unsafe { low_level::register(signal as i32, action) }?;
    if let Ok(mut registered) = REGISTERED.lock() {
        registered.push(id);
    }
    Ok(())
}

/// Ignores `signals` in this process.
///
/// # Errors
/// A signal that cannot be ignored.
pub fn ignore(signals: &[Signal]) -> io::Result<()> {
    signals.iter().try_for_each(|signal| dispose(*signal, SigHandler::SigIgn))
}

/// Unblocks every signal: for a child that catches none.
pub fn unblock_all() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Blocks every signal and returns the former mask; what comes meanwhile waits, over an exec too.
///
/// # Errors
/// None that the kernel documents for these arguments.
pub fn block_all() -> io::Result<SigSet> {
    let mut former = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut former))?;
    Ok(former)
}

/// Puts a mask from [`block_all`] back.
///
/// # Errors
/// As [`block_all`].
pub fn restore(mask: &SigSet) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None)?)
}

/// In a fresh child: drops the parent's actions and resets every disposition that the registry does not own.
///
/// A signal that the registry owns keeps the registry's handler, which now has nothing to do; resetting it would
/// make a later registration in the child silently do nothing.
pub(super) fn forget_inherited() {
    if let Ok(mut registered) = REGISTERED.lock() {
        for id in registered.drain(..) {
            low_level::unregister(id);
        }
    }
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        if !owned_by_registry(signal) {
            let _ = dispose(signal, SigHandler::SigDfl);
        }
    }
    let _ = dispose(Signal::SIGPIPE, SigHandler::SigIgn);
}

/// The signals that the master registers: their handler belongs to the registry for the life of the process.
pub const MASTER: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGCHLD,
];

fn owned_by_registry(signal: Signal) -> bool {
    MASTER.contains(&signal)
}

fn dispose(signal: Signal, handler: SigHandler) -> io::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: only SIG_IGN and SIG_DFL come here: no handler code runs.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
