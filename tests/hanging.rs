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
    assert!(
        threads.contains("lane 1") && threads.contains("T epoll_wait ") && threads.contains(": stopped, no stack"),
        "{threads}"
    );
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
    assert!(main.contains(" chatcorn+0x"), "the other one does: {threads}");
    // The kernel does not end a frozen thread: another worker comes all the same.
    server.expect("worker ready");
    freezer.write("freezer.state", "THAWED");
    let died = server.expect("worker died");
    assert_eq!(
        (died["child_pid"].as_i64(), text(&died, "why").as_str()),
        (Some(blocked.into()), "its event loop did not turn")
    );
    assert_eq!(server.children("worker").len(), 2);
}

/// A loop that waits for what never comes, as a native library may: the first thread of the process `block-PID` that
/// waits for events does not come back.
const BLOCKS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <unistd.h>

static int taken;

int epoll_wait(int epoll, struct epoll_event *events, int most, int limit) {
  int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
  char name[40];
  snprintf(name, sizeof name, "block-%d", getpid());
  if (access(name, F_OK) == 0 && __sync_bool_compare_and_swap(&taken, 0, 1))
    for (;;)
      poll(NULL, 0, -1);
  return real(epoll, events, most, limit);
}
"#;

#[test]
fn a_blocked_loop_leaves_its_stack_and_the_requests_that_it_held() {
    let build = "cc -shared -fPIC -o blocks.so blocks.c -ldl && LD_PRELOAD=./blocks.so exec \"$0\"";
    let upstream = Upstream::start(Way::Held);
    let variables = [("CHAT_UPSTREAM", upstream.url.as_str()), ("HANG_TIMEOUT", "1"), ("RATE_LIMIT_ENABLED", "false")];
    let server = Server::spawn_under(&["sh", "-c", build], &variables, &[("blocks.c", BLOCKS)]).serving();
    let _connection = waiting_chat(&server, &upstream, "held-by-a-blocked-loop");
    let blocked = busy(&server);
    std::fs::write(server.home.join(format!("block-{blocked}")), "").unwrap();
    let began = Instant::now();
    let hung = server.expect("worker hung: killing it");
    // Half a second until the loop turns once more and blocks, the limit, a second between two looks.
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    assert!(text(&hung, "requests").starts_with("held-by-a-blocked-loop chat "), "{hung}");
    let threads = text(&hung, "threads");
    let blocks = threads.split("; ").find(|thread| thread.contains(" S poll "));
    let lane = blocks.unwrap_or_else(|| panic!("no thread waits as the library does: {threads}"));
    assert!(lane.contains(" blocks.so+0x") && lane.matches("chatcorn+0x").count() > 3, "{lane}");
    server.expect("worker died");
    server.expect("worker ready");
    assert!(began.elapsed() < Duration::from_millis(4500), "{:?}", began.elapsed());
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
