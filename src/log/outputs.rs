//! Destinations and the way to them: app and security lines to `app.log` and the error destination, access lines to
//! the access destination.
//!
//! Each line has one home, where it counts as written or dropped; a second destination gets a copy.

use super::lines::Lines;
use super::record::Kind;
use super::rotate::APP_LOG;
use super::stream::StreamTarget;
use super::tally::{Tally, word};
use super::target::{FileTarget, Place, Problem};
use super::{Destination, Plan};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a reader of stdout or stderr may take for the last lines, in milliseconds.
const LAST_LINES_MS_MAX: u64 = 1_000;

/// Where standard streams lead.
pub(super) struct Streams {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// All destinations of a plan.
pub(super) struct Outputs {
    outputs: Vec<Output>,
    app: Option<usize>,
    error: Option<usize>,
    access: Option<usize>,
    /// stderr, for what must be said even when no file can be written.
    voice: usize,
    tally: Tally,
}

struct Output {
    target: Target,
    path: Option<PathBuf>,
    lines: Lines,
}

enum Target {
    File(FileTarget),
    Stream(StreamTarget),
}

impl Outputs {
    /// Opens what the plan names; `dir` is `LOG_DIR` when it can be used.
    ///
    /// # Errors
    /// Out of threads. A file that cannot be opened is no error: it is tried again.
    pub(super) fn open(plan: &Plan, dir: Option<&Path>, streams: Streams, tally: Tally) -> io::Result<Outputs> {
        let mut outputs = Outputs { outputs: Vec::new(), app: None, error: None, access: None, voice: 0, tally };
        let stderr = StreamTarget::start(streams.stderr, ERROR, tally)?;
        outputs.voice = outputs.add(Target::Stream(stderr), None);
        if let Some(dir) = dir {
            let place = Place { dir: dir.to_owned(), name: APP_LOG.to_owned(), own_dir: true };
            outputs.app = Some(outputs.file(place, APP));
        }
        outputs.error = match &plan.error {
            Destination::Off => None,
            Destination::Stream => Some(outputs.voice),
            Destination::File(path) => outputs.path(path, ERROR),
        };
        outputs.access = match &plan.access {
            Destination::Off => None,
            Destination::Stream => {
                let stdout = StreamTarget::start(streams.stdout, ACCESS, tally)?;
                Some(outputs.add(Target::Stream(stdout), None))
            }
            Destination::File(path) => outputs.path(path, ACCESS),
        };
        Ok(outputs)
    }

    fn add(&mut self, target: Target, path: Option<PathBuf>) -> usize {
        self.outputs.push(Output { target, path, lines: Lines::default() });
        self.outputs.len() - 1
    }

    fn file(&mut self, place: Place, number: usize) -> usize {
        let path = place.dir.join(&place.name);
        let target = FileTarget::open(place, number, self.tally);
        self.add(Target::File(target), Some(path))
    }

    /// A file by its path; one that is open already has one writer, not two.
    fn path(&mut self, path: &Path, number: usize) -> Option<usize> {
        let known = self.outputs.iter().position(|output| output.path.as_deref() == Some(path));
        known.or_else(|| Some(Place::of(path).ok()?).map(|place| self.file(place, number)))
    }

    /// Takes a finished line to where it belongs.
    pub(super) fn route(&mut self, kind: Kind, level: u8, line: &[u8]) {
        let (home, copy) = match kind {
            Kind::Access => (self.access, None),
            _ if self.app.is_some() => (self.app, self.error.filter(|error| Some(*error) != self.app)),
            _ => (self.error, None),
        };
        match home {
            Some(home) => self.outputs[home].push(true, level, line),
            None => self.tally.add(word::DROPPED, 1),
        }
        if let Some(copy) = copy {
            self.outputs[copy].push(false, level, line);
        }
    }

    /// Says something on stderr alone: it is about the other destinations, and counts nowhere.
    pub(super) fn say(&mut self, level: u8, line: &[u8]) {
        let voice = self.voice;
        self.outputs[voice].push(false, level, line);
    }

    /// Bytes that wait for [`Outputs::flush`] in the fullest of them.
    pub(super) fn gathered(&self) -> usize {
        self.outputs.iter().map(|output| output.lines.bytes().len()).max().unwrap_or(0)
    }

    /// Writes what has gathered.
    pub(super) fn flush(&mut self) {
        self.outputs.iter_mut().for_each(Output::flush);
    }

    /// Opens all files anew.
    pub(super) fn reopen(&mut self) {
        self.files().for_each(FileTarget::reopen);
    }

    /// Tries to open again what could not be opened, when it is time.
    pub(super) fn tick(&mut self) {
        self.files().for_each(FileTarget::tick);
    }

    /// When [`Outputs::tick`] has something to do.
    pub(super) fn due_ms(&mut self) -> Option<u64> {
        self.files().filter_map(|file| file.due_ms()).min()
    }

    /// What went wrong since the last call.
    pub(super) fn problems(&mut self) -> Vec<Problem> {
        self.files().flat_map(FileTarget::problems).collect()
    }

    /// At the end: streams get a moment to be read.
    pub(super) fn finish(&mut self) {
        self.flush();
        for output in &self.outputs {
            if let Target::Stream(stream) = &output.target {
                stream.finish(Duration::from_millis(LAST_LINES_MS_MAX));
            }
        }
    }

    fn files(&mut self) -> impl Iterator<Item = &mut FileTarget> {
        self.outputs.iter_mut().filter_map(|output| match &mut output.target {
            Target::File(file) => Some(file),
            Target::Stream(_) => None,
        })
    }
}

/// Numbers of the destinations on the board.
const APP: usize = 0;
const ERROR: usize = 1;
const ACCESS: usize = 2;

impl Output {
    fn push(&mut self, home: bool, level: u8, line: &[u8]) {
        match &self.target {
            Target::Stream(stream) if stream.journal => self.lines.push(home, &[priority(level), line]),
            _ => self.lines.push(home, &[line]),
        }
    }

    fn flush(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        match &mut self.target {
            Target::File(file) => file.write(&self.lines),
            Target::Stream(stream) => stream.write(&self.lines),
        }
        self.lines.clear();
    }
}

/// The journal's prefix for a level (sd-daemon(3)).
fn priority(level: u8) -> &'static [u8] {
    match level {
        1 => b"<3>",
        2 => b"<4>",
        3 => b"<6>",
        _ => b"<7>",
    }
}
