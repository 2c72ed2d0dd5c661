//! Somebody sets the machine's clock, a day ahead and a day back. The clock is libfaketime's, for this server alone.

use crate::support::{Server, Upstream, Way, until};
use nix::sys::signal::Signal;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Debian's package libfaketime; `bin/test` installs it.
fn library() -> Option<PathBuf> {
    let found = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let found = found.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        println!("not run: libfaketime is missing");
    }
    found
}

struct Clock(PathBuf);

impl Clock {
    /// `+1d`, `-1d` or `+0`, from now on; whole, for it is read all the time.
    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, format!("{offset}\n")).unwrap();
        std::fs::rename(new, &self.0).unwrap();
    }
}

/// A server whose clock the test sets, and whose first log file is full but for a few lines.
fn start(library: &Path, variables: &[(&str, &str)]) -> (Server, Clock) {
    let place = std::env::temp_dir().join(format!("chatcorn-clock-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let clock = Clock(place.join("clock"));
    clock.set("+0");
    let (file, logs) = (clock.0.display().to_string(), place.join("logs").display().to_string());
    std::fs::DirBuilder::new().mode(0o700).create(place.join("logs")).unwrap();
    fill(&place.join("logs/app.log"), "first");
    // Workers read the clock's file too, which their walls allow beside their sessions.
    let store = format!("sqlite:{}/c.db", place.display());
    let faked = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DISABLE_SHM", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("LOG_DIR", logs.as_str()),
        ("DATABASE_URL", store.as_str()),
    ];
    (Server::spawn(&[&faked, variables].concat(), &[]).serving(), clock)
}

/// At which a file is rotated.
const FILE_BYTES_MAX: usize = 10 * 1000 * 1000;

/// Lines up to less than another one below it.
fn fill(path: &Path, word: &str) {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).unwrap();
    let line = format!("{{\"message\":\"{word} {}\"}}\n", "x".repeat(1000));
    let room = FILE_BYTES_MAX - file.metadata().unwrap().len() as usize;
    file.write_all(line.repeat(room / line.len()).as_bytes()).unwrap();
}

fn begins_with(path: &Path, word: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.starts_with(&format!("{{\"message\":\"{word} ")))
}

#[test]
fn a_clock_that_is_set_kills_nobody_sticks_no_limit_and_overwrites_no_log() {
    let Some(library) = library() else { return };
    let upstream = Upstream::start(Way::Instant);
    let quotas = [("RATE_LIMIT_DEFAULT", "4 per 2 second"), ("RATE_LIMIT_CHAT", "1000 per minute")];
    let own = [("CHAT_UPSTREAM", upstream.url.as_str()), ("HANG_TIMEOUT", "10")];
    let (server, clock) = start(&library, &[&quotas[..], &own].concat());
    let day = |event: &serde_json::Value| event["time"].as_str().unwrap_or_default()[..10].to_owned();
    let workers = server.children("worker");
    let first = day(&serde_json::from_str(server.text().lines().next().unwrap()).unwrap());
    let logs = clock.0.with_file_name("logs");
    std::fs::write(server.home.join("chatcorn.toml"), "wokers = 3\n").unwrap();
    let mut kept = server.connect();
    for (number, (offset, word)) in [("+1d", "second"), ("-1d", "third"), ("+0", "fourth")].into_iter().enumerate() {
        clock.set(offset);
        // The limit is used up at once, holds, and ends when its two seconds have gone by.
        let mut statuses = Vec::new();
        let began = Instant::now();
        until("the limit", || {
            statuses.push(kept.get("/api/context/mode?session_id=s").unwrap().status);
            statuses.last() == Some(&429)
        });
        // On a busy machine a window may end, and the next begin, before it is full.
        let windows = 1 + began.elapsed().as_secs() as usize / 2;
        assert!(statuses.len() <= 4 * windows + 1, "{offset}: {statuses:?}");
        let refused = Instant::now();
        until("the window's end", || kept.get("/api/context/mode?session_id=s").unwrap().status == 200);
        assert!(refused.elapsed() < Duration::from_secs(5), "{offset}: {:?}", refused.elapsed());
        server.expect_that("a line of that day", |event| {
            event["path"] == "/api/context/mode" && (offset == "+0") == (day(event) == first)
        });
        // The file is full: with some more lines (a reload is refused) it is another one's backup, and the older ones are
        // where they were.
        until("the rotation", || {
            server.signal(Signal::SIGHUP);
            begins_with(&logs.join("app.log.1"), ["first", "second", "third"][number])
        });
        assert!(number < 1 || begins_with(&logs.join("app.log.2"), ["", "first", "second"][number]), "{offset}");
        fill(&logs.join("full"), word);
        std::fs::rename(logs.join("full"), logs.join("app.log")).unwrap();
        server.signal(Signal::SIGUSR1);
    }
    assert_eq!(server.children("worker"), workers, "{}", server.text());
    assert!(!["worker died", "hung", "panicked"].iter().any(|word| server.text().contains(word)), "{}", server.text());
    assert!(begins_with(&logs.join("app.log.3"), "first"));
    drop(server);
    std::fs::remove_dir_all(clock.0.parent().unwrap()).unwrap();
}
