//! fork has one address. A child's main has no way back.

use super::signal;
use nix::unistd::{ForkResult, Pid, fork, setpgid};
use std::convert::Infallible;
use std::io;

/// Forks a child that runs `main` and ends there.
///
/// In the child, before `main`: signals stay blocked (the child's main unblocks what it knows, by
/// [`signal::SelfPipe`]), inherited signal actions are forgotten, every disposition is reset, and the child
/// leads its own process group, so that a terminal's Ctrl-C is the master's alone.
///
/// # Errors
/// The kernel's (out of processes or memory), or `Other` when this process has more than one thread: a fork would
/// copy locks that other threads hold.
pub fn fork_child(main: impl FnOnce() -> Infallible) -> io::Result<Pid> {
    if threads()? != 1 {
        return Err(io::Error::other("fork refused: this process has more than one thread"));
    }
    let blocked = signal::block_all()?;
    // SAFETY: one thread, checked above from /proc/self/task: no lock is held by a thread that the child lacks,
    // and no runtime, random generator or connection exists before worker::run.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => {
            // Both sides set the group, so that it stands whoever runs first; the child's own call decides.
            let _ = setpgid(child, child);
            signal::restore(&blocked)?;
            Ok(child)
        }
        Ok(ForkResult::Child) => become_child(main),
        Err(error) => {
            signal::restore(&blocked)?;
            Err(error.into())
        }
    }
}

fn become_child(main: impl FnOnce() -> Infallible) -> ! {
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    signal::forget_inherited();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(main));
    match caught {
        Ok(never) => match never {},
        Err(_) => leave(CHILD_PANICKED),
    }
}

/// Exit code of a child whose main panicked (the code that Rust's own runtime uses).
pub const CHILD_PANICKED: i32 = 101;

/// Ends this process at once: no destructor, no exit handler, no buffer of the parent's flushed twice.
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of ours.
    unsafe { nix::libc::_exit(code) }
}

/// Threads of this process.
fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
