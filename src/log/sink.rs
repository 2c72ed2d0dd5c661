//! The process's one way out for records. Installed in the master, inherited by a fork, re-pointed there.

use super::packer::{Packer, send_now};
use super::redact::{self, Redactor};
use super::tally::{self, sender};
use super::{Client, Format, Plan, access, event, record};
use crate::board::{Board, Sender};
use std::hash::RandomState;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Batches that a worker's queue holds.
const QUEUE_BATCHES_MAX: usize = 1024;
/// Bytes that they hold together: beyond them lines are dropped.
const QUEUE_BYTES_MAX: usize = 6 << 20;

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
    pub(super) redactor: &'static Redactor,
}

enum Door {
    /// Sent at once, without waiting.
    Direct { pipe: OwnedFd, next: u64 },
    /// A queue that a thread of its own packs and sends.
    Queue { appender: NonBlocking, full: ErrorCounter, waiting: Arc<AtomicUsize> },
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
    let (door, queue) = queue(pipe, board.sender(sender));
    install(plan, sender, door, board)?;
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

fn queue(pipe: OwnedFd, words: &'static [AtomicU64]) -> (Door, WorkerGuard) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUE_BATCHES_MAX).thread_name("log");
    let waiting = Arc::new(AtomicUsize::new(0));
    let (appender, queue) = builder.finish(Packer::new(pipe, words, Arc::clone(&waiting)));
    let full = appender.error_counter();
    (Door::Queue { appender, full, waiting }, queue)
}

fn install(plan: &Plan, sender: Sender, door: Door, board: Board) -> Result<(), String> {
    client_key();
    // Once a process image and once a fork: it lives as long as the process.
    let sink: &'static Sink = Box::leak(Box::new(Sink::build(plan, sender, door, board)?));
    *SINK.write().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    GENERATION.fetch_add(1, Release);
    event::subscribe();
    std::panic::set_hook(Box::new(event::panicked));
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
    fn build(plan: &Plan, sender: Sender, door: Door, board: Board) -> Result<Sink, String> {
        Ok(Sink {
            words: board.sender(sender),
            board,
            door: Mutex::new(door),
            format: plan.format,
            client: plan.client,
            access: access::Layout::of(plan)?,
            process: name(sender),
            pid: std::process::id(),
            redactor: redact::shared(&plan.patterns)?,
        })
    }

    /// One more record exists, whatever becomes of it.
    pub(super) fn emitted(&self) {
        self.words[sender::EMITTED].fetch_add(1, Relaxed);
    }

    /// Hands `count` records over; what finds no room is dropped and counted. Never waits for the log process.
    pub(super) fn hand(&self, records: &[u8], count: u64) {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = match &mut *door {
            Door::Direct { pipe, next } => send_now(pipe, records, next),
            Door::Queue { waiting, .. } if waiting.load(Relaxed) + records.len() > QUEUE_BYTES_MAX => count,
            Door::Queue { appender, full, waiting } => {
                waiting.fetch_add(records.len(), Relaxed);
                let before = full.dropped_lines();
                // The queue's writer never fails: a full queue shows in its counter only, hence the lock around both.
                let _ = std::io::Write::write_all(appender, records);
                if full.dropped_lines() == before {
                    0
                } else {
                    waiting.fetch_sub(records.len(), Relaxed);
                    count
                }
            }
        };
        if dropped > 0 {
            self.words[sender::DROPPED].fetch_add(dropped, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::Batch;
    use crate::log::record::{Kind, PACKET_BYTES_MAX, Packet};
    use crate::log::tally::{Tally, count};
    use crate::sys::fd::packet_pair;
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd;

    const SLOT: Sender = Sender::Slot(1);

    fn batch(door: Door, board: Board) -> Batch {
        let sink = Sink::build(&Plan::default(), SLOT, door, board).unwrap();
        Batch::pinned(Box::leak(Box::new(sink)))
    }

    fn emit(batch: &mut Batch, number: usize, length: usize) {
        batch.record(Kind::App, 3, |_, _, out| {
            out.extend_from_slice(format!("{number:08} {}", "x".repeat(length)).as_bytes());
            false
        });
    }

    /// Takes what is in the pipe, counting as the log process does; the lines' numbers come back.
    fn take(pipe: &OwnedFd, tally: Tally, wait: bool) -> Option<Vec<usize>> {
        let mut buffer = vec![0; 1 << 17];
        let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let length = recv(pipe.as_raw_fd(), &mut buffer, flags).ok().filter(|length| *length > 0)?;
        assert!(length <= PACKET_BYTES_MAX + record::RECORD_BYTES_MAX);
        let packet = Packet::parse(&buffer[..length]).unwrap();
        let lines: Vec<usize> =
            packet.records().map(|record| std::str::from_utf8(&record.line[..8]).unwrap().parse().unwrap()).collect();
        tally.take_over(SLOT, packet.first, lines.len() as u64);
        tally.add(tally::word::WRITTEN, lines.len() as u64);
        Some(lines)
    }

    #[test]
    fn a_full_pipe_drops_at_once_and_counts_exactly() {
        let board = Board::create().unwrap();
        let (pipe, reader) = packet_pair().unwrap();
        let mut batch = batch(Door::Direct { pipe, next: 0 }, board);
        for number in 0..5_000 {
            emit(&mut batch, number, 500);
            batch.flush();
        }
        let mut numbers = Vec::new();
        while let Some(lines) = take(&reader, Tally::new(board), false) {
            numbers.extend(lines);
        }
        let total = count(board);
        assert!(total.dropped > 0);
        assert_eq!((total.emitted, total.written, total.lost), (5_000, numbers.len() as u64, 0));
        assert_eq!(total.under_way(), 0);
        assert!(numbers.is_sorted());
    }

    #[test]
    fn a_stopped_log_process_costs_dropped_lines_and_nothing_uncounted() {
        let board = Board::create().unwrap();
        let (pipe, reader) = packet_pair().unwrap();
        let (door, guard) = queue(pipe, board.sender(SLOT));
        let mut batch = batch(door, board);
        let total = 40_000;
        for number in 0..total {
            emit(&mut batch, number, 400);
        }
        batch.flush();
        assert!(board.sender(SLOT)[sender::DROPPED].load(Relaxed) > 0);
        let tally = Tally::new(board);
        let mut numbers = Vec::new();
        while count(board).under_way() > 0 {
            numbers.extend(take(&reader, tally, true).unwrap());
        }
        let sum = count(board);
        assert_eq!((sum.emitted, sum.written + sum.dropped, sum.lost), (total as u64, total as u64, 0));
        assert_eq!(numbers.len() as u64, sum.written);
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        drop(guard);
    }

    #[test]
    fn a_long_line_is_redacted_before_it_is_cut() {
        let board = Board::create().unwrap();
        let (pipe, reader) = packet_pair().unwrap();
        let mut batch = batch(Door::Direct { pipe, next: 0 }, board);
        let secret = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678";
        batch.record(Kind::App, 3, |_, _, out| {
            out.extend_from_slice(format!("{}{secret} tail", "y ".repeat(4_090)).as_bytes());
            false
        });
        batch.flush();
        let mut buffer = vec![0; 1 << 16];
        let length = recv(reader.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let record = Packet::parse(&buffer[..length]).unwrap().records().next().unwrap();
        assert!(record.line.len() <= record::RECORD_BYTES_MAX);
        assert!(record.line.ends_with("…[cut]".as_bytes()));
        assert!(memchr::memmem::find(record.line, b"hf_QwErT").is_none());
    }
}
