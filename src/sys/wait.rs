//! Reaping: every child that has ended, ours or adopted, and how.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It returned or exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Code(code) => write!(f, "exit code {code}"),
            How::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(named) => write!(f, "signal {signal} ({})", named.as_str()),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// A process that has ended and is reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its process id; free for reuse from now on.
    pub pid: i32,
    /// Exit code or signal.
    pub how: How,
}

/// Waits for the end of a child that was just killed.
pub fn until_ended(pid: i32) -> Option<How> {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Some(How::Code(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(How::Signal(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// True when this child has ended; it is not reaped by this, so its process id stays its own.
pub fn has_ended(pid: i32) -> bool {
    let look = WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    !matches!(waitid(Id::Pid(Pid::from_raw(pid)), look), Ok(WaitStatus::StillAlive))
}

/// Reaps every child that has ended, without waiting. As PID 1 that includes orphans: the caller must ignore
/// process ids that it does not know.
pub fn reap() -> Vec<Exit> {
    let mut ended = Vec::new();
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push(Exit { pid: pid.as_raw(), how: How::Code(code) }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                ended.push(Exit { pid: pid.as_raw(), how: How::Signal(signal as i32) });
            }
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}
