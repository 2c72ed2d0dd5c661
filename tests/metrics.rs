//! Operators look at the fleet through an address of their own.

use crate::support::{Connection, Server, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::process::{Command, Stdio};

fn started() -> (Server, String) {
    let server = Server::spawn(&[("RATE_LIMIT_ENABLED", "false"), ("ADMIN_BIND", "127.0.0.1:0")], &[]);
    let server = server.serving();
    // Each bound address has its line, the operators' last.
    let said = server.text();
    let mut lines = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let last = lines.rfind(|line| line["message"] == "listening").unwrap();
    (server, last["address"].as_str().unwrap().trim_start_matches("http://").to_owned())
}

fn metrics(admin: &str) -> String {
    let answer = Connection::open(admin).get("/metrics").unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    answer.body
}

fn value(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().parse().unwrap()
}

const HEALTH: &str = r#"chatcorn_requests_total{route="health",status="2xx"}"#;

#[test]
fn counts_of_the_fleet_survive_the_death_of_every_worker() {
    let (server, admin) = started();
    (0..20).for_each(|_| assert_eq!(server.connect().get("/api/health").unwrap().status, 200));
    assert_eq!(server.connect().get("/nowhere").unwrap().status, 404);
    until("every request to be counted", || value(&metrics(&admin), HEALTH) == 20);
    for pid in server.children("worker") {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        server.expect("worker died");
        server.expect("worker ready");
    }
    let after = metrics(&admin);
    assert_eq!(value(&after, HEALTH), 20);
    assert!(value(&after, r#"chatcorn_requests_total{route="other",status="4xx"}"#) >= 1);
    assert!(value(&after, r#"chatcorn_request_duration_seconds_count{route="other"}"#) >= 21);
    assert_eq!(value(&after, r#"chatcorn_workers{state="ready"}"#), 4);
}

#[test]
fn the_public_address_tells_nothing_and_the_operators_one_serves_no_chat() {
    let (server, admin) = started();
    for path in ["/metrics", "/status"] {
        assert_eq!(server.connect().get(path).unwrap().status, 404, "{path}");
    }
    assert_eq!(Connection::open(&admin).post("/api/chat", r#"{"message":"x"}"#).unwrap().status, 404);
    let status = Connection::open(&admin).get("/status").unwrap().json();
    let mut pids: Vec<i64> = server.children("worker").into_iter().map(i64::from).collect();
    let workers = status["workers"].as_array().unwrap();
    let mut shown: Vec<i64> = workers.iter().filter_map(|worker| worker["pid"].as_i64()).collect();
    pids.sort_unstable();
    shown.sort_unstable();
    assert_eq!(shown, pids);
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let (_server, admin) = started();
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let Ok(mut promtool) = command.spawn() else {
        eprintln!("skipped: no promtool here (Debian's package prometheus has it)");
        return;
    };
    promtool.stdin.take().unwrap().write_all(metrics(&admin).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
