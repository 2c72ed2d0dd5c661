//! The log path under fire: four workers write 50,000 lines a second together through rotations, a worker is killed
//! every 100 ms, the log process twice. Then every line is looked at and counted: `cargo bench --bench logstorm`.

use chatcorn::board::{Board, Sender};
use chatcorn::log::{self, Destination, Plan, access, pipe, tally, writer};
use chatcorn::sys::{clock, fd, fork, process, wait};
use nix::poll::{PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use std::collections::HashSet;
use std::convert::Infallible;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const WORKERS: usize = 4;
const LINES_A_SECOND: u64 = 50_000;
const STORM_MS: u64 = 3_000;
const LONG_STORM_MS: u64 = 30_000;
const WORKER_KILL_MS: u64 = 100;
/// When the log process is killed, in thousandths of the storm.
const LOG_KILLS: [u64; 2] = [300, 630];

struct Storm {
    plan: Plan,
    board: Board,
    pipes: pipe::Pipes,
    workers: [i32; WORKERS],
    lives: u64,
    log: i32,
    link: Option<OwnedFd>,
    storm_ms: u64,
    end_ms: u64,
}

fn main() -> std::io::Result<()> {
    let dir = std::env::temp_dir().join(format!("chatcorn-storm-{}", std::process::id()));
    let plan = Plan {
        dir: dir.clone(),
        dir_set: true,
        access: Destination::File(dir.join("access.log")),
        error: Destination::Off,
        ..Plan::default()
    };
    let mut pipes = pipe::Pipes::new();
    for slot in 0..WORKERS {
        pipes.ensure(Sender::Slot(slot))?;
    }
    // As the master does: compiled before the first fork.
    log::redact::shared(&plan.patterns).map_err(std::io::Error::other)?;
    let storm_ms = if std::env::var_os("CHATCORN_TEST_LONG").is_some() { LONG_STORM_MS } else { STORM_MS };
    let end_ms = clock::monotonic_ms() + storm_ms;
    let board = Board::create()?;
    let mut storm = Storm { plan, board, pipes, workers: [0; WORKERS], lives: 0, log: 0, link: None, storm_ms, end_ms };
    let kills = storm.rage()?;
    storm.calm()?;
    let whole = storm.judge(&dir, kills);
    std::fs::remove_dir_all(dir)?;
    // For bin/test, where nobody reads the table.
    if whole { Ok(()) } else { Err(std::io::Error::other("lines are torn, doubled or not counted")) }
}

impl Storm {
    fn rage(&mut self) -> std::io::Result<u64> {
        let begun = clock::monotonic_ms();
        self.start_log()?;
        for slot in 0..WORKERS {
            self.start_worker(slot)?;
        }
        let (mut kills, mut log_kills) = (0, 0);
        while clock::monotonic_ms() + WORKER_KILL_MS < self.end_ms {
            pause(WORKER_KILL_MS as u8);
            let slot = kills as usize % WORKERS;
            self.kill(self.workers[slot]);
            self.pipes.mark_end(Sender::Slot(slot), self.board);
            self.start_worker(slot)?;
            kills += 1;
            if LOG_KILLS.get(log_kills).is_some_and(|at| clock::monotonic_ms() - begun > self.storm_ms * at / 1000) {
                self.kill(self.log);
                let before = tally::count(self.board);
                let at = clock::monotonic_ms();
                self.start_log()?;
                log_kills += 1;
                println!("log process killed: {before:?}; next one reads after {} ms", clock::monotonic_ms() - at);
            }
        }
        Ok(kills)
    }

    /// Workers end by themselves, then the log process by end of file.
    fn calm(&mut self) -> std::io::Result<()> {
        let mut left: HashSet<i32> = self.workers.into_iter().collect();
        while !left.is_empty() {
            wait::reap().iter().for_each(|exit| {
                left.remove(&exit.pid);
            });
            pause(5);
        }
        self.pipes.close_writers();
        self.link = None;
        while !wait::reap().iter().any(|exit| exit.pid == self.log) {
            pause(5);
        }
        Ok(())
    }

    fn judge(&self, dir: &std::path::Path, kills: u64) -> bool {
        let count = tally::count(self.board);
        let (mut lines, mut seen, mut torn, mut double, mut longest) = (0u64, HashSet::new(), 0, 0, 0);
        let names = std::iter::once("access.log".to_owned()).chain((1..=9).map(|n| format!("access.log.{n}")));
        for bytes in names.filter_map(|name| std::fs::read(dir.join(name)).ok()) {
            longest = longest.max(bytes.len());
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                lines += 1;
                match serde_json::from_slice::<serde_json::Value>(line) {
                    Ok(value) if line.ends_with(b"}\n") => {
                        double += u64::from(!seen.insert(value["request_id"].as_str().unwrap_or_default().to_owned()));
                    }
                    _ => torn += 1,
                }
            }
        }
        let rotations = self.board.log()[tally::word::ROTATIONS].load(std::sync::atomic::Ordering::Relaxed);
        println!("{kills} workers killed, {rotations} rotations, largest file {longest} bytes");
        println!("{count:?}, under way {}", count.under_way());
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) {
            let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            println!("CPU of all processes a line: {:.2} us", cpu as f64 / count.emitted as f64);
        }
        println!("lines in files {lines}, torn {torn}, doubled {double}");
        println!("emitted = written + dropped + lost: {}", count.under_way() == 0);
        // Panics stand in app.log. More rotations than there are backups take lines away, which is their purpose.
        let app = std::fs::read(dir.join("app.log")).map_or(0, |text| memchr::memchr_iter(b'\n', &text).count() as u64);
        let all_there = lines + app == count.written || rotations > 5;
        println!("written = lines in files: {all_there}");
        let whole = torn == 0 && double == 0 && count.under_way() == 0 && all_there;
        println!(
            "row\t{kills} kills of workers, {} of the log process, {rotations} rotations\t{} lines, {} lost, {}\tno line torn, doubled or uncounted",
            LOG_KILLS.len(),
            count.emitted,
            count.lost,
            if whole { "whole and counted" } else { "NOT whole" }
        );
        whole && panics_are_redacted(dir)
    }

    fn start_log(&mut self) -> std::io::Result<()> {
        let (link, control) = fd::packet_pair()?;
        let readers = self.pipes.clone_readers()?;
        let (plan, board) = (self.plan.clone(), self.board);
        self.log = fork::fork_child(move || {
            let keep: Vec<i32> = readers.iter().map(|(_, fd)| fd.as_raw_fd()).chain([control.as_raw_fd()]).collect();
            fd::close_all_but(&keep);
            fork::leave(writer::run(&plan, board, readers, control))
        })?
        .as_raw();
        let mut packet = [0u8; 16];
        let length = nix::unistd::read(&link, &mut packet)?;
        assert_eq!(&packet[..length], pipe::READY);
        self.link = Some(link);
        Ok(())
    }

    fn start_worker(&mut self, slot: usize) -> std::io::Result<()> {
        self.lives += 1;
        let sender = Sender::Slot(slot);
        let pipe = self.pipes.writer(sender).ok_or(std::io::ErrorKind::NotFound)?.try_clone_to_owned()?;
        let (plan, board, life, end_ms) = (self.plan.clone(), self.board, self.lives, self.end_ms);
        self.workers[slot] = fork::fork_child(move || work(&plan, sender, pipe, board, life, end_ms))?.as_raw();
        Ok(())
    }

    fn kill(&self, pid: i32) {
        process::kill(pid, Signal::SIGKILL);
        while !wait::reap().iter().any(|exit| exit.pid == pid) {
            pause(1);
        }
    }
}

fn work(plan: &Plan, sender: Sender, pipe: OwnedFd, board: Board, life: u64, end_ms: u64) -> Infallible {
    fd::close_all_but(&[pipe.as_raw_fd()]);
    let Ok(guard) = log::start_worker(plan, sender, pipe, board) else { fork::leave(1) };
    if life % 7 == 3 {
        // A worker that panics with a secret in its text and goes on.
        let _ = std::panic::catch_unwind(|| panic!("upstream refused {PLANTED} as a key"));
    }
    let mut number = 0u64;
    while clock::monotonic_ms() < end_ms {
        for _ in 0..LINES_A_SECOND / WORKERS as u64 / 500 {
            number += 1;
            line(&format!("{life}-{number}"));
        }
        log::flush();
        pause(2);
    }
    drop(guard);
    fork::leave(0)
}

const PLANTED: &str = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678";

/// Every panic is a line of app.log, without the secret that its text held.
fn panics_are_redacted(dir: &std::path::Path) -> bool {
    let text = std::fs::read_to_string(dir.join("app.log")).unwrap_or_default();
    let panics = text.lines().filter(|line| line.contains("\"target\":\"panic\"")).count();
    let leaked = PLANTED.as_bytes().windows(8).any(|window| memchr::memmem::find(text.as_bytes(), window).is_some());
    println!("panics with a secret in their text: {panics} lines, leaked: {leaked}");
    panics > 0 && !leaked
}

fn line(request_id: &str) {
    access::emit(&access::Record {
        request_id,
        own_id: true,
        client: Some([10, 1, 2, 3].into()),
        method: "POST",
        path: "/api/chat",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_in: 123,
        bytes_out: 4567,
        duration: Duration::from_micros(12_345),
        first_byte: Some(Duration::from_micros(2_345)),
        worker: 2,
        verdict: "admitted",
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0"),
    });
}

fn pause(ms: u8) {
    let _ = poll(&mut [], PollTimeout::from(ms));
}
