//! What the master alone counts: processes that ended and were replaced, by cause; reloads and upgrades.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kinds of processes that are replaced.
pub const PROCESSES: [&str; 3] = ["worker", "engine", "log"];
/// Why one ended.
///
/// `exit`: by itself. `crash`: a signal of its own making. `killed`: SIGKILL from outside. `oom`: the kernel, for
/// memory. `hung`: its event loop did not turn. `boot`: not ready in time. `drain`: not gone in time. `replaced`: by a
/// reload or an upgrade. `recycled`: by `--max-requests` or `--max-rss`. `told`: any other word of ours.
pub const CAUSES: [&str; 10] =
    ["exit", "crash", "killed", "oom", "hung", "boot", "drain", "replaced", "recycled", "told"];
/// What a reload or an upgrade comes to.
pub const RESULTS: [&str; 2] = ["done", "refused"];

const RELOADS_AT: usize = PROCESSES.len() * CAUSES.len();
const UPGRADES_AT: usize = RELOADS_AT + RESULTS.len();
/// Words in all.
pub const WORDS: usize = UPGRADES_AT + RESULTS.len();

/// The words.
#[derive(Clone, Copy)]
pub struct Ends {
    words: &'static [AtomicU64],
}

impl Ends {
    pub(super) fn over(words: &'static [AtomicU64]) -> Ends {
        Ends { words }
    }

    /// A process ended; both are names of the tables above, and others are not counted.
    pub fn ended(&self, process: &str, cause: &str) {
        let process = PROCESSES.iter().position(|name| *name == process);
        let cause = CAUSES.iter().position(|name| *name == cause);
        if let (Some(process), Some(cause)) = (process, cause) {
            self.add(process * CAUSES.len() + cause);
        }
    }

    /// A reload ended.
    pub fn reloaded(&self, done: bool) {
        self.add(RELOADS_AT + usize::from(!done));
    }

    /// An upgrade ended.
    pub fn upgraded(&self, done: bool) {
        self.add(UPGRADES_AT + usize::from(!done));
    }

    /// Processes that ended, by their numbers in the tables.
    pub fn of(&self, process: usize, cause: usize) -> u64 {
        self.get(process * CAUSES.len() + cause)
    }

    /// Reloads, by their number in [`RESULTS`].
    pub fn reloads(&self, result: usize) -> u64 {
        self.get(RELOADS_AT + result)
    }

    /// Upgrades, by their number in [`RESULTS`].
    pub fn upgrades(&self, result: usize) -> u64 {
        self.get(UPGRADES_AT + result)
    }

    fn add(&self, word: usize) {
        if let Some(word) = self.words.get(word) {
            word.fetch_add(1, Relaxed);
        }
    }

    fn get(&self, word: usize) -> u64 {
        self.words.get(word).map_or(0, |word| word.load(Relaxed))
    }
}
