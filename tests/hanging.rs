//! A worker hangs, or is killed: who did it, what it held and what it was doing is told, and another takes its place.

use crate::support::{Connection, Group, Server, Upstream, Way, lives, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::time::{Duration, Instant};

const CHAT: &str = r#"{"message":"x","stream":true}"#;

fn post_as(id: &str, body: &str) -> String {
    format!(
        "POST /api/chat HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The worker that holds a request.
fn busy(server: &Server) -> i32 {
    let mut pid = None;
    until("a worker that holds a request", || {
        let status = server.status();
        let workers = status["workers"].as_array().unwrap().iter();
        pid = workers.filter(|worker| worker["in_flight"] != 0).find_map(|worker| worker["pid"].as_i64());
        pid.is_some()
    });
    pid.unwrap() as i32
}

fn text(event: &Value, name: &str) -> String {
    event[name].as_str().unwrap_or_else(|| panic!("no {name} in {event}")).to_owned()
}

/// The id of a thread by its name.
fn thread(pid: i32, name: &str) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let named = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let found = tasks.into_iter().find(named).unwrap_or_else(|| panic!("no thread {name}"));
    found.file_name().into_string().unwrap()
}

/// A chat that waits for its model, under this id.
fn waiting_chat(server: &Server, upstream: &Upstream, id: &str) -> Connection {
    let mut connection = server.connect();
    connection.send(post_as(id, CHAT)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    connection
}

#[test]
fn a_stopped_worker_is_killed_with_a_line_that_names_what_it_held() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("HANG_TIMEOUT", "1")]);
    let _connection = waiting_chat(&server, &upstream, "held-by-a-hung-worker");
    let stopped = busy(&server);
    kill(Pid::from_raw(stopped), Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    let hung = server.expect("worker hung: killing it");
    assert!(began.elapsed() < Duration::from_millis(2500), "{:?}", began.elapsed());
    assert_eq!((hung["child_pid"].as_i64(), hung["held"].as_i64()), (Some(stopped.into()), Some(1)));
    let requests = text(&hung, "requests");
    assert!(requests.starts_with("held-by-a-hung-worker chat ") && requests.contains("s stream"), "{requests}");
    let threads = text(&hung, "threads");
    assert!(threads.contains("lane 1") && threads.contains("T epoll_wait: stopped, no stack"), "{threads}");
    let died = server.expect("worker died");
    assert_eq!((text(&died, "by"), text(&died, "why")), ("us".into(), "its event loop did not turn".into()));
    assert!(text(&died, "requests").starts_with("held-by-a-hung-worker chat "), "{died}");
    assert_eq!((died["in_flight"].as_i64(), text(&died, "oom_kills").as_str()), (Some(1), "0"));
    server.expect("worker ready");
    let status = server.status();
    assert_eq!(status["restarts"]["causes"]["us"], 1, "{status}");
    let shown = String::from_utf8(server.order(&["status"]).stdout).unwrap();
    assert!(shown.contains("replaced  1 by us;") && shown.contains("its event loop did not turn"), "{shown}");
}

#[test]
fn one_blocked_loop_of_two_is_enough_and_a_thread_that_does_not_die_keeps_no_place() {
    let Some(freezer) = Group::make("freezer") else { return };
    if freezer.unified {
        return println!("not run: only version 1 freezes one thread");
    }
    let server = Server::start(&[("WEB_CONCURRENCY", "2"), ("HANG_TIMEOUT", "1")]);
    let blocked = server.children("worker")[0];
    freezer.write("tasks", &thread(blocked, "lane 1"));
    freezer.write("freezer.state", "FROZEN");
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "the other loops accept at once: {:?}", began.elapsed());
    }
    let hung = server.expect("worker hung: killing it");
    assert_eq!(hung["child_pid"].as_i64(), Some(blocked.into()));
    let threads = text(&hung, "threads");
    let lane = threads.split("; ").find(|thread| thread.starts_with("lane 1 ")).unwrap();
    assert!(lane.ends_with(": left no stack"), "a frozen thread runs no handler: {threads}");
    let main = threads.split("; ").find(|thread| thread.starts_with("worker 0 ")).unwrap();
    assert!(main.contains(": chatcorn+0x"), "the other one does: {threads}");
    // The kernel does not end a frozen thread: another worker comes all the same.
    server.expect("worker ready");
    freezer.write("freezer.state", "THAWED");
    until("its end", || !lives(blocked) && server.children("worker").len() == 2);
    assert!(server.text().contains("its event loop did not turn"), "{}", server.text());
}

#[test]
fn a_loop_that_computes_for_too_long_leaves_its_stack() {
    const BODY_BYTES: usize = 48 << 20;
    let Some(cpu) = Group::make("cpu") else { return };
    if cpu.unified {
        return println!("not run: version 2 holds no single threads");
    }
    // A thousandth of a second of processor time in each tenth: what takes the loop half a second takes it most of a
    // minute.
    cpu.write("cpu.cfs_period_us", "100000");
    cpu.write("cpu.cfs_quota_us", "1000");
    let variables = [("WEB_CONCURRENCY", "1"), ("THREADS", "1"), ("HANG_TIMEOUT", "0.5"), ("LIMIT_BODY", "64MiB")];
    let server = Server::start(&variables);
    let worker = server.children("worker")[0];
    let rss = || server.status()["workers"][0]["rss_bytes"].as_u64().unwrap() as usize;
    let before = rss();
    let message = format!(r#"{{"message":"{}"}}"#, r"\u0041\n".repeat(BODY_BYTES / 8));
    let mut connection = server.connect();
    let (all, last) = message.split_at(message.len() - 1);
    let head = post_as("a-long-computation", "").replace("Length: 0", &format!("Length: {}", message.len()));
    connection.send(head + all).unwrap();
    until("the body to arrive", || rss() > before + BODY_BYTES - (4 << 20));
    cpu.write("tasks", &worker.to_string());
    connection.send(last).unwrap();
    let hung = server.expect("worker hung: killing it");
    cpu.write("cpu.cfs_quota_us", "-1");
    let requests = text(&hung, "requests");
    assert!(requests.starts_with("a-long-computation chat ") && requests.ends_with(" work"), "{requests}");
    let threads = text(&hung, "threads");
    let main = threads.split("; ").find(|thread| thread.starts_with("worker 0 ")).unwrap();
    assert!(main.matches("chatcorn+0x").count() > 5, "{threads}");
    server.expect("worker ready");
}

#[test]
fn a_worker_killed_for_memory_is_told_from_one_killed_by_somebody() {
    let Some(memory) = Group::make("memory") else { return };
    let upstream = Upstream::start(Way::Held);
    let variables = [
        ("WEB_CONCURRENCY", "2"),
        ("LIMIT_BODY", "64MiB"),
        ("RATE_LIMIT_ENABLED", "false"),
        ("CHAT_UPSTREAM", &upstream.url),
    ];
    let server = Server::spawn_under(&["sh", "-c", &memory.entered()], &variables, &[]).serving();
    let connection = waiting_chat(&server, &upstream, "killed-from-outside");
    kill(Pid::from_raw(busy(&server)), Signal::SIGKILL).unwrap();
    let died = server.expect("worker died");
    assert_eq!((text(&died, "by").as_str(), text(&died, "oom_kills").as_str()), ("outside", "0"), "{died}");
    assert!(text(&died, "requests").starts_with("killed-from-outside chat "), "{died}");
    drop(connection);
    server.expect("worker ready");

    let (limit, usage) = match memory.unified {
        true => ("memory.max", "memory.current"),
        false => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    };
    memory.write(limit, &(memory.number(usage) + (16 << 20)).to_string());
    let mut connection = server.connect();
    let head = post_as("too-much-memory", "").replace("Length: 0", "Length: 60000000");
    // The worker is gone before it has read all of it.
    let _ = connection.send(head + &"x".repeat(59_000_000));
    let died = server.expect("worker died");
    assert_eq!((text(&died, "by"), text(&died, "how")), ("oom".into(), "signal 9 (SIGKILL)".into()), "{died}");
    assert_eq!(text(&died, "oom_kills"), "1", "{died}");
    assert!(text(&died, "requests").contains("too-much-memory chat ") && text(&died, "requests").ends_with(" body"));
    server.expect("worker ready");
    assert!(lives(server.pid()) && server.connect().get("/healthz").unwrap().status == 200);
    let causes = server.status()["restarts"]["causes"].clone();
    assert_eq!((causes["oom"].as_u64(), causes["outside"].as_u64()), (Some(1), Some(1)), "{causes}");
}

#[test]
fn a_worker_that_ends_by_its_own_fault_is_told_so() {
    let server = Server::start(&[("WEB_CONCURRENCY", "1")]);
    kill(Pid::from_raw(server.children("worker")[0]), Signal::SIGSEGV).unwrap();
    let died = server.expect("worker died");
    assert_eq!((text(&died, "by"), text(&died, "how")), ("fault".into(), "signal 11 (SIGSEGV)".into()));
    server.expect("worker ready");
}
