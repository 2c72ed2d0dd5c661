//! What a child is and gives up: its parent's death, its user, new privileges, its place before the OOM killer.

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Pid, Uid, User, getppid, setgid, setgroups, setpgid, setuid};
use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// The user and group that children run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Looks a user and group up, by name or number.
///
/// # Errors
/// A sentence that names the unknown one.
pub fn identity(user: &str, group: Option<&str>) -> Result<Identity, String> {
    let found = match user.parse::<u32>() {
        Ok(uid) => {
            User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| (uid, u.gid.as_raw())).or(Some((uid, uid)))
        }
        Err(_) => User::from_name(user).ok().flatten().map(|u| (u.uid.as_raw(), u.gid.as_raw())),
    };
    let (uid, own) = found.ok_or_else(|| format!("there is no user {user:?}"))?;
    let gid = match group {
        None => own,
        Some(name) => match name.parse::<u32>() {
            Ok(gid) => gid,
            Err(_) => Group::from_name(name)
                .ok()
                .flatten()
                .map(|g| g.gid.as_raw())
                .ok_or_else(|| format!("there is no group {name:?}"))?,
        },
    };
    Ok(Identity { uid, gid })
}

/// Drops to `identity`: supplementary groups, group, user, in this order, for the user may not do the others.
///
/// # Errors
/// Not permitted. The caller must leave: a half-dropped process serves nobody.
pub fn drop_to(identity: Identity) -> io::Result<()> {
    setgroups(&[Gid::from_raw(identity.gid)])?;
    setgid(Gid::from_raw(identity.gid))?;
    setuid(Uid::from_raw(identity.uid))?;
    Ok(())
}

/// No program that this process executes can gain privileges.
///
/// # Errors
/// Kernels without it.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// The kernel kills this process when its parent dies. Set after the user is dropped, which clears it; then looks
/// whether the parent died before.
///
/// # Errors
/// `Other` when `parent` is gone already.
pub fn die_with_parent(parent: i32) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid().as_raw() != parent {
        return Err(io::Error::other("the master is gone"));
    }
    Ok(())
}

/// Joins the process group that `leader` leads, waits for the death of `parent`, and ends that group, this process with
/// it. Only the kernel's own SIGKILL ends it sooner: every signal is blocked, and one that the group gets means nothing.
///
/// # Errors
/// No such group any more.
pub fn end_group_with_parent(leader: i32, parent: i32) -> io::Result<Infallible> {
    let told = Signal::SIGUSR1;
    super::signal::block_all()?;
    setpgid(Pid::from_raw(0), Pid::from_raw(leader))?;
    prctl::set_pdeathsig(told)?;
    while getppid().as_raw() == parent {
        SigSet::from(told).wait()?;
    }
    // Its own group, by 0: this process is a member, so the number cannot be another's.
    nix::sys::signal::kill(Pid::from_raw(0), Signal::SIGKILL)?;
    Err(io::Error::other("killed, and alive"))
}

/// Raises how soon the kernel chooses this process when memory runs out, by `more` of its thousandths, so that another
/// one is spared. Anybody may raise his own; proc(5).
///
/// # Errors
/// No /proc, or not writable.
pub fn die_sooner(more: i32) -> io::Result<()> {
    const PATH: &str = "/proc/self/oom_score_adj";
    const HIGHEST: i32 = 1000;
    let now: i32 = std::fs::read_to_string(PATH)?.trim().parse().map_err(io::Error::other)?;
    std::fs::write(PATH, (now + more).min(HIGHEST).to_string())
}

/// How a thread that wakes comes to a core that another one uses; sched(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waking {
    /// It takes the core, if it had less than its share (`SCHED_OTHER`).
    Takes,
    /// It waits for the other's turn to end (`SCHED_BATCH`): fewer changes between threads, and more to do at each.
    Waits,
}

impl Waking {
    fn policy(self) -> u32 {
        match self {
            Waking::Takes => libc::SCHED_OTHER as u32,
            Waking::Waits => libc::SCHED_BATCH as u32,
        }
    }
}

/// This thread, and those it begins later, run for so long at a stretch while others wait for the core, if the kernel takes
/// wishes (Linux 6.12 and later; sched(7), `sched_setattr(2)`), and come to a core as `to` says. Who asks for less comes to its
/// turn sooner; its share stays the same. A thread that does not come to it as `from` says keeps what somebody chose: false.
///
/// # Errors
/// The kernel knows no such call, or a sandbox forbids it.
pub fn take_turns(turn: Duration, from: Waking, to: Waking) -> io::Result<bool> {
    const OURSELVES: libc::pid_t = 0;
    const NO_FLAGS: libc::c_uint = 0;
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    let mut wish = MaybeUninit::<libc::sched_attr>::zeroed();
    // SAFETY: the kernel writes at most `size` bytes to `wish`, which has as many and is ours.
    let read = unsafe { libc::syscall(libc::SYS_sched_getattr, OURSELVES, wish.as_mut_ptr(), size, NO_FLAGS) };
    Errno::result(read)?;
    // SAFETY: all of it is integers, which zeros are, too; the kernel has written what it knows.
    let mut wish = unsafe { wish.assume_init() };
    if wish.sched_policy != from.policy() {
        return Ok(false);
    }
    // The nice value goes back as it came.
    wish.sched_policy = to.policy();
    wish.sched_runtime = turn.as_nanos() as u64;
    // SAFETY: the kernel reads `size` bytes, which `wish` says of itself, and keeps nothing of them.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, OURSELVES, &raw const wish, NO_FLAGS) })?;
    Ok(true)
}

/// Neither this process nor a child leaves a core file: it would hold every secret.
///
/// # Errors
/// None that the kernel documents for these arguments.
pub fn no_core() -> io::Result<()> {
    use nix::sys::resource::{Resource, setrlimit};
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// Names this process in `ps` and `top` (15 bytes at most).
pub fn name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = prctl::set_name(&name);
    }
}

/// This process's effective user.
pub fn uid() -> u32 {
    Uid::effective().as_raw()
}

/// A user's name, or the number where there is none.
pub fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// The user at the other end of a Unix socket, as it was when that end was connected.
///
/// # Errors
/// Not a Unix socket.
pub fn peer(stream: &impl std::os::fd::AsFd) -> io::Result<u32> {
    Ok(getsockopt(stream, sockopt::PeerCredentials)?.uid())
}

/// Resident memory in bytes, from proc(5); `None` for a process that is gone.
pub fn rss_bytes(pid: i32) -> Option<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages * page as u64)
}

/// True when this process is root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Sends `signal` to a child of ours. The caller knows that it is not reaped yet, so the number is still its own.
pub fn kill(pid: i32, signal: Signal) -> bool {
    pid > 1 && nix::sys::signal::kill(Pid::from_raw(pid), signal).is_ok()
}

/// Sends `signal` to the process group that a child of ours leads. The caller knows that the child is not reaped yet.
pub fn kill_group(leader: i32, signal: Signal) -> bool {
    leader > 1 && nix::sys::signal::killpg(Pid::from_raw(leader), signal).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_what_it_begins_take_short_turns_where_the_kernel_grants_them() {
        let turn_ns = || {
            let all = std::fs::read_to_string("/proc/thread-self/sched").unwrap_or_default();
            let line = all.lines().find(|line| line.starts_with("se.slice"))?.rsplit(' ').next()?.to_owned();
            line.parse::<u64>().ok()
        };
        let before = turn_ns();
        let told = std::thread::spawn(move || {
            assert!(take_turns(Duration::from_micros(700), Waking::Takes, Waking::Takes).unwrap());
            (turn_ns(), std::thread::spawn(turn_ns).join().unwrap())
        });
        let told = told.join().unwrap();
        let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
        let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        let takes = (numbers.next(), numbers.next()) >= (Some(6), Some(12));
        let expected = before.map(|before| if takes { 700_000 } else { before });
        assert_eq!(told, (expected, expected), "{release}");
    }
    #[test]
    fn a_thread_waits_and_takes_as_it_is_told_unless_somebody_chose() {
        let policy = || {
            // SAFETY: the call takes a number and gives one.
            unsafe { libc::sched_getscheduler(0) }
        };
        let turn = Duration::from_millis(1);
        std::thread::spawn(move || {
            assert!(take_turns(turn, Waking::Takes, Waking::Waits).unwrap());
            assert_eq!(policy(), libc::SCHED_BATCH);
            assert!(!take_turns(turn, Waking::Takes, Waking::Takes).unwrap(), "it is not as it was said");
            assert_eq!(policy(), libc::SCHED_BATCH);
            assert!(take_turns(turn, Waking::Waits, Waking::Takes).unwrap());
            assert_eq!(policy(), libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
    }
}
