//! Operators look at the fleet through an address of their own.

use crate::support::{Connection, LIMIT, Server, Upstream, Way, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn started() -> (Server, String) {
    let server = Server::start(&[("ADMIN_BIND", "127.0.0.1:0")]);
    let admin = server.admin();
    (server, admin)
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
    let before = counters(&metrics(&admin));
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
    assert_eq!(value(&after, r#"chatcorn_restarts_total{process="worker",cause="killed"}"#), 4);
    let after = counters(&after);
    assert!(before.len() > 200, "{}", before.len());
    for (name, value) in before {
        assert!(after[&name] >= value, "{name}: {value}, then {}", after[&name]);
    }
}

/// What may never fall: counters, and the words of histograms.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    let grows = |name: &str| ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end));
    let lines = lines.filter(|(name, _)| grows(name.split('{').next().unwrap()));
    lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[test]
fn each_reload_and_each_security_event_is_counted() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "1 per hour"), ("ADMIN_BIND", "127.0.0.1:0")], &[]);
    let admin = server.admin();
    let asked: Vec<u16> = (0..3).map(|_| server.connect().get("/api/sessions/x").unwrap().status).collect();
    assert_eq!(asked, [404, 429, 429]);
    assert!(server.order(&["reload"]).status.success());
    std::fs::write(server.home.join("chatcorn.toml"), "wokers = 3\n").unwrap();
    assert!(!server.order(&["reload"]).status.success());
    let told = server.order(&["metrics"]);
    assert!(told.status.success(), "{told:?}");
    let (told, asked) = (String::from_utf8(told.stdout).unwrap(), metrics(&admin));
    for text in [told, asked] {
        assert_eq!(value(&text, r#"chatcorn_reloads_total{result="done"}"#), 1);
        assert_eq!(value(&text, r#"chatcorn_reloads_total{result="refused"}"#), 1);
        assert_eq!(value(&text, r#"chatcorn_security_events_total{event="rate_limited"}"#), 2);
        assert_eq!(value(&text, r#"chatcorn_limit_verdicts_total{verdict="refused"}"#), 2);
        assert!(value(&text, "chatcorn_limit_clients_total") >= 1);
    }
}

#[test]
fn the_first_token_is_timed_apart_from_the_answer() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("ADMIN_BIND", "127.0.0.1:0")]);
    let mut open: Vec<_> = [
        ("/api/chat", r#"{"message":"x"}"#),
        ("/api/chat", r#"{"message":"x","stream":true}"#),
        ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"x"}],"stream":true}"#),
    ]
    .into_iter()
    .map(|(path, body)| {
        let mut connection = server.connect();
        connection.send(post(path, body)).unwrap();
        upstream.requests.recv_timeout(LIMIT).unwrap();
        connection
    })
    .collect();
    let held = Instant::now();
    until("a while", || held.elapsed() > Duration::from_millis(100));
    upstream.release();
    assert_eq!(open[0].answer().unwrap().status, 200);
    for stream in &mut open[1..] {
        while !["event: done", "data: [DONE]"].contains(&stream.event_line().unwrap().as_str()) {}
    }
    let text = || server.order(&["metrics"]).stdout;
    let read = |name: &str| {
        let text = String::from_utf8(text()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim().parse::<f64>().unwrap()
    };
    for (route, count) in [("chat", 2.0), ("completions", 1.0)] {
        let named = |of: &str, word: &str| format!("chatcorn_{of}_seconds_{word}{{route=\"{route}\"}}");
        until("the requests to be counted", || read(&named("request_duration", "count")) == count);
        assert_eq!(read(&named("time_to_first_token", "count")), count);
        let (first, whole) = (read(&named("time_to_first_token", "sum")), read(&named("request_duration", "sum")));
        assert!(first > 0.0 && whole - first >= 0.05 * count, "{route}: {first} of {whole}");
    }
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
