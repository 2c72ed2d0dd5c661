//! What the limits count in, and by which rules each generation of workers counts. The master alone compiles rules.

use crate::limit::plan::Rules;
use crate::limit::{Plan, Shared};
use crate::sys::clock;
use std::collections::BTreeMap;
use std::io;

/// Slots that are swept at once, once a second: the default table in a quarter of a minute, that of a million clients
/// in some six, at some ten microseconds a second.
const SWEPT_SLOTS: usize = 4096;

/// Shared memory that stays for the server's life, seen through the rules of each generation.
#[derive(Default)]
pub struct Counts {
    memory: Option<Shared>,
    rules: BTreeMap<u32, Shared>,
    /// Each that was ever compiled: they stay in memory, so a reload that changes no limit adds none.
    compiled: Vec<&'static Rules>,
    next_slot: usize,
}

impl Counts {
    /// Those of a server that begins, or goes on, with this generation.
    pub fn new(generation: u32, memory: Option<Shared>) -> Counts {
        let rules = memory.map(|shared| (generation, shared)).into_iter().collect();
        let compiled = memory.map(|shared| shared.rules).into_iter().collect();
        Counts { memory, rules, compiled, next_slot: 0 }
    }

    /// The memory, by the newest rules.
    pub fn memory(&self) -> Option<Shared> {
        self.memory
    }

    /// What a generation's workers count in; none where it has no limits.
    pub fn of(&self, generation: u32) -> Option<Shared> {
        self.rules.get(&generation).copied()
    }

    /// Compiles a generation's rules. Limits that a reload switches on get their memory; that of a start stays, and its
    /// counts with it.
    ///
    /// # Errors
    /// Out of memory; more limits than fit a client.
    pub fn prepare(&mut self, generation: u32, plan: Option<&Plan>) -> io::Result<()> {
        let Some(plan) = plan else { return Ok(()) };
        let shared = match self.memory {
            Some(memory) => memory.reload(plan, &self.compiled)?,
            None => Shared::create(plan)?,
        };
        if !self.compiled.iter().any(|known| std::ptr::eq(*known, shared.rules)) {
            self.compiled.push(shared.rules);
        }
        self.memory = Some(shared);
        self.rules.insert(generation, shared);
        Ok(())
    }

    /// Nobody runs this generation any more.
    pub fn forget(&mut self, generation: u32) {
        self.rules.remove(&generation);
    }

    /// Frees what has run out, a piece of the table at a time; once a second.
    pub fn sweep(&mut self) {
        if let Some(memory) = self.memory {
            self.next_slot = memory.sweep(self.next_slot, SWEPT_SLOTS, clock::monotonic_ms());
        }
    }
}
