//! The process's one way out for records. Installed in the master, inherited by a fork, re-pointed there.

use super::packer::{Packer, send_now};
use super::redact::Redactor;
use super::tally::{self, sender};
use super::{Client, Format, Plan, access, event, record};
use crate::board::{Board, Sender};
use std::hash::RandomState;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Batches that a worker's queue holds: with at most 24 KiB each (16 KiB and one record), 6 MiB.
const QUEUE_BATCHES_MAX: usize = 256;

static SINK: RwLock<Option<&'static Sink>> = RwLock::new(None);
/// Changes with [`SINK`], so that a thread can keep what it read.
static GENERATION: AtomicU32 = AtomicU32::new(0);
static LEVEL: AtomicU8 = AtomicU8::new(3);
/// Made by the master before the first fork, so that all workers hash alike.
static CLIENT_KEY: OnceLock<RandomState> = OnceLock::new();

/// Where this process's records go, and how they look.
pub(super) struct Sink {
    words: &'static [AtomicU64],
    /// Security counters of all processes.
    pub(super) board: Board,
    door: Mutex<Door>,
    pub(super) format: Format,
    pub(super) client: Client,
    pub(super) access: Option<access::Layout>,
    /// `worker 2`.
    pub(super) process: String,
    pub(super) pid: u32,
    pub(super) redactor: Redactor,
}

enum Door {
    /// Sent at once, without waiting.
    Direct { pipe: OwnedFd, next: u64 },
    /// A queue that a thread of its own packs and sends.
    Queue { appender: NonBlocking, full: ErrorCounter },
}

/// Keeps a worker's queue alive; dropping it sends what is waiting, for a second at most.
#[must_use]
pub struct Guard {
    _queue: WorkerGuard,
}

impl Drop for Guard {
    fn drop(&mut self) {
        super::flush();
    }
}

/// Starts logging in the master or the engine: records are sent at once, without ever waiting. Returns at once.
///
/// # Errors
/// A pattern or access format of the plan cannot be used; the sentence names it.
pub fn start(plan: &Plan, sender: Sender, pipe: OwnedFd, board: Board) -> Result<(), String> {
    let next = tally::numbering_base(board.sender(sender));
    install(plan, sender, Door::Direct { pipe, next }, board)
}

/// Starts logging in a worker, after the fork: records go through a bounded queue and a thread of its own.
///
/// # Errors
/// As [`start`].
pub fn start_worker(plan: &Plan, sender: Sender, pipe: OwnedFd, board: Board) -> Result<Guard, String> {
    let packer = Packer::new(pipe, board.sender(sender));
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_BATCHES_MAX).thread_name("log");
    let (appender, queue) = builder.finish(packer);
    let full = appender.error_counter();
    install(plan, sender, Door::Queue { appender, full }, board)?;
    Ok(Guard { _queue: queue })
}

/// Changes the level of this process from now on.
pub fn set_level(level: tracing::Level) {
    LEVEL.store(record::level_number(level), Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// The level as a number: 1 (error) to 5 (trace).
pub(super) fn level() -> u8 {
    LEVEL.load(Relaxed)
}

/// The key under which client addresses are hashed.
pub(super) fn client_key() -> &'static RandomState {
    CLIENT_KEY.get_or_init(RandomState::new)
}

/// Changes whenever [`current`] would answer something else.
pub(super) fn generation() -> u32 {
    GENERATION.load(Acquire)
}

/// The sink, once logging was started.
pub(super) fn current() -> Option<&'static Sink> {
    *SINK.read().unwrap_or_else(PoisonError::into_inner)
}

fn install(plan: &Plan, sender: Sender, door: Door, board: Board) -> Result<(), String> {
    let redactor = Redactor::new(&plan.patterns)?;
    let sink = Sink {
        words: board.sender(sender),
        board,
        door: Mutex::new(door),
        format: plan.format,
        client: plan.client,
        access: access::Layout::of(plan)?,
        process: name(sender),
        pid: std::process::id(),
        redactor,
    };
    client_key();
    // Once a process image and once a fork: it lives as long as the process.
    let sink: &'static Sink = Box::leak(Box::new(sink));
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    GENERATION.fetch_add(1, Release);
    event::subscribe();
    set_level(plan.level);
    Ok(())
}

/// How a sender is called in its lines.
pub(super) fn name(sender: Sender) -> String {
    match sender {
        Sender::Master => "master".to_owned(),
        Sender::Engine => "engine".to_owned(),
        Sender::Slot(number) => format!("worker {number}"),
    }
}

impl Sink {
    /// One more record exists, whatever becomes of it.
    pub(super) fn emitted(&self) {
        self.words[sender::EMITTED].fetch_add(1, Relaxed);
    }

    /// Hands `count` records over; what finds no room is dropped and counted. Never waits for the log process.
    pub(super) fn hand(&self, records: &[u8], count: u64) {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = match &mut *door {
            Door::Direct { pipe, next } => send_now(pipe, records, next),
            Door::Queue { appender, full } => {
                let before = full.dropped_lines();
                // The queue's writer never fails: a full queue shows in its counter only, hence the lock around both.
                let _ = std::io::Write::write_all(appender, records);
                if full.dropped_lines() == before { 0 } else { count }
            }
        };
        if dropped > 0 {
            self.words[sender::DROPPED].fetch_add(dropped, Relaxed);
        }
    }
}

/// Shared by tests that start logging in this process: only one may at a time.
#[cfg(test)]
pub(super) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
