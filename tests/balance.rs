//! Connections spread: plain shared accept gives most of them to one worker.

use crate::support::{Connection, LIMIT, Server, Upstream, Way, post, until};
use std::collections::BTreeMap;

fn by_worker(server: &Server, path: &str, count: usize) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        let line = server.expect_that("an access line", |event| event["target"] == "access" && event["path"] == path);
        *counts.entry(line["worker"].as_u64().unwrap()).or_default() += 1;
    }
    counts
}

#[test]
fn forty_held_requests_are_at_most_twelve_on_one_worker() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connections: Vec<Connection> = (0..40).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    }
    for _ in 0..40 {
        upstream.requests.recv_timeout(LIMIT).unwrap();
    }
    upstream.release();
    for connection in &mut connections {
        assert_eq!(connection.answer().unwrap().status, 200);
    }
    let counts = by_worker(&server, "/api/chat", 40);
    assert!(counts.values().all(|count| *count <= 12), "{counts:?}");
}

#[test]
fn eight_kept_connections_are_at_most_three_on_one_worker() {
    let server = Server::start(&[]);
    let mut connections: Vec<Connection> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        assert_eq!(connection.get("/healthz").unwrap().status, 200);
    }
    let counts = by_worker(&server, "/healthz", 8);
    assert!(counts.values().all(|count| *count <= 3), "{counts:?}");
}

/// How each thread of a process comes to a core (proc_pid_stat(5), field 41): 0 is SCHED_OTHER, 3 SCHED_BATCH.
fn policies(process: i32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let policy = |stat: String| stat.rsplit(')').next()?.split_whitespace().nth(38)?.parse().ok();
    threads.filter_map(|thread| policy(std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?)).collect()
}

#[test]
fn a_busy_worker_waits_for_others_and_a_rested_one_does_not() {
    let server = Server::start(&[("WEB_CONCURRENCY", "1"), ("ACCESS_LOGFILE", "off")]);
    let worker = server.children("worker")[0];
    assert!(policies(worker).iter().all(|policy| *policy == 0), "{:?}", policies(worker));
    let mut connection = server.connect();
    until("the busy loop waits for others", || {
        connection.send("GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n".repeat(100)).unwrap();
        (0..100).for_each(|_| assert_eq!(connection.answer().unwrap().status, 200));
        policies(worker).contains(&3)
    });
    until("the rested loop waits for nobody", || policies(worker).iter().all(|policy| *policy == 0));
}
