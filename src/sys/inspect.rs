//! What the kernel says of a child of ours: its threads and what they wait for, its mappings; and of the group of
//! processes that it shares memory with. From proc(5) and the cgroup file systems; a process cannot write any of it.

use nix::libc;
use std::path::{Path, PathBuf};

/// Threads of a process that are looked at.
const THREADS_MAX: usize = 32;
/// A mapping's name is a file's, and files can have any name: only so much of it is shown.
const NAME_BYTES_MAX: usize = 40;

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id.
    pub id: i32,
    /// Its name, plain characters only.
    pub name: String,
    /// One letter, as in `ps`: R runs, S waits, D waits for what no signal interrupts, T is stopped.
    pub state: char,
    /// Where in the kernel it waits; `None` where the kernel does not say.
    pub waits_in: Option<String>,
    /// The system call that it is in.
    pub call: Option<String>,
}

/// Where a file's code is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// First address.
    pub from: u64,
    /// The first address that is not.
    pub to: u64,
    /// Offset of `from` in the file.
    pub offset: u64,
    /// The file's last name.
    pub name: String,
}

/// The threads of a process, as far as the kernel shows them to us.
pub fn threads(pid: i32) -> Vec<Thread> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut ids: Vec<i32> = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids.into_iter().take(THREADS_MAX).filter_map(|id| thread(pid, id)).collect()
}

fn thread(pid: i32, id: i32) -> Option<Thread> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{id}/{name}"));
    let stat = read("stat").ok()?;
    let name = plain(stat.split_once('(')?.1.rsplit_once(')')?.0);
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    let waits_in = read("wchan").ok().filter(|place| !matches!(place.trim(), "" | "0")).map(|place| plain(&place));
    Some(Thread { id, name, state, waits_in, call: read("syscall").ok().and_then(|text| call(&text)) })
}

fn call(text: &str) -> Option<String> {
    let number: i64 = text.split_whitespace().next()?.parse().ok().filter(|number| *number >= 0)?;
    let known = CALLS.iter().find(|(known, _)| *known == number);
    Some(known.map_or_else(|| format!("system call {number}"), |(_, name)| (*name).to_owned()))
}

/// What a server's thread is mostly found in.
#[rustfmt::skip]
const CALLS: &[(i64, &str)] = &[
    (libc::SYS_futex, "futex"), (libc::SYS_epoll_pwait, "epoll_pwait"), (libc::SYS_read, "read"),
    (libc::SYS_write, "write"), (libc::SYS_pread64, "pread"), (libc::SYS_pwrite64, "pwrite"),
    (libc::SYS_recvfrom, "recvfrom"), (libc::SYS_sendto, "sendto"), (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_sendmsg, "sendmsg"), (libc::SYS_connect, "connect"), (libc::SYS_accept4, "accept"),
    (libc::SYS_openat, "openat"), (libc::SYS_fsync, "fsync"), (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_fcntl, "fcntl"), (libc::SYS_flock, "flock"), (libc::SYS_nanosleep, "nanosleep"),
    (libc::SYS_clock_nanosleep, "clock_nanosleep"), (libc::SYS_ppoll, "ppoll"), (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"), (libc::SYS_madvise, "madvise"), (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_writev, "writev"), (libc::SYS_restart_syscall, "restart_syscall"),
    #[cfg(target_arch = "x86_64")] (libc::SYS_epoll_wait, "epoll_wait"),
    #[cfg(target_arch = "x86_64")] (libc::SYS_poll, "poll"),
];

/// The files whose code a process has mapped.
pub fn modules(pid: i32) -> Vec<Module> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter_map(module).collect()
}

fn module(line: &str) -> Option<Module> {
    let mut fields = line.split_ascii_whitespace();
    let (from, to) = fields.next()?.split_once('-')?;
    fields.next().filter(|rights| rights.contains('x'))?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (from, to, offset) = (hex(from)?, hex(to)?, hex(fields.next()?)?);
    let path = fields.nth(2)?;
    Some(Module { from, to, offset, name: plain(path.rsplit('/').next().unwrap_or(path)) })
}

/// Counts the processes that the kernel killed for the memory limit of this process's cgroup, or of one below it.
pub struct OomKills {
    file: Option<PathBuf>,
}

impl OomKills {
    /// Of the cgroup that this process is in now.
    pub fn here() -> OomKills {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        OomKills { file: counter_file(&groups, &mounts, Path::exists) }
    }

    /// So many so far; `None` where no such counter can be read.
    pub fn count(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.file.as_ref()?).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}

/// `memory.events` of version 2 counts what is below too, `memory.oom_control` of version 1 does not; cgroups(7).
fn counter_file(groups: &str, mounts: &str, exists: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let group = |wanted: fn(&str, &str) -> bool| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            wanted(number, controllers).then_some(path)
        })
    };
    let first = group(|_, controllers| controllers.split(',').any(|one| one == "memory"));
    let second = group(|number, _| number == "0");
    let (kind, option, name, path) = match (first, second) {
        (Some(path), _) => ("cgroup", "memory", "memory.oom_control", path),
        (None, Some(path)) => ("cgroup2", "", "memory.events", path),
        (None, None) => return None,
    };
    let mut mounted = mounts.lines().filter_map(|line| mounted(line, kind, option));
    mounted.find_map(|(root, at)| {
        // A mount may show the tree from some group on, as in a container.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some(Path::new(at).join(below).join(name)).filter(|file| exists(file))
    })
}

/// The root and the place of a mount of this kind that has this option; proc(5), `mountinfo`.
fn mounted<'a>(line: &'a str, kind: &str, option: &str) -> Option<(&'a str, &'a str)> {
    let (first, second) = line.split_once(" - ")?;
    let mut fields = first.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    let mut fields = second.split(' ');
    let is = fields.next() == Some(kind);
    let options = fields.nth(1).unwrap_or("");
    (is && (option.is_empty() || options.split(',').any(|one| one == option))).then_some((root, at))
}

fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.trim_end_matches('\n').chars().take(NAME_BYTES_MAX).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_with_its_threads_and_its_program() {
        let threads = threads(std::process::id() as i32);
        assert!(threads.iter().any(|thread| thread.state == 'R'), "{threads:?}");
        let here = this_process_is_seen_with_its_threads_and_its_program as fn() as usize as u64;
        let modules = modules(std::process::id() as i32);
        let own = modules.iter().find(|module| (module.from..module.to).contains(&here)).unwrap();
        assert!(own.name.starts_with("chatcorn"), "{own:?}");
    }

    #[test]
    fn a_line_of_syscall_is_a_name_or_a_number() {
        assert_eq!(call(&format!("{} 0x7f 0x89", libc::SYS_futex)).as_deref(), Some("futex"));
        assert_eq!(call("9999 0x1").as_deref(), Some("system call 9999"));
        assert_eq!((call("running"), call("-1 0x1 0x2")), (None, None));
    }

    #[test]
    fn the_counter_is_found_in_both_versions() {
        let first = "31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let second = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let container = "30 23 0:26 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = |groups, mounts| counter_file(groups, mounts, |_| true).map(|path| path.display().to_string());
        let one = found("4:memory:/a/b\n0::/\n", first);
        assert_eq!(one.as_deref(), Some("/sys/fs/cgroup/memory/a/b/memory.oom_control"));
        assert_eq!(found("0::/a\n", second).as_deref(), Some("/sys/fs/cgroup/a/memory.events"));
        assert_eq!(found("0::/box/x\n", container).as_deref(), Some("/sys/fs/cgroup/x/memory.events"));
        assert_eq!((found("0::/a\n", first), found("", second)), (None, None));
    }

    #[test]
    fn both_versions_of_the_counter_are_read() {
        let file = std::env::temp_dir().join(format!("chatcorn-inspect-{}", std::process::id()));
        let counter = OomKills { file: Some(file.clone()) };
        assert_eq!((counter.count(), OomKills { file: None }.count()), (None, None));
        // As Linux 6 writes them: memory.events of version 2, memory.oom_control of version 1.
        let second = "low 0\nhigh 12\nmax 340\noom 5\noom_kill 3\noom_group_kill 1\n";
        for (text, kills) in
            [(second, Some(3)), ("oom_kill_disable 0\nunder_oom 1\noom_kill 2\n", Some(2)), ("oom 4\n", None)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(counter.count(), kills, "{text}");
        }
        std::fs::remove_file(file).unwrap();
    }
}
