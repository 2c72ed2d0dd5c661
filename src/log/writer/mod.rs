//! The log process: the only one that writes log files.
//!
//! ```text
//! poll ─> packets of all senders, in turn ─> redact ─> one line? ─> route ─> one write a destination
//!   │ end of file of all senders and of the master ─> finish ─> gone
//! ```
//! One thread, and one for each standard stream, which may block. It ignores every signal that would end it: what is
//! under way when the master dies still reaches the file. Deliberately absent: a wait for anybody.

use crate::board::{Board, Sender};
use crate::log::event::{self, Origin};
use crate::log::flood::Security;
use crate::log::outputs::{Outputs, Streams};
use crate::log::pipe::{self, Told};
use crate::log::raw::Raw;
use crate::log::record::{Kind, Packet, RECORD_BYTES_MAX};
use crate::log::redact::{self, Redactor, Trail};
use crate::log::tally::{self, Tally, word};
use crate::log::time::Stamp;
use crate::log::{Plan, batch::CUT_MARK, escape, lock, rotate, sink};
use crate::sys::{clock, process, signal};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Lines that wait to be written together, in bytes: with one packet more they are what a kill can lose.
const GATHERED_BYTES_MAX: usize = 24 * 1024;
/// The largest packet of a child's print that a pipe could hold; pages that stay untouched cost nothing.
const RECEIVE_BYTES_MAX: usize = 2 << 20;
/// While packets come faster than this they are gathered for so many milliseconds.
const PACE_MS: u8 = 1;
/// Drops are reported once in so many milliseconds.
const REPORT_MS: u64 = 60_000;
const WARN: u8 = 2;
const ERROR: u8 = 1;

/// The log process's main. Returns its exit code when every sender and the master are gone, or a successor comes.
pub fn run(plan: &Plan, board: Board, readers: Vec<(Sender, OwnedFd)>, control: OwnedFd) -> i32 {
    process::name("chatcorn log");
    let ignored = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    let _ = signal::ignore(&ignored).and_then(|()| signal::unblock_all());
    let streams = || io::Result::Ok(Streams { stdout: own(&io::stdout())?, stderr: own(&io::stderr())? });
    match streams().and_then(|streams| serve(plan, board, readers, control, streams)) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn own(stream: &impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

/// [`run`] without what concerns the whole process.
pub(super) fn serve(
    plan: &Plan,
    board: Board,
    readers: Vec<(Sender, OwnedFd)>,
    control: OwnedFd,
    streams: Streams,
) -> io::Result<()> {
    let mut collector = Collector::open(plan, board, readers, control, streams)?;
    // A master that does not listen is found out by its end of file.
    let _ = collector.control.as_ref().map(pipe::ready);
    while collector.turn()? {}
    collector.finish();
    Ok(())
}

struct Collector {
    board: Board,
    tally: Tally,
    redactor: &'static Redactor,
    format: crate::log::Format,
    sources: Vec<Source>,
    control: Option<OwnedFd>,
    outputs: Outputs,
    stamp: Stamp,
    buffer: Vec<u8>,
    line: Vec<u8>,
    reported: Reported,
    retiring: bool,
    /// When packets came last, in monotonic milliseconds.
    busy_ms: u64,
    _lock: Option<lock::Lock>,
}

struct Source {
    sender: Sender,
    pipe: Option<OwnedFd>,
    raw: Raw,
    trail: Trail,
}

#[derive(Default)]
struct Reported {
    at_ms: u64,
    dropped: u64,
    lost: u64,
}

impl Source {
    fn new((sender, pipe): (Sender, OwnedFd)) -> Source {
        Source { sender, pipe: Some(pipe), raw: Raw::default(), trail: Trail::default() }
    }
}

impl Collector {
    fn open(
        plan: &Plan,
        board: Board,
        readers: Vec<(Sender, OwnedFd)>,
        control: OwnedFd,
        streams: Streams,
    ) -> io::Result<Collector> {
        let tally = Tally::new(board);
        // A directory that was set is tried again for ever; the default one only when it can be used now.
        let (dir, warning) = match rotate::prepare(plan) {
            Ok(prepared) => (prepared.dir, prepared.warning),
            Err(problem) => (plan.dir_set.then(|| plan.dir.clone()), Some(problem)),
        };
        let (lock, dir, busy) = lock::take(dir);
        let outputs = Outputs::open(plan, dir.as_deref(), streams, tally)?;
        // What a killed predecessor took over and neither wrote nor dropped is lost.
        tally.add(word::LOST, tally.unsettled());
        let mut collector = Collector {
            board,
            tally,
            redactor: redact::shared(&plan.patterns).map_err(io::Error::other)?,
            format: plan.format,
            sources: readers.into_iter().map(Source::new).collect(),
            control: Some(control),
            outputs,
            stamp: Stamp::default(),
            buffer: vec![0; RECEIVE_BYTES_MAX],
            line: Vec::new(),
            reported: Reported { at_ms: clock::monotonic_ms(), ..Reported::default() },
            retiring: false,
            busy_ms: 0,
            _lock: lock,
        };
        warning.into_iter().chain(busy).for_each(|text| collector.say(WARN, &text));
        collector.tell_problems();
        collector.outputs.flush();
        Ok(collector)
    }

    /// One round: waits, takes what has arrived, writes it. False at the end.
    fn turn(&mut self) -> io::Result<bool> {
        let ready = self.wait()?;
        self.pace();
        if ready.first().copied().unwrap_or(false) {
            self.listen();
        }
        self.gather();
        self.sources.retain(|source| source.pipe.is_some());
        self.end_partial_lines(false);
        self.outputs.tick();
        self.tell_problems();
        self.report();
        self.outputs.flush();
        Ok(!(self.sources.is_empty() && self.control.is_none() || self.retiring))
    }

    /// Waits for something to do; the first answer is the control link's.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let now_ms = clock::monotonic_ms();
        let timeout = match self.due_ms() {
            Some(due) => {
                PollTimeout::try_from(due.saturating_sub(now_ms).min(60_000) as i32).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let control = self.control.iter().map(AsFd::as_fd);
        let pipes = self.sources.iter().filter_map(|source| source.pipe.as_ref()).map(AsFd::as_fd);
        let mut polled: Vec<PollFd> = control.chain(pipes).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        if self.control.is_none() {
            ready.insert(0, false);
        }
        Ok(ready)
    }

    /// Under load, lets packets gather for a moment: one wake-up and one write for many lines.
    fn pace(&mut self) {
        let now_ms = clock::monotonic_ms();
        if now_ms.saturating_sub(self.busy_ms) <= u64::from(PACE_MS) {
            let _ = poll(&mut [], PollTimeout::from(PACE_MS));
        }
        self.busy_ms = now_ms;
    }

    fn due_ms(&mut self) -> Option<u64> {
        let partial = self.sources.iter().filter_map(|source| source.raw.due_ms()).min();
        let files = self.outputs.due_ms();
        let report = self.unreported().then_some(self.reported.at_ms + REPORT_MS);
        partial.into_iter().chain(files).chain(report).min()
    }

    fn listen(&mut self) {
        while let Some(control) = &self.control {
            match pipe::heard(control) {
                Told::Reader(sender, pipe) => {
                    self.sources.retain(|source| source.sender != sender);
                    self.sources.push(Source::new((sender, pipe)));
                }
                Told::Reopen => self.outputs.reopen(),
                Told::Retire => self.retiring = true,
                Told::Closed => self.control = None,
                Told::Nothing => return,
            }
        }
    }

    /// Takes packets in turn, one of each sender, until none has any; writes whenever enough has gathered.
    fn gather(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut more = true;
        while more {
            more = false;
            for at in 0..self.sources.len() {
                more |= self.take_one(at, &mut buffer);
                if self.outputs.gathered() >= GATHERED_BYTES_MAX {
                    self.outputs.flush();
                }
            }
        }
        self.buffer = buffer;
    }

    fn take_one(&mut self, at: usize, buffer: &mut [u8]) -> bool {
        let Some(pipe) = &self.sources[at].pipe else { return false };
        match recv(pipe.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => {
                self.close(at);
                false
            }
            Ok(length) => {
                self.packet(at, &buffer[..length]);
                true
            }
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            Err(_) => {
                self.close(at);
                false
            }
        }
    }

    fn close(&mut self, at: usize) {
        self.sources[at].pipe = None;
        self.end_partial(at, true);
        self.tally.close(self.sources[at].sender);
    }

    fn packet(&mut self, at: usize, bytes: &[u8]) {
        let Some(packet) = Packet::parse(bytes) else {
            self.sources[at].raw.push(bytes);
            return self.whole_lines(at);
        };
        self.tally.take_over(self.sources[at].sender, packet.first, packet.records().count() as u64);
        for record in packet.records() {
            let trail = &mut self.sources[at].trail;
            if record.clean && trail.is_closed() && self.redactor.is_plain() && record.line.len() <= RECORD_BYTES_MAX {
                self.outputs.route(record.kind, record.level, record.line);
                continue;
            }
            let line = self.redactor.line_after(record.line, trail);
            if matches!(line, std::borrow::Cow::Owned(_)) {
                self.tally.add(word::REDACTED, 1);
            }
            if line.len() <= RECORD_BYTES_MAX && escape::is_clean(&line) {
                self.outputs.route(record.kind, record.level, &line);
            } else {
                self.line.clear();
                tidy(&line, &mut self.line);
                self.tally.add(word::CUT, u64::from(line.len() > RECORD_BYTES_MAX));
                self.outputs.route(record.kind, record.level, &self.line);
            }
        }
    }

    fn whole_lines(&mut self, at: usize) {
        while let Some(text) = self.sources[at].raw.next_line() {
            self.print(at, &text);
        }
    }

    fn end_partial_lines(&mut self, now: bool) {
        (0..self.sources.len()).for_each(|at| self.end_partial(at, now));
    }

    fn end_partial(&mut self, at: usize, now: bool) {
        if let Some(text) = self.sources[at].raw.rest(now) {
            self.print(at, &text);
        }
    }

    /// A line that a child printed: a warning of that process.
    fn print(&mut self, at: usize, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let source = &mut self.sources[at];
        let redacted = self.redactor.line_after(text, &mut source.trail);
        let altered = matches!(redacted, std::borrow::Cow::Owned(_));
        let mut message = Vec::new();
        tidy(&redacted, &mut message);
        let pid = match source.sender {
            Sender::Slot(number) => self.board.slot(number).pid() as u32,
            Sender::Master | Sender::Engine => 0,
        };
        let process = sink::name(source.sender);
        self.tally.add(word::REDACTED, u64::from(altered));
        let origin = Origin { target: "stderr", pid, process: &process };
        self.made(Kind::App, WARN, &origin, &String::from_utf8_lossy(&message), &[]);
    }

    /// A line that begins here.
    fn made(&mut self, kind: Kind, level: u8, origin: &Origin<'_>, message: &str, fields: &[(&str, &str)]) {
        self.tally.add(word::MADE, 1);
        self.compose(level, origin, message, fields);
        self.outputs.route(kind, level, &self.line);
    }

    fn compose(&mut self, level: u8, origin: &Origin<'_>, message: &str, fields: &[(&str, &str)]) {
        self.line.clear();
        event::head(self.format, &mut self.stamp, level, origin, &mut self.line);
        let pairs = std::iter::once(("message", message)).chain(fields.iter().copied());
        pairs.for_each(|(name, value)| event::pair(self.format, name, value, &mut self.line));
        event::tail(self.format, &mut self.line);
    }

    /// Something about logging itself, on stderr alone.
    fn say(&mut self, level: u8, text: &str) {
        self.compose(level, &OWN, text, &[]);
        self.outputs.say(level, &self.line);
    }

    fn tell_problems(&mut self) {
        for problem in self.outputs.problems() {
            self.say(ERROR, &format!("log file: {}", problem.text));
            if problem.tampering {
                self.tally.add(Security::LogTampering.word(), 1);
                let name = Security::LogTampering.name();
                let fields = [("event", name), ("detail", problem.text.as_str())];
                self.made(Kind::Security, WARN, &Origin { target: event::SECURITY_TARGET, ..OWN }, name, &fields);
            }
        }
    }

    fn unreported(&self) -> bool {
        let count = tally::count(self.board);
        (count.dropped, count.lost) != (self.reported.dropped, self.reported.lost)
    }

    /// Once a minute, if lines were dropped or lost since.
    fn report(&mut self) {
        let now_ms = clock::monotonic_ms();
        if now_ms.saturating_sub(self.reported.at_ms) < REPORT_MS {
            return;
        }
        if self.unreported() {
            let count = tally::count(self.board);
            let (dropped, lost) = (count.dropped - self.reported.dropped, count.lost - self.reported.lost);
            self.say(WARN, &format!("log lines dropped: {dropped}, lost with a killed process: {lost}"));
            self.reported = Reported { at_ms: now_ms, dropped: count.dropped, lost: count.lost };
        }
        self.reported.at_ms = now_ms;
    }

    fn finish(&mut self) {
        self.end_partial_lines(true);
        self.outputs.finish();
    }
}

const OWN: Origin<'static> = Origin { target: "chatcorn::log", pid: 0, process: "log" };

/// Makes a redacted line one clean line of a bounded length.
fn tidy(line: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(line);
    let from = out.len();
    if !escape::up_to(&text, false, from + RECORD_BYTES_MAX - CUT_MARK.len(), out) {
        out.extend_from_slice(CUT_MARK.as_bytes());
    }
}

#[cfg(test)]
mod tests;
