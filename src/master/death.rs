//! What is known of an end: who brought it about, what it cost, what a hung worker was doing.
//!
//! Deliberately absent: a guess. Who sent a signal is told by what the master itself did and by the kernel's counter of
//! processes killed for memory; what neither explains came from outside.

use super::Master;
use super::roster::{Child, ChildId, Kind, Life};
use crate::board::held::Held;
use crate::board::stacks::Stack;
use crate::sys::inspect::{self, Module, OomKills, Thread};
use crate::sys::wait::How;
use crate::sys::{clock, stack};
use nix::libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSYS, SIGTRAP};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Requests that a line names; the others are counted.
const NAMED_MAX: usize = 24;
/// So much of a line is requests, and so much is threads: a log record holds 8 KiB.
const REQUESTS_BYTES_MAX: usize = 2_400;
const THREADS_BYTES_MAX: usize = 4_400;
/// Addresses of a loop's stack, and of another thread's: what a loop is at is asked first.
const FRAMES_OF_LOOP: usize = 32;
const FRAMES_OF_OTHER: usize = 8;
/// A kill for memory explains a death that is heard of so long after it.
const KILL_EXPLAINS: Duration = Duration::from_secs(10);

/// Who ended a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The master, on purpose.
    Us,
    /// The kernel, for the memory limit of a cgroup.
    Oom,
    /// Somebody else's signal.
    Outside,
    /// Its own fault's signal.
    Fault,
    /// It left by itself.
    #[default]
    Itself,
}

impl By {
    /// As the log and the status name it.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Us => "us",
            By::Oom => "oom",
            By::Outside => "outside",
            By::Fault => "fault",
            By::Itself => "itself",
        }
    }

    fn why(self) -> &'static str {
        match self {
            By::Us => "the master ended it",
            By::Oom => "the kernel killed it for memory, by its cgroup's counter",
            By::Outside => "something outside sent that signal",
            By::Fault => "it got the signal of a program's own fault",
            By::Itself => "it ended by itself",
        }
    }
}

/// What is known of one end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who did it.
    pub by: By,
    /// Processes that the kernel killed for memory in this cgroup, and no earlier death explains.
    pub oom_kills: Option<u64>,
    /// Requests that it had in flight, by its own count.
    pub in_flight: u64,
    /// Those that it named.
    pub held: Vec<Held>,
}

impl Evidence {
    /// Why, in words.
    pub fn why<'a>(&self, child: &'a Child) -> &'a str {
        match (self.by, &child.ended_for) {
            (By::Us, Some(why)) => why,
            (by, _) => by.why(),
        }
    }

    /// The counter as it is shown.
    pub fn oom_kills(&self) -> String {
        self.oom_kills.map_or_else(|| "no counter".to_owned(), |count| count.to_string())
    }
}

/// Who ended a child that ended so; `oom` when a kill for memory waits for its death.
fn by(child: &Child, how: How, oom: bool) -> By {
    match (how, child.life) {
        (How::Signal(SIGKILL), Life::Killed(_)) => By::Us,
        (How::Signal(SIGKILL), _) if oom => By::Oom,
        (_, Life::Leaving(_)) if child.should_end(how) => By::Us,
        (How::Signal(SIGSEGV | SIGBUS | SIGILL | SIGFPE | SIGABRT | SIGSYS | SIGTRAP), _) => By::Fault,
        (How::Signal(_), _) => By::Outside,
        (How::Code(_), _) => By::Itself,
    }
}

/// Kills for memory that no death explained yet. Pure.
#[derive(Debug, Default)]
struct Unclaimed {
    seen: u64,
    kills: u64,
    since: Duration,
}

impl Unclaimed {
    fn look(&mut self, now: Duration, count: u64) {
        if now.saturating_sub(self.since) > KILL_EXPLAINS {
            self.kills = 0;
        }
        if count > self.seen {
            self.kills += count - self.seen;
            self.since = now;
        }
        self.seen = count;
    }
}

/// What the master remembers to explain deaths with.
pub struct Witness {
    counter: OomKills,
    unclaimed: Unclaimed,
    /// Threads of hung workers, as they were before they were disturbed.
    seen: BTreeMap<ChildId, (Vec<Thread>, Vec<Module>)>,
}

impl Witness {
    /// From now on.
    pub fn new() -> Witness {
        let counter = OomKills::here();
        let unclaimed = Unclaimed { seen: counter.count().unwrap_or(0), ..Unclaimed::default() };
        Witness { counter, unclaimed, seen: BTreeMap::new() }
    }

    /// Looks at the kernel's counter; once a second, so that an old kill explains no later death.
    pub fn look(&mut self, now: Duration) {
        if let Some(count) = self.counter.count() {
            self.unclaimed.look(now, count);
        }
    }

    fn explain(&mut self, now: Duration, child: &Child, how: How) -> (By, Option<u64>) {
        self.look(now);
        let kills = self.counter.count().map(|_| self.unclaimed.kills);
        let by = by(child, how, self.unclaimed.kills > 0);
        if by == By::Oom {
            self.unclaimed.kills -= 1;
        }
        (by, kills)
    }
}

impl Master {
    /// What is known of this child's end; before its slot is given to another.
    pub(super) fn evidence(&mut self, child: &Child, how: How) -> Evidence {
        let now = clock::monotonic();
        self.witness.seen.remove(&child.id);
        let (by, oom_kills) = self.witness.explain(now, child, how);
        if child.kind != Kind::Worker {
            return Evidence { by, oom_kills, ..Evidence::default() };
        }
        let slot = self.launcher.board.slot(child.slot);
        let in_flight = slot.lanes().map(|lane| lane.in_flight()).fold(0, u64::saturating_add);
        Evidence { by, oom_kills, in_flight, held: self.held(child) }
    }

    /// The requests that a worker shows.
    pub(super) fn held(&self, child: &Child) -> Vec<Held> {
        self.launcher.board.slot(child.slot).held(clock::monotonic_ms())
    }

    /// Looks at a hung worker's threads, then asks each for its stack.
    pub(super) fn examine(&mut self, id: ChildId) {
        let Some(pid) = self.state.child(id).map(|child| child.pid) else { return };
        let threads = inspect::threads(pid);
        for thread in threads.iter().filter(|thread| !is_stopped(thread)) {
            stack::ask(pid, thread.id);
        }
        self.witness.seen.insert(id, (threads, inspect::modules(pid)));
    }

    /// What a hung worker's threads were doing.
    pub(super) fn seen(&mut self, child: &Child) -> String {
        let (threads, modules) = self.witness.seen.remove(&child.id).unwrap_or_default();
        threads_shown(&threads, &self.launcher.board.slot(child.slot).stacks(), &modules)
    }
}

/// By the names that workers give them; the first loop is the process's own thread.
fn is_loop(thread: &Thread) -> bool {
    thread.name.starts_with("worker") || thread.name.starts_with("lane")
}

fn is_stopped(thread: &Thread) -> bool {
    matches!(thread.state, 'T' | 't')
}

/// Requests for a line: id, route, age, what they wait for.
pub fn requests_shown(held: &[Held]) -> String {
    let mut text = String::new();
    let mut named = 0;
    for one in held.iter().take(NAMED_MAX) {
        let next = format!("{} {} {:.2}s {}", one.id, one.route, one.age_ms as f64 / 1e3, one.phase);
        if text.len() + next.len() > REQUESTS_BYTES_MAX {
            break;
        }
        text.push_str(if named == 0 { "" } else { "; " });
        text.push_str(&next);
        named += 1;
    }
    if named < held.len() {
        let _ = write!(text, "; and {} more", held.len() - named);
    }
    text
}

/// Threads for a line: name, id, state, where they wait, and the addresses of their stacks as offsets into files, which
/// `addr2line -Cfe FILE OFFSET` turns into functions and lines.
fn threads_shown(threads: &[Thread], stacks: &[Stack], modules: &[Module]) -> String {
    let mut text = String::new();
    let (loops, others): (Vec<&Thread>, _) = threads.iter().partition(|thread| is_loop(thread));
    for thread in loops.into_iter().chain(others) {
        let mut next = format!("{} {} {}", thread.name, thread.id, thread.state);
        let places = thread.call.iter().chain(&thread.waits_in);
        places.for_each(|place| next.push_str(&format!(" {place}")));
        match stacks.iter().find(|stack| stack.thread == thread.id as u64) {
            Some(stack) => {
                next.push(':');
                let shown = stack.addresses.iter().take(if is_loop(thread) { FRAMES_OF_LOOP } else { FRAMES_OF_OTHER });
                shown.for_each(|address| next.push_str(&format!(" {}", place(*address, modules))));
            }
            None if is_stopped(thread) => next.push_str(": stopped, no stack"),
            None => next.push_str(": left no stack"),
        }
        if text.len() + next.len() > THREADS_BYTES_MAX {
            text.push_str("; …");
            break;
        }
        text.push_str(if text.is_empty() { "" } else { "; " });
        text.push_str(&next);
    }
    text
}

fn place(address: u64, modules: &[Module]) -> String {
    match modules.iter().find(|module| (module.from..module.to).contains(&address)) {
        Some(module) => {
            let offset = (address - module.from).saturating_add(module.offset);
            format!("{}+{offset:#x}", module.name)
        }
        None => format!("{address:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::roster::Roster;

    fn child(life: Life) -> Child {
        let mut roster = Roster::default();
        let id = roster.enrol(Kind::Worker, 0, Duration::ZERO, Duration::ZERO);
        Child { life, ..roster.remove(id).unwrap() }
    }

    #[test]
    fn who_ended_it_is_told_by_what_we_did_and_what_the_kernel_counted() {
        let (ready, second) = (child(Life::Ready), Duration::from_secs(1));
        let (killed, leaving) = (child(Life::Killed(second)), child(Life::Leaving(second)));
        let (kill, fault) = (How::Signal(9), How::Signal(11));
        assert_eq!((by(&ready, kill, false), by(&ready, kill, true)), (By::Outside, By::Oom));
        assert_eq!((by(&killed, kill, true), by(&leaving, kill, false)), (By::Us, By::Outside));
        assert_eq!((by(&leaving, How::Code(0), false), by(&leaving, How::Code(1), false)), (By::Us, By::Itself));
        assert_eq!((by(&ready, fault, true), by(&ready, How::Code(101), true)), (By::Fault, By::Itself));
        assert_eq!(by(&ready, How::Signal(15), true), By::Outside);
    }

    #[test]
    fn a_kill_for_memory_explains_one_death_and_no_late_one() {
        let second = Duration::from_secs(1);
        let mut unclaimed = Unclaimed { seen: 3, ..Unclaimed::default() };
        unclaimed.look(second * 50, 3);
        assert_eq!(unclaimed.kills, 0);
        unclaimed.look(second * 51, 5);
        unclaimed.look(second * 55, 5);
        assert_eq!(unclaimed.kills, 2);
        unclaimed.look(second * 62, 5);
        assert_eq!(unclaimed.kills, 0);
    }

    #[test]
    fn a_line_names_so_many_requests_and_counts_the_rest() {
        let held = |id: &str| Held { id: id.into(), route: "chat", age_ms: 1234, phase: "stream" };
        assert_eq!(requests_shown(&[held("a"), held("b")]), "a chat 1.23s stream; b chat 1.23s stream");
        let many: Vec<Held> = (0..500).map(|_| held(&"x".repeat(48))).collect();
        let text = requests_shown(&many);
        assert!(text.len() < REQUESTS_BYTES_MAX + 100 && text.ends_with("; and 476 more"), "{text}");
        assert_eq!(requests_shown(&[]), "");
    }

    #[test]
    fn a_stack_is_offsets_into_files() {
        let thread = |id, state| Thread { id, name: format!("lane {id}"), state, waits_in: None, call: None };
        let threads = [Thread { call: Some("futex".into()), ..thread(1, 'S') }, thread(2, 'T'), thread(3, 'D')];
        let module = Module { from: 0x1000, to: 0x2000, offset: 0x100, name: "chatcorn".into() };
        let stacks = [Stack { thread: 1, addresses: vec![0x1010, 0x9999] }];
        assert_eq!(
            threads_shown(&threads, &stacks, &[module]),
            "lane 1 1 S futex: chatcorn+0x110 0x9999; lane 2 2 T: stopped, no stack; lane 3 3 D: left no stack"
        );
    }
}
