//! What became of every line, seen from outside: the counts, a log process that stands still, a directory that closes, a
//! library that prints.

use crate::support::{Connection, Server, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const OFF: (&str, &str) = ("RATE_LIMIT_ENABLED", "false");

fn long_or<T>(long: T, short: T) -> T {
    if std::env::var_os("CHATCORN_TEST_LONG").is_some() { long } else { short }
}

fn admin_of(server: &Server) -> String {
    let said = server.text();
    let mut lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let last = lines.rfind(|line| line["message"] == "listening").unwrap();
    last["address"].as_str().unwrap().trim_start_matches("http://").to_owned()
}

/// emitted, written, dropped, lost
fn counts(admin: &str) -> [u64; 4] {
    let text = Connection::open(admin).get("/metrics").unwrap().body;
    ["emitted", "written", "dropped", "lost"].map(|name| {
        let name = format!("chatcorn_log_{name}_total ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().trim().parse().unwrap()
    })
}

/// Waits until nothing is under way; what became of all lines.
fn settled(admin: &str) -> [u64; 4] {
    let mut last = [0; 4];
    until("every line to be accounted for", || {
        last = counts(admin);
        last[0] == last[1] + last[2] + last[3]
    });
    last
}

fn ask(connection: &mut Connection, count: usize) -> Vec<Duration> {
    let one = |_| {
        let begun = Instant::now();
        assert_eq!(connection.get("/api/health").unwrap().status, 200);
        begun.elapsed()
    };
    (0..count).map(one).collect()
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

fn rss(pid: i32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Lines of a log file and its backups.
fn lines(file: &Path) -> u64 {
    let backup = |number: usize| format!("{}.{number}", file.display());
    let names = std::iter::once(file.display().to_string()).chain((1..=5).map(backup));
    names.filter_map(|name| std::fs::read(name).ok()).map(|text| memchr::memchr_iter(b'\n', &text).count() as u64).sum()
}

#[test]
fn emitted_is_written_and_dropped_and_lost_through_deaths() {
    let server = Server::start(&[("ADMIN_BIND", "127.0.0.1:0"), ("ACCESS_LOGFILE", "access.log")]);
    let admin = admin_of(&server);
    ask(&mut server.connect(), 200);
    let before = settled(&admin);
    assert!(before[0] >= 200 && before[2..] == [0, 0], "{before:?}");
    for turn in 0..long_or(10, 3) {
        let workers = server.children("worker");
        kill(Pid::from_raw(workers[turn % workers.len()]), Signal::SIGKILL).unwrap();
        let log = server.children("chatcorn log");
        kill(Pid::from_raw(log[0]), Signal::SIGKILL).unwrap();
        ask(&mut server.connect(), 100);
        let replaced = || server.children("chatcorn log").first().is_some_and(|now| *now != log[0]);
        until("both to be replaced", || replaced() && server.children("worker").len() == 4);
    }
    ask(&mut server.connect(), 100);
    let mut last = [0; 4];
    until("what is counted as written to stand in the files", || {
        last = settled(&admin);
        last[1] == lines(&server.home.join("logs/app.log")) + lines(&server.home.join("access.log"))
    });
    assert!(last[0] > before[0] + 300 && last[2] == 0, "{last:?}");
}

#[test]
fn a_log_process_that_stands_still_stalls_nobody_and_every_line_is_counted() {
    let server = Server::spawn(&[OFF, ("ADMIN_BIND", "127.0.0.1:0"), ("ACCESS_LOGFILE", "access.log")], &[]).serving();
    let admin = admin_of(&server);
    let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let count = long_or(40_000, 1_500);
    let mut round = || p99(connections.iter_mut().flat_map(|connection| ask(connection, count / 4)).collect());
    let running = (0..3).map(|_| round()).min().unwrap();
    let before: Vec<u64> = server.children("worker").into_iter().map(rss).collect();
    let log = Pid::from_raw(server.children("chatcorn log")[0]);
    kill(log, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let stopped = (0..3).map(|_| round()).min().unwrap();
    // The long form stands still for its half minute, all of it asked through.
    while begun.elapsed() < Duration::from_secs(long_or(30, 0)) {
        round();
    }
    let after: Vec<u64> = server.children("worker").into_iter().map(rss).collect();
    kill(log, Signal::SIGCONT).unwrap();
    // Twice the time, and thrice that where others use the machine.
    assert!(stopped < running * 6 + Duration::from_millis(2), "{running:?} {stopped:?}");
    assert!(before.iter().zip(&after).all(|(before, after)| *after < before + (8 << 20)), "{before:?} {after:?}");
    let [emitted, _, _, lost] = settled(&admin);
    assert!(emitted >= 6 * count as u64 && lost == 0);
}

#[test]
fn a_log_directory_that_closes_to_its_writer_costs_lines_and_no_request() {
    if !Uid::effective().is_root() {
        return eprintln!("skipped: root alone can give a directory to somebody else");
    }
    let place = std::env::temp_dir().join(format!("chatcorn-closed-{}", std::process::id()));
    let dir = place.join("logs");
    std::fs::create_dir_all(&dir).unwrap();
    let open = |mode| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
    [&place, &dir].iter().for_each(|path| chown(path, Some(65534), Some(65534)).unwrap());
    open(0o700);
    let (store, file) = (format!("sqlite:{}/c.db", place.display()), dir.join("access.log"));
    let variables = [
        OFF,
        ("CHATCORN_USER", "nobody"),
        ("DATABASE_URL", store.as_str()),
        ("LOG_DIR", dir.to_str().unwrap()),
        ("ACCESS_LOGFILE", file.to_str().unwrap()),
        ("ADMIN_BIND", "127.0.0.1:0"),
    ];
    let server = Server::spawn(&variables, &[]).serving();
    let admin = admin_of(&server);
    let mut connection = server.connect();
    ask(&mut connection, 20);
    assert_eq!(settled(&admin)[2], 0);
    open(0o000);
    server.signal(Signal::SIGUSR1);
    until("lines to be dropped", || {
        ask(&mut connection, 10);
        counts(&admin)[2] > 0
    });
    open(0o700);
    let begun = Instant::now();
    until("lines again", || {
        let before = lines(&file);
        ask(&mut connection, 10);
        settled(&admin);
        lines(&file) > before
    });
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(server.text().contains("log file: "), "{}", server.text());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    drop(server);
    std::fs::remove_dir_all(place).unwrap();
}

/// Prints as C libraries do, in pieces and without a last newline, when its process first accepts, and ends it.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <dlfcn.h>
int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    int (*real)(int, struct sockaddr *, socklen_t *, int) = dlsym(RTLD_NEXT, "accept4");
    int got = real(fd, address, length, flags);
    if (got >= 0 && access("print", F_OK) == 0 && unlink("print") == 0) {
        static const char *pieces[] = {"libfoo: connecting with hf_QwErTyUiOp", "AsDfGhJkLzXcVbNm12345678\nlibfoo: \"pass",
                                       "word\": \"hunter2-and-more\"\nfree(): invalid \x1b[31mpointer"};
        for (int at = 0; at < 3; at++) if (write(2, pieces[at], __builtin_strlen(pieces[at])) < 0) break;
        abort();
    }
    return got;
}
"#;

#[test]
fn what_a_library_prints_is_a_line_a_print_without_its_secrets() {
    let place = std::env::temp_dir().join(format!("chatcorn-library-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let (source, library) = (place.join("print.c"), place.join("print.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    if !built.is_ok_and(|status| status.success()) {
        return eprintln!("skipped: no C compiler");
    }
    let server = Server::start(&[("LD_PRELOAD", library.to_str().unwrap())]);
    std::fs::write(server.home.join("print"), "").unwrap();
    let log = server.home.join("logs/app.log");
    until("its last print", || {
        // The worker that accepts ends.
        let _ = std::net::TcpStream::connect(&server.address);
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains("free(): invalid"))
    });
    let text = std::fs::read_to_string(&log).unwrap();
    let printed: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("torn: {line}")))
        .filter(|event: &serde_json::Value| event["target"] == "stderr")
        .collect();
    let messages: Vec<&str> = printed.iter().filter_map(|event| event["message"].as_str()).collect();
    assert_eq!(messages[0], "libfoo: connecting with [REDACTED]");
    assert!(messages[1].starts_with("libfoo: ") && messages[1].contains("[REDACTED]"), "{messages:?}");
    assert!(messages[2].starts_with("free(): invalid ") && messages.len() == 3, "{messages:?}");
    assert!(printed.iter().all(|event| event["process"].as_str().is_some_and(|name| name.starts_with("worker"))));
    for secret in ["hf_QwErTy", "UiOpAsDf", "hunter2"] {
        assert!(!text.contains(secret) && !server.text().contains(secret), "{secret}");
    }
    std::fs::remove_dir_all(place).unwrap();
}
