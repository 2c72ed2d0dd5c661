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
