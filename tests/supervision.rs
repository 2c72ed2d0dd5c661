//! What dies is replaced; what is told to stop stops.

use crate::support::{Server, Upstream, Way, lives, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn kill_pid(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// True when all threads of a process are in this state of proc(5).
fn threads_are(pid: i32, state: char) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut states = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default());
    states.all(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(state)))
}

#[test]
fn a_killed_worker_is_replaced_and_named() {
    let server = Server::start(&[]);
    let before = server.children("worker");
    assert_eq!(before.len(), 4);
    kill_pid(before[0], Signal::SIGKILL);
    let died = server.expect("worker died");
    assert_eq!(
        (died["child_pid"].as_i64(), died["how"].as_str()),
        (Some(before[0].into()), Some("signal 9 (SIGKILL)"))
    );
    server.expect("worker ready");
    let after = server.children("worker");
    assert_eq!((after.len(), after.contains(&before[0])), (4, false));
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
}

#[test]
fn a_killed_log_process_costs_no_request() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection.get("/healthz").unwrap();
    kill_pid(server.children("chatcorn log")[0], Signal::SIGKILL);
    assert_eq!(connection.get("/healthz").unwrap().status, 200);
    server.expect("log ready");
    connection.get("/api/health").unwrap();
    server.expect_that("an access line", |event| event["path"] == "/api/health");
}

#[test]
fn a_killed_master_takes_everybody_with_it() {
    let mut server = Server::start(&[]);
    let mut children = server.children("worker");
    children.extend(server.children("chatcorn log"));
    assert_eq!(children.len(), 5);
    server.signal(Signal::SIGKILL);
    server.wait();
    let gone = std::time::Instant::now();
    until("the end of all children", || !children.iter().any(|pid| lives(*pid)));
    assert!(gone.elapsed().as_millis() < 300, "they were gone after {:?}", gone.elapsed());
    assert!(std::net::TcpListener::bind(&server.address).is_ok(), "the port is free");
}

#[test]
fn term_finishes_what_is_under_way_and_exits_0() {
    let upstream = Upstream::start(Way::Held);
    let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    server.signal(Signal::SIGTERM);
    server.expect_that("stopping", |event| event["to"] == "stopping");
    upstream.release();
    assert_eq!(connection.answer().unwrap().status, 200);
    drop(connection);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_stream_that_outlives_the_limit_ends_with_an_event() {
    let upstream = Upstream::start(Way::Held);
    let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("GRACEFUL_TIMEOUT", "0.3")]);
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x","stream":true}"#)).unwrap();
    connection.head().unwrap();
    assert!(connection.event_line().unwrap().contains("one "));
    server.signal(Signal::SIGTERM);
    assert_eq!(connection.event_line().unwrap(), "event: error");
    assert!(connection.event_line().unwrap().contains("not_ready"));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn int_stops_now_and_a_second_term_shortens() {
    for signals in [&[Signal::SIGINT][..], &[Signal::SIGTERM, Signal::SIGTERM], &[Signal::SIGTERM, Signal::SIGQUIT]] {
        let upstream = Upstream::start(Way::Held);
        let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
        let mut connection = server.connect();
        connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
        upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
        let began = std::time::Instant::now();
        server.signal(signals[0]);
        server.expect_that("stopping", |event| event["to"] == "stopping");
        signals[1..].iter().for_each(|signal| server.signal(*signal));
        assert_eq!(server.wait().code(), Some(0));
        assert!(began.elapsed().as_secs() < 8, "{signals:?}: {:?}", began.elapsed());
    }
}

#[test]
fn a_stopped_worker_is_replaced_and_the_others_go_on() {
    let server = Server::start(&[("HANG_TIMEOUT", "1.5")]);
    let stopped = server.children("worker")[0];
    kill_pid(stopped, Signal::SIGSTOP);
    until("every thread of it to stop", || threads_are(stopped, 'T'));
    for _ in 0..20 {
        let began = std::time::Instant::now();
        assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
        assert!(began.elapsed().as_millis() < 1000);
    }
    let hung = server.expect("worker hung: killing it");
    assert_eq!(hung["child_pid"].as_i64(), Some(stopped.into()));
    server.expect("worker ready");
    assert_eq!(server.children("worker").len(), 4);
}

#[test]
fn a_store_that_breaks_before_the_workers_ends_the_start() {
    let server = Server::spawn(&[("DATABASE_URL", "sqlite:/proc/nowhere/c.db")], &[]);
    let mut server = server;
    server.expect("the session store cannot be used");
    assert_eq!(server.wait().code(), Some(1));
}

/// Writes this word all over the board; how many boards there were.
fn scribble(pid: i32, with: u64) -> usize {
    use std::os::unix::fs::FileExt;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let board = descriptors.filter(|path| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("memfd:chatcorn-board"))
    });
    let mut written = 0;
    for path in board {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.write_all_at(&with.to_ne_bytes().repeat(length as usize / 8), 0).unwrap();
        written += 1;
    }
    written
}

#[test]
fn a_scribbled_board_neither_ends_the_master_nor_has_it_signal_a_stranger() {
    // Who drains believes the board too, up to the limit.
    let mut server = Server::start(&[("HANG_TIMEOUT", "86400"), ("TIMEOUT", "1")]);
    let mut stranger =
        std::process::Command::new("sleep").arg("60").stdout(std::process::Stdio::null()).spawn().unwrap();
    let words = [u64::MAX, stranger.id().into(), server.pid() as u64, 1, u64::MAX / 2, 0];
    for word in words {
        assert_eq!(scribble(server.pid(), word), 1);
        assert_eq!(server.status()["pid"].as_i64(), Some(server.pid().into()));
        kill_pid(server.children("worker")[0], Signal::SIGKILL);
        server.expect("worker died");
        server.expect("worker ready");
        assert!(server.order(&["reload"]).status.success(), "{}", server.text());
        until("the old ones to leave", || server.children("worker").len() == 4);
    }
    assert!(lives(stranger.id() as i32) && lives(server.pid()));
    assert!(!server.text().contains("panicked"), "{}", server.text());
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn what_a_killed_master_leaves_does_not_stop_a_start() {
    let variables = [("PIDFILE", "pid"), ("CHATCORN_UMASK", "077"), ("RATE_LIMIT_ENABLED", "false")];
    let wrapper = ["sh", "-c", "export BIND=unix:$PWD/api.sock; \"$0\" & wait $!; exec \"$0\""];
    let server = Server::spawn_under(&wrapper, &variables, &[]);
    server.expect("serving");
    let pidfile = server.home.join("pid");
    let first: i32 = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
    kill_pid(first, Signal::SIGKILL);
    server.expect("serving");
    let second: i32 = std::fs::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
    assert_eq!((second, server.status()["pid"].as_i64()), (server.pid(), Some(second.into())));
    assert_ne!(first, second);
    assert!(std::os::unix::net::UnixStream::connect(server.home.join("api.sock")).is_ok());
}

#[test]
fn lines_under_way_when_the_master_is_killed_reach_the_file() {
    let mut server = Server::start(&[]);
    let mut connection = server.connect();
    let log = server.children("chatcorn log")[0];
    kill_pid(log, Signal::SIGSTOP);
    until("a log process that reads nothing", || threads_are(log, 'T'));
    for _ in 0..200 {
        connection.get("/api/health").unwrap();
    }
    // A line waits 5 ms for company: the first answer after that takes all before it along, and one more follows it.
    let asked = std::time::Instant::now();
    while asked.elapsed() < std::time::Duration::from_millis(50) {
        connection.get("/healthz").unwrap();
    }
    connection.get("/healthz").unwrap();
    server.signal(Signal::SIGKILL);
    server.wait();
    kill_pid(log, Signal::SIGCONT);
    until("the lines in the pipes", || server.text().matches("/api/health").count() >= 200);
}

/// How often a process was woken, or gave up the processor by itself; proc(5).
fn turns(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_drain_delay_announces_the_end_and_accepts_until_it_is_over() {
    let upstream = Upstream::start(Way::Held);
    let variables = [("CHAT_UPSTREAM", upstream.url.as_str()), ("DRAIN_DELAY", "3"), ("WEB_CONCURRENCY", "2")];
    let mut server = Server::start(&variables);
    let mut kept = server.connect();
    kept.get("/healthz").unwrap();
    let mut held = server.connect();
    held.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    let began = std::time::Instant::now();
    server.signal(Signal::SIGTERM);
    server.expect_that("stopping", |event| event["to"] == "stopping");
    until("both workers to say that they are not ready", || {
        server.connect().get("/readyz").unwrap().status == 503 && kept.get("/readyz").unwrap().status == 503
    });
    let mut served = 0;
    while began.elapsed() < std::time::Duration::from_millis(1500) {
        assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
        let answer = kept.get("/healthz").unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, None), "nobody is sent away yet");
        served += 1;
    }
    assert!(served > 0);
    until("the delay to be over", || kept.get("/healthz").unwrap().header("connection") == Some("close"));
    assert!(began.elapsed() >= std::time::Duration::from_millis(3000), "{:?}", began.elapsed());
    upstream.release();
    assert_eq!(held.answer().unwrap().status, 200);
    drop((kept, held));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_master_that_waits_for_a_drain_sleeps() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut held = server.connect();
    held.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    server.signal(Signal::SIGTERM);
    server.expect_that("the idle ones to leave", |event| event["message"] == "worker ended");
    let (began, before) = (std::time::Instant::now(), turns(server.pid()));
    while began.elapsed() < std::time::Duration::from_secs(1) {
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    let turned = turns(server.pid()) - before;
    assert!(turned <= 20, "{turned} turns in a second in which nothing happened");
}
