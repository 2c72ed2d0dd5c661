//! What became of every record, on the board: `emitted = written + dropped + lost + under way`, exactly.
//!
//! ```text
//! sender:       emitted (before anything else) ─┬─ dropped: its queue was full
//!                                               └─ numbered in the order it is handed over
//! log process:  expected (next number; a gap is lost) ── made (lines of its own, of a child's stderr)
//!               └─ home destination: written | dropped        copies to a second destination count apart
//! ```
//!
//! A life begins numbering at `emitted - dropped`, so what died with the life before shows as a gap. The words outlive
//! the log process: a successor finds what was received but neither written nor dropped, and settles it.

use crate::board::{Board, Sender};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Words of one sender.
pub mod sender {
    /// Records that the sender formed, whatever became of them.
    pub const EMITTED: usize = 0;
    /// Records that the sender gave up, because its queue was full.
    pub const DROPPED: usize = 1;
    /// The number that the log process expects next: records taken over, and gaps.
    pub const EXPECTED: usize = 2;
}

/// Words of the log process, see [`Board::log`].
pub mod word {
    /// Records written to their home destination.
    pub const WRITTEN: usize = 0;
    /// Records that the log process gave up: disk full, reader blocked, nowhere to go.
    pub const DROPPED: usize = 1;
    /// Records that died with a killed process.
    pub const LOST: usize = 2;
    /// Lines that began in the log process: children's stderr, its own reports.
    pub const MADE: usize = 3;
    /// Lines that the redactor altered.
    pub const REDACTED: usize = 4;
    /// Rotations of all files.
    pub const ROTATIONS: usize = 5;
    /// Bytes written to all destinations.
    pub const BYTES: usize = 6;
    /// Lines cut because they were too long.
    pub const CUT: usize = 7;
    /// Per destination (app, error, access): lines written, lines dropped; copies included.
    pub const DESTINATIONS: usize = 8;
    /// Per destination: the file's inode and its length when it was last settled.
    pub const FILES: usize = 16;
    /// Security events by [`crate::log::Security`], suppressed ones included; counted by the senders.
    pub const SECURITY: usize = 32;
}

/// The log process's hand on the words. It alone writes them.
#[derive(Clone, Copy)]
pub struct Tally {
    board: Board,
}

/// All records at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// By every sender and by the log process itself.
    pub emitted: u64,
    /// At their home destination.
    pub written: u64,
    /// Given up, by a sender or by the log process.
    pub dropped: u64,
    /// Died with a killed process.
    pub lost: u64,
}

impl Count {
    /// Records that are neither written nor given up yet. Zero when nobody writes and everybody has read.
    pub fn under_way(&self) -> u64 {
        self.emitted.saturating_sub(self.written.wrapping_add(self.dropped).wrapping_add(self.lost))
    }
}

/// Every sender there can be.
pub fn senders() -> impl Iterator<Item = Sender> {
    [Sender::Master, Sender::Engine].into_iter().chain((0..crate::board::SLOTS_MAX).map(Sender::Slot))
}

/// Counts all records; exact when no record is under way.
pub fn count(board: Board) -> Count {
    let log = board.log();
    let made = log[word::MADE].load(Relaxed);
    let mut total = Count {
        emitted: made,
        written: log[word::WRITTEN].load(Relaxed),
        dropped: log[word::DROPPED].load(Relaxed),
        lost: log[word::LOST].load(Relaxed),
    };
    for words in senders().map(|sender| board.sender(sender)) {
        // A scribbler must not end who reads.
        total.emitted = total.emitted.wrapping_add(words[sender::EMITTED].load(Relaxed));
        total.dropped = total.dropped.wrapping_add(words[sender::DROPPED].load(Relaxed));
    }
    total
}

/// Where the next life of a sender begins to number.
pub fn numbering_base(words: &[AtomicU64]) -> u64 {
    words[sender::EMITTED].load(Relaxed).saturating_sub(words[sender::DROPPED].load(Relaxed))
}

impl Tally {
    /// The hand on this board's words.
    pub fn new(board: Board) -> Tally {
        Tally { board }
    }

    /// A word of the log process.
    pub fn word(&self, index: usize) -> &'static AtomicU64 {
        &self.board.log()[index]
    }

    /// Adds to a word.
    pub fn add(&self, index: usize, count: u64) {
        if count > 0 {
            self.word(index).fetch_add(count, Relaxed);
        }
    }

    /// Takes over `count` records that begin at `first`; a gap before them is lost.
    ///
    /// The expected number moves first: a log process killed between the two leaves records that its successor
    /// finds unsettled, not a gap counted twice.
    pub fn take_over(&self, sender: Sender, first: u64, count: u64) {
        let words = self.board.sender(sender);
        let expected = words[sender::EXPECTED].load(Relaxed);
        // A worker may write any number: it can spoil its own count, not wrap the total.
        let emitted = words[sender::EMITTED].load(Relaxed);
        let first = first.clamp(expected, emitted.max(expected));
        words[sender::EXPECTED].store(first.wrapping_add(count), Relaxed);
        self.add(word::LOST, first - expected);
    }

    /// At the end of file of a sender: what it emitted and never handed over is lost.
    pub fn close(&self, sender: Sender) {
        self.take_over(sender, numbering_base(self.board.sender(sender)), 0);
    }

    /// Records taken over (or made here) that are neither written nor dropped nor lost.
    pub fn unsettled(&self) -> u64 {
        let load = |index: usize| self.word(index).load(Relaxed);
        let expected = senders().map(|sender| self.board.sender(sender)[sender::EXPECTED].load(Relaxed));
        let expected = expected.fold(0, u64::wrapping_add);
        let settled = load(word::LOST).wrapping_add(load(word::WRITTEN)).wrapping_add(load(word::DROPPED));
        expected.wrapping_add(load(word::MADE)).saturating_sub(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_lost_once_and_a_life_settles_the_one_before() {
        let board = Board::create().unwrap();
        let tally = Tally::new(board);
        let words = board.sender(Sender::Slot(3));
        words[sender::EMITTED].store(10, Relaxed);
        words[sender::DROPPED].store(2, Relaxed);
        tally.take_over(Sender::Slot(3), 0, 5);
        tally.add(word::WRITTEN, 5);
        assert_eq!(count(board), Count { emitted: 10, written: 5, dropped: 2, lost: 0 });
        assert_eq!(count(board).under_way(), 3);
        words[sender::EMITTED].store(11, Relaxed);
        tally.take_over(Sender::Slot(3), 8, 1);
        tally.add(word::WRITTEN, 1);
        assert_eq!(count(board), Count { emitted: 11, written: 6, dropped: 2, lost: 3 });
        assert_eq!(count(board).under_way(), 0);
        assert_eq!(tally.unsettled(), 0);
    }

    #[test]
    fn a_scribbled_number_spoils_no_more_than_its_sender() {
        let board = Board::create().unwrap();
        let tally = Tally::new(board);
        board.sender(Sender::Engine)[sender::EMITTED].store(4, Relaxed);
        tally.take_over(Sender::Engine, u64::MAX, 1);
        assert_eq!(count(board).lost, 4);
        tally.take_over(Sender::Engine, 0, 1);
        assert_eq!(count(board).lost, 4);
    }
}
