//! The log process in a thread, over real pipes and a real directory.

use super::*;
use crate::log::pipe::Pipes;
use crate::log::record::{begin, end, packet_head};
use crate::log::tally::{Count, sender};
use crate::log::{Destination, Format};
use crate::sys::fd::packet_pair;
use nix::sys::socket::{MsgFlags, send};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("chatcorn-log-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Dir(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// All lines of all files of a name, oldest first.
    fn lines(&self, name: &str) -> Vec<String> {
        let backups = (1..=9).rev().map(|number| self.text(&format!("{name}.{number}")));
        backups.chain([self.text(name)]).flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running log process, as far as this process can be one.
struct Rig {
    board: Board,
    pipes: Pipes,
    link: Option<OwnedFd>,
    thread: Option<JoinHandle<io::Result<()>>>,
    stdout: fs::File,
    stderr: fs::File,
}

fn plan(dir: &Path) -> Plan {
    Plan {
        dir: dir.to_owned(),
        dir_set: true,
        access: Destination::File(dir.join("access.log")),
        error: Destination::Off,
        ..Plan::default()
    }
}

impl Rig {
    fn start(plan: &Plan, senders: &[Sender]) -> Rig {
        Rig::start_on(plan, senders, Board::create().unwrap())
    }

    fn start_on(plan: &Plan, senders: &[Sender], board: Board) -> Rig {
        let mut pipes = Pipes::new();
        for sender in senders {
            pipes.ensure(*sender).unwrap();
        }
        let (link, control) = packet_pair().unwrap();
        let (stdout, out) = nix::unistd::pipe().unwrap();
        let (stderr, err) = nix::unistd::pipe().unwrap();
        let readers = pipes.clone_readers().unwrap();
        let plan = plan.clone();
        let streams = Streams { stdout: out, stderr: err };
        let thread = std::thread::spawn(move || serve(&plan, board, readers, control, streams));
        Rig { board, pipes, link: Some(link), thread: Some(thread), stdout: stdout.into(), stderr: stderr.into() }
    }

    /// Sends one packet with these lines; waits while the pipe is full.
    fn send(&self, sender: Sender, kind: Kind, lines: &[&str]) {
        let words = self.board.sender(sender);
        let first = tally::numbering_base(words);
        words[sender::EMITTED].fetch_add(lines.len() as u64, Relaxed);
        let mut packet = packet_head(first).to_vec();
        for line in lines {
            let at = begin(kind, 3, &mut packet);
            packet.extend_from_slice(line.as_bytes());
            end(at, &mut packet);
        }
        self.raw(sender, &packet);
    }

    fn raw(&self, sender: Sender, bytes: &[u8]) {
        let pipe = self.pipes.writer(sender).unwrap();
        assert_eq!(send(pipe.as_raw_fd(), bytes, MsgFlags::empty()), Ok(bytes.len()));
    }

    /// Waits until `done`, for ten seconds at most.
    fn until(&self, what: &str, mut done: impl FnMut(&Rig) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{what}: {:?}", tally::count(self.board));
            let _ = poll(&mut [], PollTimeout::from(5u8));
        }
    }

    fn settled(&self) -> Count {
        self.until("records settle", |rig| tally::count(rig.board).under_way() == 0);
        tally::count(self.board)
    }

    /// Everybody leaves; what the log process said on stderr comes back.
    fn end(mut self) -> (Count, String) {
        self.pipes.close_writers();
        self.link = None;
        let thread = self.thread.take().unwrap();
        thread.join().unwrap().unwrap();
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (tally::count(self.board), said)
    }
}

#[test]
fn lines_of_several_senders_reach_their_files_and_the_end_comes_at_end_of_file() {
    let dir = Dir::new("several");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Master, Sender::Slot(0), Sender::Slot(1)]);
    rig.send(Sender::Master, Kind::App, &["one", "two"]);
    rig.send(Sender::Slot(0), Kind::Access, &["a1"]);
    rig.send(Sender::Slot(1), Kind::Access, &["b1", "b2", "b3"]);
    rig.send(Sender::Slot(1), Kind::Security, &["probe"]);
    let (count, said) = rig.end();
    assert_eq!(count, Count { emitted: 7, written: 7, dropped: 0, lost: 0 });
    assert_eq!(said, "");
    let app = dir.lines("app.log");
    assert_eq!(app.len(), 3);
    assert!(app.iter().position(|line| line == "one") < app.iter().position(|line| line == "two"));
    assert_eq!(dir.lines("access.log").len(), 4);
    for name in ["app.log", "access.log"] {
        assert_eq!(fs::metadata(dir.file(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(&dir.0).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn rotation_loses_nothing_doubles_nothing_and_keeps_its_limit() {
    let dir = Dir::new("rotation");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0)]);
    let (packets, each) = (1_500, 20);
    for packet in 0..packets {
        let lines: Vec<String> =
            (0..each).map(|at| format!("{:07} {}", packet * each + at, "x".repeat(1_000))).collect();
        rig.send(Sender::Slot(0), Kind::App, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let rotations = rig.board.log()[word::ROTATIONS].load(Relaxed);
    let (count, _) = rig.end();
    assert_eq!(count.written, (packets * each) as u64);
    assert!(rotations >= 2);
    let numbers: Vec<usize> = dir.lines("app.log").iter().map(|line| line[..7].parse().unwrap()).collect();
    assert_eq!(numbers, (0..packets * each).collect::<Vec<_>>());
    for entry in fs::read_dir(&dir.0).unwrap() {
        let data = entry.unwrap().metadata().unwrap();
        assert!(data.len() <= rotate::FILE_BYTES_MAX);
        assert_eq!(data.permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn only_five_backups_are_kept() {
    let dir = Dir::new("backups");
    fs::create_dir_all(&dir.0).unwrap();
    let held = fs::File::open(&dir.0).unwrap();
    for round in 0..9 {
        fs::write(dir.file("app.log"), format!("{round}")).unwrap();
        rotate::shift(held.as_fd(), "app.log").unwrap();
    }
    let names = fs::read_dir(&dir.0).unwrap().count();
    assert_eq!((names, dir.text("app.log.1"), dir.text("app.log.5")), (5, "8".to_owned(), "4".to_owned()));
}

#[test]
fn what_died_with_a_sender_is_lost_and_counted() {
    let dir = Dir::new("lost");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0), Sender::Slot(1)]);
    rig.send(Sender::Slot(0), Kind::App, &["kept"]);
    // A life that formed five records, dropped two, and was killed with three in its queue.
    let words = rig.board.sender(Sender::Slot(0));
    words[sender::EMITTED].fetch_add(5, Relaxed);
    words[sender::DROPPED].fetch_add(2, Relaxed);
    rig.pipes.mark_end(Sender::Slot(0), rig.board);
    assert_eq!(rig.settled(), Count { emitted: 6, written: 1, dropped: 2, lost: 3 });
    rig.send(Sender::Slot(0), Kind::App, &["next life"]);
    // Nobody marks the end of this one.
    rig.board.sender(Sender::Slot(1))[sender::EMITTED].fetch_add(4, Relaxed);
    let (count, _) = rig.end();
    assert_eq!(count, Count { emitted: 11, written: 2, dropped: 2, lost: 7 });
}

#[test]
fn a_successor_mends_a_torn_line_and_settles_what_was_under_way() {
    let dir = Dir::new("torn");
    let board = Board::create().unwrap();
    let rig = Rig::start_on(&plan(&dir.0), &[Sender::Slot(0)], board);
    rig.send(Sender::Slot(0), Kind::App, &["first"]);
    rig.end();
    // A predecessor that took over four records more, wrote one and a half of them, and was killed before it counted.
    let words = board.sender(Sender::Slot(0));
    words[sender::EMITTED].fetch_add(4, Relaxed);
    words[sender::EXPECTED].fetch_add(4, Relaxed);
    let mut file = fs::OpenOptions::new().append(true).open(dir.file("app.log")).unwrap();
    io::Write::write_all(&mut file, b"second\nthi").unwrap();
    let rig = Rig::start_on(&plan(&dir.0), &[Sender::Slot(0)], board);
    rig.send(Sender::Slot(0), Kind::App, &["after"]);
    let (count, _) = rig.end();
    assert_eq!(dir.text("app.log"), "first\nsecond\nafter\n");
    assert_eq!(count, Count { emitted: 6, written: 3, dropped: 0, lost: 3 });
}

#[test]
fn childrens_prints_become_lines_with_their_name() {
    let dir = Dir::new("raw");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Engine, Sender::Slot(3)]);
    rig.raw(Sender::Engine, b"ggml: load");
    rig.raw(Sender::Engine, b"ing \x1b[31mmodel\x07\nsecond line\r\n");
    rig.raw(Sender::Slot(3), b"thread panicked, password=hunter2-and-more");
    rig.raw(Sender::Slot(3), b"-of-it\nunfinished\xff");
    let (count, _) = rig.end();
    assert_eq!((count.emitted, count.written), (4, 4));
    let lines: Vec<serde_json::Value> =
        dir.lines("app.log").iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |process: &str| -> Vec<&str> {
        let theirs = lines.iter().filter(|line| line["process"] == process && line["level"] == "warn");
        theirs.map(|line| line["message"].as_str().unwrap()).collect()
    };
    assert_eq!(of("engine"), ["ggml: loading \\u001b[31mmodel\\u0007", "second line"]);
    assert_eq!(of("worker 3"), ["thread panicked, password=[REDACTED]", "unfinished\u{fffd}"]);
}

#[test]
fn injected_newlines_and_controls_stay_in_their_line() {
    let dir = Dir::new("injection");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0)]);
    let evil = "a\nforged \r\x1b[2J \u{9b}31m \u{2028} \u{2029} \x7f \0 end";
    rig.send(Sender::Slot(0), Kind::App, &[evil]);
    rig.send(Sender::Slot(0), Kind::Access, &[evil]);
    rig.end();
    for name in ["app.log", "access.log"] {
        let text = dir.text(name);
        assert_eq!(text.lines().count(), 1);
        assert!(escape::is_clean(text.trim_end_matches('\n').as_bytes()));
        assert!(text.ends_with("end\n"));
    }
}

#[test]
fn planted_secrets_reach_no_destination() {
    let dir = Dir::new("planted");
    let mut plan = plan(&dir.0);
    plan.error = Destination::Stream;
    plan.access = Destination::Stream;
    let rig = Rig::start(&plan, &[Sender::Slot(0)]);
    let secret = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678";
    let long = format!("{} {secret} tail", "y".repeat(8_180));
    rig.send(Sender::Slot(0), Kind::App, &[&format!("{{\"m\":\"{secret}\"}}"), &long]);
    rig.send(Sender::Slot(0), Kind::Access, &[&format!("GET /?k={secret}")]);
    rig.raw(Sender::Slot(0), &[&b"printed "[..], &secret.as_bytes()[..11]].concat());
    rig.raw(Sender::Slot(0), &[&secret.as_bytes()[11..], b"\n"].concat());
    rig.raw(
        Sender::Slot(0),
        b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTU\n",
    );
    rig.raw(Sender::Slot(0), b"9Us8cKj\n-----END PRIVATE KEY-----\n");
    rig.settled();
    let mut stdout = rig.stdout.try_clone().unwrap();
    let (_, stderr) = rig.end();
    let mut text = stderr + &dir.text("app.log");
    stdout.read_to_string(&mut text).unwrap();
    assert!(text.matches("[REDACTED]").count() >= 9, "{text}");
    for window in secret.as_bytes().windows(8).chain(b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC".windows(8)) {
        assert!(memchr::memmem::find(text.as_bytes(), window).is_none(), "{text}");
    }
    assert!(!text.contains("9Us8cKj"));
    assert!(text.lines().all(|line| line.len() <= RECORD_BYTES_MAX));
}

#[test]
fn a_reader_that_never_reads_stalls_nobody_else_and_every_drop_is_counted() {
    let dir = Dir::new("blocked");
    let plan = Plan { access: Destination::Stream, ..plan(&dir.0) };
    let rig = Rig::start(&plan, &[Sender::Slot(0)]);
    let line = "z".repeat(1_000);
    for _ in 0..200 {
        rig.send(Sender::Slot(0), Kind::Access, &[line.as_str(); 20]);
        rig.send(Sender::Slot(0), Kind::App, &["app"]);
    }
    rig.until("app lines reach the file", |_| dir.lines("app.log").len() == 200);
    rig.until("drops are counted", |rig| rig.board.log()[word::DROPPED].load(Relaxed) > 0);
    let stdout = rig.stdout.try_clone().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        io::Read::take(stdout, u64::MAX).read_to_string(&mut text).unwrap();
        text.lines().count() as u64
    });
    let count = rig.settled();
    let stdout_lines = rig.board.log()[word::DESTINATIONS + 4].load(Relaxed);
    rig.end();
    assert_eq!(count.emitted, 200 * 21);
    assert_eq!((count.lost, count.written + count.dropped), (0, count.emitted));
    assert_eq!(reader.join().unwrap(), stdout_lines);
    assert_eq!(count.written, 200 + stdout_lines);
}

#[test]
fn a_removed_directory_is_made_again_and_writing_goes_on() {
    let dir = Dir::new("removed");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0)]);
    rig.send(Sender::Slot(0), Kind::App, &["before"]);
    rig.settled();
    fs::remove_dir_all(&dir.0).unwrap();
    rig.send(Sender::Slot(0), Kind::App, &["after"]);
    rig.until("the file is back", |_| dir.text("app.log").contains("after"));
    let (count, said) = rig.end();
    assert_eq!(count.dropped + count.written, count.emitted);
    assert!(said.contains("changed under us"), "{said}");
    assert!(dir.text("app.log").contains("log_tampering"));
}

#[test]
fn a_symlink_in_the_files_place_leaves_its_victim_untouched() {
    let dir = Dir::new("symlink");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0)]);
    rig.send(Sender::Slot(0), Kind::App, &["before"]);
    rig.settled();
    let victim = dir.file("victim");
    fs::write(&victim, "precious").unwrap();
    fs::remove_file(dir.file("app.log")).unwrap();
    symlink(&victim, dir.file("app.log")).unwrap();
    rig.send(Sender::Slot(0), Kind::App, &["during"]);
    let count = rig.settled();
    assert!(count.dropped >= 1);
    fs::remove_file(dir.file("app.log")).unwrap();
    rig.until("writing resumes", |rig| {
        rig.send(Sender::Slot(0), Kind::App, &["again"]);
        dir.text("app.log").contains("again")
    });
    let (count, said) = rig.end();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(count.written + count.dropped, count.emitted);
    assert!(said.contains("symbolic link"), "{said}");
}

#[test]
fn reopening_follows_a_rotation_by_others() {
    let dir = Dir::new("reopen");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0)]);
    rig.send(Sender::Slot(0), Kind::App, &["old"]);
    rig.settled();
    fs::rename(dir.file("app.log"), dir.file("moved")).unwrap();
    pipe::reopen(rig.link.as_ref().unwrap()).unwrap();
    rig.until("the new file is there", |_| dir.file("app.log").exists());
    rig.send(Sender::Slot(0), Kind::App, &["new"]);
    let (count, _) = rig.end();
    assert_eq!((dir.text("moved").as_str(), dir.text("app.log").as_str()), ("old\n", "new\n"));
    assert_eq!((count.written, count.dropped), (2, 0));
}

#[test]
fn a_new_reader_is_read_and_a_retired_writer_leaves() {
    let dir = Dir::new("handover");
    let mut rig = Rig::start(&plan(&dir.0), &[]);
    rig.pipes.ensure(Sender::Slot(7)).unwrap();
    let (sender, reader) = rig.pipes.readers()[0];
    pipe::hand_over(rig.link.as_ref().unwrap(), sender, reader).unwrap();
    rig.send(Sender::Slot(7), Kind::App, &["hello"]);
    rig.until("the line is there", |_| dir.text("app.log") == "hello\n");
    pipe::retire(rig.link.as_ref().unwrap()).unwrap();
    rig.thread.take().unwrap().join().unwrap().unwrap();
}

#[test]
fn the_log_process_says_when_it_reads() {
    let dir = Dir::new("ready");
    let rig = Rig::start(&plan(&dir.0), &[Sender::Master]);
    let mut packet = [0u8; 16];
    let length = nix::unistd::read(rig.link.as_ref().unwrap(), &mut packet).unwrap();
    assert_eq!(&packet[..length], pipe::READY);
    rig.end();
}

#[test]
fn unusable_directories_are_refused_with_the_way_to_mend_them() {
    let dir = Dir::new("refused");
    fs::create_dir_all(dir.file("real")).unwrap();
    symlink(dir.file("real"), dir.file("link")).unwrap();
    fs::create_dir(dir.file("open")).unwrap();
    fs::set_permissions(dir.file("open"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.file("file"), "").unwrap();
    let refusal = |name: &str| rotate::prepare(&Plan { access: Destination::Stream, ..plan(&dir.file(name)) });
    for (name, word) in
        [("link", "symbolic link"), ("open", "chmod 700"), ("file", "no directory"), ("file/x", "no directory")]
    {
        let sentence = refusal(name).unwrap_err();
        assert!(sentence.starts_with("LOG_DIR: ") && sentence.contains(word), "{name}: {sentence}");
        let soft = Plan { dir_set: false, access: Destination::Stream, ..plan(&dir.file(name)) };
        let prepared = rotate::prepare(&soft).unwrap();
        assert!(prepared.dir.is_none() && prepared.warning.unwrap().contains("stderr alone"));
    }
}

#[test]
fn files_with_a_second_name_or_a_stranger_are_not_written() {
    let dir = Dir::new("hardlink");
    fs::create_dir_all(&dir.0).unwrap();
    fs::set_permissions(&dir.0, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.file("victim"), "precious").unwrap();
    fs::hard_link(dir.file("victim"), dir.file("app.log")).unwrap();
    let rig = Rig::start(&plan(&dir.0), &[Sender::Slot(0)]);
    rig.send(Sender::Slot(0), Kind::App, &["x"]);
    let (count, said) = rig.end();
    assert_eq!((count.written, count.dropped), (0, 1));
    assert!(said.contains("hard link"), "{said}");
    assert_eq!(dir.text("victim"), "precious");
}

#[test]
fn text_lines_and_one_file_for_two_destinations() {
    let dir = Dir::new("shared");
    let shared = Destination::File(dir.file("app.log"));
    let plan = Plan { access: shared.clone(), error: shared, format: Format::Text, ..plan(&dir.0) };
    let rig = Rig::start(&plan, &[Sender::Engine]);
    rig.send(Sender::Engine, Kind::App, &["event"]);
    rig.send(Sender::Engine, Kind::Access, &["access"]);
    rig.raw(Sender::Engine, b"printed\n");
    let (count, _) = rig.end();
    assert_eq!((count.emitted, count.written), (3, 3));
    let lines = dir.lines("app.log");
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().any(|line| line.contains(" WARN  engine[0] stderr: printed")), "{lines:?}");
}
