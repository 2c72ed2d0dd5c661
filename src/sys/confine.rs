//! Walls around a child, by the kernel's own means: Landlock for files, ports and signals, seccomp for system calls.
//!
//! Both hold for the thread that asks and for whatever it starts: they come before the first other thread. A kernel
//! without them is no failure; the caller hears how much of it holds.
//!
//! Deliberately absent: a list of the system calls that are allowed. It would have to follow every C library; what is
//! denied here is what no worker of any version has a use for.

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};
use nix::libc;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest Landlock that is asked for (Linux 6.10); an older kernel does what it can.
const LANDLOCK: ABI = ABI::V5;
/// Set in a system call's number by the x32 calling convention: the same calls by another number.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// What a process may still open, with all that lies beneath; what does not exist is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// To read.
    pub reads: Vec<PathBuf>,
    /// To read, write, make and remove.
    pub writes: Vec<PathBuf>,
}

/// The directory that a file stands in: the working one where its path is a bare name.
pub fn directory_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// How much of what was asked the kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// All of it.
    Whole,
    /// What its version knows.
    Partly,
    /// Nothing: it has no Landlock, or Landlock is off.
    Not,
}

/// From now on this thread opens nothing but `places`, binds no TCP port, signals nobody outside and executes nothing.
/// Open descriptors and connections to anywhere stay as they are.
///
/// # Errors
/// The kernel's words.
pub fn to_places(places: &Places) -> Result<Held, String> {
    let (read, write) = (AccessFs::ReadFile | AccessFs::ReadDir, written());
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::BindTcp))
        .and_then(|ruleset| ruleset.scope(Scope::Signal))
        .and_then(Ruleset::create)
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&places.reads, read)))
        .and_then(|ruleset| ruleset.add_rules(path_beneath_rules(&places.writes, read | write)))
        .and_then(|ruleset| ruleset.restrict_self());
    match ruleset.map_err(|error| format!("Landlock: {error}"))?.ruleset {
        RulesetStatus::FullyEnforced => Ok(Held::Whole),
        RulesetStatus::PartiallyEnforced => Ok(Held::Partly),
        RulesetStatus::NotEnforced => Ok(Held::Not),
    }
}

/// Plain files and directories; no devices, sockets or pipes, and nothing that could be executed.
fn written() -> landlock::BitFlags<AccessFs> {
    AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::MakeDir
}

/// From now on this thread starts no process, traces none, signals none but its own, changes neither its user nor the
/// machine: each such call fails with `EPERM`. Needs `NO_NEW_PRIVS`.
///
/// # Errors
/// Not for this processor, or a kernel without seccomp.
pub fn to_calls_of_a_server() -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("seccomp: {error}");
    let refuse = |rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32| {
        let architecture = std::env::consts::ARCH.try_into().map_err(|error| told(&error))?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), architecture);
        let program: seccompiler::BpfProgram =
            filter.and_then(TryInto::try_into).map_err(|error: seccompiler::BackendError| told(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| told(&error))
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = DENIED.iter().map(|number| (*number, Vec::new())).collect();
    // A thread is welcome, a process is not.
    let process = one(0, Is::MaskedEq(libc::CLONE_THREAD as u64), 0);
    // How a C library aborts is a signal to a thread of its own.
    let stranger = one(0, Is::Ne, u64::from(std::process::id()));
    rules.insert(libc::SYS_clone, vec![process.map_err(|error| told(&error))?]);
    rules.insert(libc::SYS_tgkill, vec![stranger.map_err(|error| told(&error))?]);
    #[cfg(target_arch = "x86_64")]
    rules.extend(DENIED.iter().map(|number| (number | X32, Vec::new())).collect::<Vec<_>>());
    refuse(rules, libc::EPERM)?;
    // Its arguments stand in memory, where no filter sees them: a C library that finds it missing takes clone.
    refuse(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn one(argument: u8, is: Is, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, Length::Dword, is, value)?])
}

#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// By what they would be good for: other programs, other processes, another user, the file tree, the kernel itself.
#[rustfmt::skip]
const NEW: &[i64] = &[
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_memfd_secret,
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_kcmp,
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal, libc::SYS_pidfd_getfd,
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capset,
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_setns, libc::SYS_unshare,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_mknodat, libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    libc::SYS_quotactl, libc::SYS_fanotify_init,
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_bpf, libc::SYS_perf_event_open,
    libc::SYS_userfaultfd, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load,
    libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_syslog, libc::SYS_personality,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup, libc::SYS_mbind, libc::SYS_set_mempolicy,
    libc::SYS_migrate_pages, libc::SYS_move_pages,
];

static DENIED: std::sync::LazyLock<Vec<i64>> = std::sync::LazyLock::new(|| [OLD, NEW].concat());

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind::PermissionDenied;

    /// Walls hold for one thread, so a test may raise them in one of its own.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn nothing_is_opened_but_what_was_named() {
        let place = std::env::temp_dir().join(format!("chatcorn-confine-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let own = place.clone();
        let held = apart(move || {
            crate::sys::process::no_new_privileges().unwrap();
            let places = Places { reads: vec!["/nonexistent".into()], writes: vec![own.clone()] };
            let held = to_places(&places).unwrap();
            if held == Held::Not {
                return held;
            }
            let kind = |path: &str| std::fs::File::open(path).unwrap_err().kind();
            assert_eq!((kind("/etc/passwd"), kind("/proc/self/status")), (PermissionDenied, PermissionDenied));
            assert_eq!(std::fs::write("/tmp/chatcorn-confine-no", "x").unwrap_err().kind(), PermissionDenied);
            std::fs::write(own.join("new"), "x").unwrap();
            std::fs::remove_file(own.join("new")).unwrap();
            if held == Held::Whole {
                assert_eq!(std::net::TcpListener::bind("127.0.0.1:0").unwrap_err().kind(), PermissionDenied);
            }
            held
        });
        println!("Landlock: {held:?}");
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn threads_are_made_and_processes_are_not() {
        apart(|| {
            crate::sys::process::no_new_privileges().unwrap();
            to_calls_of_a_server().unwrap();
            assert_eq!(apart(|| 7), 7);
            let executed = std::process::Command::new("/bin/true").status();
            assert_eq!(executed.unwrap_err().kind(), PermissionDenied);
            let signalled = nix::sys::signal::kill(nix::unistd::Pid::this(), None);
            assert_eq!(signalled, Err(nix::errno::Errno::EPERM));
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok(), "seccomp alone leaves sockets");
        });
    }
}
