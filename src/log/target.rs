//! One log file: written, rotated, given up and found again.
//!
//! ```text
//! Open ──(disk full, directory gone, link at its name)──> Closed until ──(path resolved again, same checks)──> Open
//! ```
//! While it is closed, lines are dropped and counted; nobody waits.

use super::lines::Lines;
use super::rotate::{self, FILE_BYTES_MAX, Opened, Standing};
use super::tally::{Tally, word};
use crate::sys::clock;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

/// Milliseconds between two tries to open; lines flow again within this and a little.
const RETRY_MS: u64 = 1_000;
/// Milliseconds between two looks at what stands at the file's name.
const LOOK_MS: u64 = 500;

/// Where a file is, and which checks its directory gets.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) name: String,
    /// `LOG_DIR`: must be ours and closed to others, and is made again when it is gone.
    pub(super) own_dir: bool,
}

impl Place {
    pub(super) fn of(path: &Path) -> Result<Place, String> {
        let (dir, name) = rotate::split(path)?;
        Ok(Place { dir, name, own_dir: false })
    }

    fn open_dir(&self) -> Result<OwnedFd, String> {
        if self.own_dir { rotate::open_dir(&self.dir, None) } else { rotate::open_any_dir(&self.dir) }
    }

    fn shown(&self) -> String {
        self.dir.join(&self.name).display().to_string()
    }
}

/// A file destination.
pub(super) struct FileTarget {
    place: Place,
    /// Number of the destination on the board.
    number: usize,
    tally: Tally,
    state: State,
    /// What the operator should be told, oldest first.
    problems: Vec<Problem>,
    /// The problem that was told last, until a line is written again: a full disk is one line, not one a second.
    told: Option<String>,
}

enum State {
    Open { dir: OwnedFd, opened: Opened, looked_ms: u64 },
    Closed { retry_ms: u64 },
}

/// Why a file is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) text: String,
    /// Someone changed the file or its directory under us.
    pub(super) tampering: bool,
}

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) written: u64,
    pub(super) dropped: u64,
}

impl FileTarget {
    /// Opens the file and settles what a killed predecessor left: lines that it wrote and did not count.
    pub(super) fn open(place: Place, number: usize, tally: Tally) -> FileTarget {
        let state = State::Closed { retry_ms: 0 };
        let mut target = FileTarget { place, number, tally, state, problems: Vec::new(), told: None };
        target.try_open();
        target
    }

    /// Problems since the last call.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        std::mem::take(&mut self.problems)
    }

    /// When the file wants another try, in monotonic milliseconds.
    pub(super) fn due_ms(&self) -> Option<u64> {
        match self.state {
            State::Closed { retry_ms } => Some(retry_ms),
            State::Open { .. } => None,
        }
    }

    /// Tries again if it is time.
    pub(super) fn tick(&mut self) {
        if self.due_ms().is_some_and(|due| clock::monotonic_ms() >= due) {
            self.try_open();
        }
    }

    /// Opens the path anew (SIGUSR1).
    pub(super) fn reopen(&mut self) {
        self.try_open();
    }

    /// Writes lines, rotating before one that would pass the limit.
    pub(super) fn write(&mut self, lines: &Lines) {
        self.look();
        self.tick();
        let fate = self.write_all(lines);
        self.tally.add(word::DESTINATIONS + 2 * self.number, fate.written);
        self.tally.add(word::DESTINATIONS + 2 * self.number + 1, fate.dropped);
        let written = fate.written as usize;
        self.tally.add(word::DROPPED, lines.homes(written..written + fate.dropped as usize));
    }

    fn write_all(&mut self, lines: &Lines) -> Fate {
        let (mut from, mut fate) = (0, Fate::default());
        let ends = lines.ends();
        while (fate.written + fate.dropped) < ends.len() as u64 {
            let done = (fate.written + fate.dropped) as usize;
            let State::Open { opened, .. } = &mut self.state else {
                fate.dropped += (ends.len() - done) as u64;
                break;
            };
            let room = FILE_BYTES_MAX.saturating_sub(opened.bytes);
            let fitting = ends[done..].iter().take_while(|end| (**end - from) as u64 <= room).count();
            if fitting == 0 && opened.bytes > 0 {
                self.rotate();
                continue;
            }
            let last = done + fitting.max(1) - 1;
            fate.written += self.append(lines, from, done..last + 1);
            from = ends[last];
        }
        fate
    }

    /// Appends the lines of `range`, which begin at `from`; returns how many of them stand in the file now. Fewer
    /// than all: the file was given up.
    fn append(&mut self, lines: &Lines, from: usize, range: Range<usize>) -> u64 {
        let bytes = &lines.bytes()[from..lines.ends()[range.end - 1]];
        let State::Open { opened, .. } = &mut self.state else { return 0 };
        let (mut at, mut failure) = (0, None);
        while at < bytes.len() && failure.is_none() {
            match opened.file.write(&bytes[at..]) {
                Ok(0) => failure = Some("nothing more can be written".to_owned()),
                Ok(length) => at += length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => failure = Some(error.to_string()),
            }
        }
        let whole = memchr::memrchr(b'\n', &bytes[..at]).map_or(0, |newline| newline + 1);
        if whole < at {
            // Half a line: gone again, or mended at the next opening.
            let _ = opened.file.set_len(opened.bytes + whole as u64);
        }
        opened.bytes += whole as u64;
        let written = memchr::memchr_iter(b'\n', &bytes[..whole]).count() as u64;
        self.settle(lines.homes(range.start..range.start + written as usize), whole as u64);
        if written > 0 && failure.is_none() {
            self.told = None;
        }
        if let Some(failure) = failure {
            self.close(failure, false);
        }
        written
    }

    /// The file's length and the count go together: a successor counts what stands beyond that length.
    fn settle(&self, homes: u64, bytes: u64) {
        if let State::Open { opened, .. } = &self.state {
            self.tally.word(word::FILES + 2 * self.number).store(opened.inode, Relaxed);
            self.tally.word(word::FILES + 2 * self.number + 1).store(opened.bytes, Relaxed);
        }
        self.tally.add(word::WRITTEN, homes);
        self.tally.add(word::BYTES, bytes);
    }

    fn rotate(&mut self) {
        let State::Open { dir, .. } = &self.state else { return };
        let shifted = rotate::shift(dir.as_fd(), &self.place.name);
        match shifted {
            Ok(()) => {
                self.tally.add(word::ROTATIONS, 1);
                self.try_open();
            }
            Err(error) => self.close(format!("it cannot be rotated: {error}"), false),
        }
    }

    /// Twice a second, and at once for a file without a name: is what we write still what stands there?
    fn look(&mut self) {
        let State::Open { dir, opened, looked_ms } = &mut self.state else { return };
        let now_ms = clock::monotonic_ms();
        let nameless = nix::sys::stat::fstat(&opened.file).is_ok_and(|stat| stat.st_nlink == 0);
        if !nameless && now_ms.saturating_sub(*looked_ms) < LOOK_MS {
            return;
        }
        *looked_ms = now_ms;
        let standing = match rotate::same_dir(&self.place.dir, dir.as_fd()) {
            true => rotate::standing(dir.as_fd(), &self.place.name, opened.inode),
            false => Standing::Tampered,
        };
        match standing {
            Standing::Same => {}
            Standing::Moved if !nameless => self.try_open(),
            _ => {
                let text = format!("{} was changed under us", self.place.shown());
                self.problems.push(Problem { text, tampering: true });
                self.try_open();
            }
        }
    }

    fn try_open(&mut self) {
        let opened = self.place.open_dir().and_then(|dir| {
            let mut opened = rotate::open_file(dir.as_fd(), &self.place.name)?;
            self.settle_predecessor(&mut opened).map_err(|error| error.to_string())?;
            Ok((dir, opened))
        });
        match opened {
            Ok((dir, opened)) => {
                self.state = State::Open { dir, opened, looked_ms: clock::monotonic_ms() };
                self.settle(0, 0);
            }
            Err(problem) => self.close(problem, false),
        }
    }

    /// Counts lines beyond the length that was settled last, in the same file, and cuts a torn one.
    fn settle_predecessor(&self, opened: &mut Opened) -> std::io::Result<()> {
        let inode = self.tally.word(word::FILES + 2 * self.number).load(Relaxed);
        let settled = self.tally.word(word::FILES + 2 * self.number + 1).load(Relaxed);
        rotate::mend(opened)?;
        if inode == opened.inode && settled < opened.bytes {
            let surplus = rotate::lines_from(opened, settled)?.min(self.tally.unsettled());
            self.tally.add(word::WRITTEN, surplus);
        }
        Ok(())
    }

    fn close(&mut self, problem: String, tampering: bool) {
        if self.told.as_ref() != Some(&problem) {
            self.problems.push(Problem { text: format!("{}: {problem}", self.place.shown()), tampering });
            self.told = Some(problem);
        }
        self.state = State::Closed { retry_ms: clock::monotonic_ms() + RETRY_MS };
    }
}
