//! A thread's batch: lines are formatted straight into it and handed over together.

use super::record::{self, Kind, RECORD_BYTES_MAX};
use super::sink::{self, Sink};
use super::time::Stamp;
use std::cell::RefCell;

/// A batch goes when it is this long, or when its thread has nothing else to do ([`flush`]).
const BATCH_BYTES: usize = 16 * 1024;
/// Lines of a busy thread wait so long for company, in milliseconds.
pub const LINGER_MS: u64 = 5;
/// Stands at the end of a line that was too long.
pub(super) const CUT_MARK: &str = "…[cut]";

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::new(Batch::fresh());
}

/// Records of this thread that nobody else has seen yet.
pub(super) struct Batch {
    records: Vec<u8>,
    count: u64,
    handed_ms: u64,
    generation: u32,
    sink: Option<&'static Sink>,
    /// This thread's clock text.
    pub(super) stamp: Stamp,
}

/// Hands over what this thread has gathered. Call it whenever the thread has nothing to do: nearly free when there
/// is nothing to hand over. Also ends floods of security events whose time has come.
pub fn flush() {
    super::flood::tick();
    with(Batch::flush);
}

/// For a thread that rests often: hands over what has waited for [`LINGER_MS`], and says whether something goes on
/// waiting, for then the thread must [`flush`] that much later. A handover costs more than a line.
pub fn rest(now_ms: u64) -> bool {
    with(|batch| {
        if batch.count > 0 && now_ms.saturating_sub(batch.handed_ms) >= LINGER_MS {
            batch.handed_ms = now_ms;
            batch.flush();
        }
        batch.count > 0
    })
    .unwrap_or(false)
}

/// Runs `f` with this thread's batch; `None` inside a formatter that is itself running in one, or after the
/// thread's end.
pub(super) fn with<T>(f: impl FnOnce(&mut Batch) -> T) -> Option<T> {
    BATCH.try_with(|batch| batch.try_borrow_mut().ok().map(|mut batch| f(&mut batch))).ok().flatten()
}

/// No generation: a batch with this one keeps its sink.
const PINNED: u32 = u32::MAX;

impl Batch {
    /// A batch that does not follow the process's sink.
    #[cfg(test)]
    pub(super) fn pinned(sink: &'static Sink) -> Batch {
        let mut batch = Batch::fresh();
        (batch.sink, batch.generation) = (Some(sink), PINNED);
        batch
    }

    fn fresh() -> Batch {
        Batch { records: Vec::new(), count: 0, handed_ms: 0, generation: 0, sink: None, stamp: Stamp::default() }
    }

    /// Where this process's records go.
    pub(super) fn sink(&mut self) -> Option<&'static Sink> {
        let generation = sink::generation();
        if self.generation != generation && self.generation != PINNED {
            self.generation = generation;
            self.sink = sink::current();
        }
        self.sink
    }

    /// One record; `line` appends its text, and says whether it is known to need no redaction.
    pub(super) fn record(&mut self, kind: Kind, level: u8, line: impl FnOnce(&Sink, &mut Stamp, &mut Vec<u8>) -> bool) {
        let Some(sink) = self.sink() else { return };
        sink.emitted();
        let at = record::begin(kind, level, &mut self.records);
        let clean = line(sink, &mut self.stamp, &mut self.records);
        if self.records.len() - record::line_at(at) > RECORD_BYTES_MAX {
            cut(sink, record::line_at(at), &mut self.records);
        } else if clean {
            record::mark_clean(at, &mut self.records);
        }
        record::end(at, &mut self.records);
        self.count += 1;
        if self.records.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(super) fn flush(&mut self) {
        if self.count == 0 {
            return;
        }
        if let Some(sink) = self.sink() {
            sink.hand(&self.records, self.count);
        }
        self.count = 0;
        self.records.clear();
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Redacts the line that begins at `from`, then cuts it: half a secret would be none that the redactor knows.
fn cut(sink: &Sink, from: usize, records: &mut Vec<u8>) {
    let line = sink.redactor.line(&records[from..]).into_owned();
    records.truncate(from);
    let text = String::from_utf8_lossy(&line);
    let whole = super::escape::up_to(&text, false, from + RECORD_BYTES_MAX - CUT_MARK.len(), records);
    if !whole {
        records.extend_from_slice(CUT_MARK.as_bytes());
    }
}
