//! A stream destination, stdout or stderr: a bounded queue and a thread that may block, so that nobody else does.
//!
//! The descriptor's flags stay as they are: others share its file description.

use super::lines::Lines;
use super::tally::{Tally, word};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait for a reader; beyond them lines are dropped.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// A stream and its queue.
pub(super) struct StreamTarget {
    shared: Arc<Shared>,
    /// Number of the destination on the board.
    number: usize,
    /// journald reads the priority from the beginning of a line.
    pub(super) journal: bool,
    tally: Tally,
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Lines>,
    bytes: usize,
    /// The thread is writing what it took.
    busy: bool,
    /// Nothing more comes, or nobody can be written to.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamTarget {
    /// Starts the thread that writes to `stream`.
    ///
    /// # Errors
    /// Out of threads.
    pub(super) fn start(stream: OwnedFd, number: usize, tally: Tally) -> io::Result<StreamTarget> {
        let journal = is_journal(&stream);
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let writer = move || write_on(&theirs, stream.into(), number, tally);
        std::thread::Builder::new().name("log stream".to_owned()).spawn(writer)?;
        Ok(StreamTarget { shared, number, journal, tally })
    }

    /// Queues lines, or drops those that find no room.
    pub(super) fn write(&self, lines: &Lines) {
        let mut queue = self.shared.lock();
        if queue.closed || queue.bytes + lines.bytes().len() > QUEUE_BYTES_MAX {
            drop(queue);
            return dropped(&self.tally, self.number, lines);
        }
        queue.bytes += lines.bytes().len();
        queue.waiting.push_back(lines.clone());
        self.shared.changed.notify_all();
    }

    /// At the end: waits until the reader has taken everything, for `limit` at most; the rest is dropped and counted.
    pub(super) fn finish(&self, limit: Duration) {
        let waiting = |queue: &mut Queue| queue.busy || !queue.waiting.is_empty();
        let guard = self.shared.lock();
        let (mut queue, _) =
            self.shared.changed.wait_timeout_while(guard, limit, waiting).unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        let rest: Vec<Lines> = queue.waiting.drain(..).collect();
        queue.bytes = 0;
        drop(queue);
        rest.iter().for_each(|lines| dropped(&self.tally, self.number, lines));
        self.shared.changed.notify_all();
    }
}

fn dropped(tally: &Tally, number: usize, lines: &Lines) {
    tally.add(word::DESTINATIONS + 2 * number + 1, lines.count());
    tally.add(word::DROPPED, lines.all_homes());
}

fn written(tally: &Tally, number: usize, lines: &Lines) {
    tally.add(word::DESTINATIONS + 2 * number, lines.count());
    tally.add(word::BYTES, lines.bytes().len() as u64);
    tally.add(word::WRITTEN, lines.all_homes());
}

/// True when systemd says, by `JOURNAL_STREAM`, that this very stream leads to the journal (systemd.exec(5)).
fn is_journal(stream: &OwnedFd) -> bool {
    let Some(named) = std::env::var_os("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(stream).is_ok_and(|stat| *named == *format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn write_on(shared: &Shared, mut stream: std::fs::File, number: usize, tally: Tally) {
    while let Some(lines) = take(shared) {
        let result = stream.write_all(lines.bytes());
        match result {
            Ok(()) => written(&tally, number, &lines),
            Err(_) => dropped(&tally, number, &lines),
        }
        let mut queue = shared.lock();
        queue.busy = false;
        queue.bytes = queue.bytes.saturating_sub(lines.bytes().len());
        shared.changed.notify_all();
    }
}

fn take(shared: &Shared) -> Option<Lines> {
    let guard = shared.lock();
    let nothing = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closed;
    let mut queue = shared.changed.wait_while(guard, nothing).unwrap_or_else(PoisonError::into_inner);
    let lines = queue.waiting.pop_front()?;
    queue.busy = true;
    Some(lines)
}
