//! Limits hold over all workers.

mod counts;
mod deaths;
mod headers;
mod operator;
mod parity;
mod repeats;
mod storms;
mod tokens;

use crate::support::{Answer, Connection, Server, Upstream, Way, until};

/// A request that costs a unit and nothing else, by a client behind the proxy that the test is.
fn unit(client: &str) -> String {
    format!("GET /api/nothing HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {client}\r\n\r\n")
}

/// The answer to one.
fn ask(server: &Server, client: &str) -> Answer {
    let mut connection = server.connect();
    connection.send(unit(client)).unwrap();
    connection.answer().unwrap()
}

/// Statuses of `requests` at once, each on its own connection to one of `addresses` in turn. All connections stand
/// before the first request goes out. A request that comes to nothing is 0.
fn storm(addresses: &[&str], requests: usize, request: &str) -> Vec<u16> {
    const THREADS: usize = 8;
    let barrier = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let part = |number: usize| {
            let mine: Vec<&str> = (number..requests).step_by(THREADS).map(|n| addresses[n % addresses.len()]).collect();
            let mut open: Vec<_> = mine.iter().map(|address| Connection::try_open(address).ok()).collect();
            barrier.wait();
            for connection in open.iter_mut().flatten() {
                let _ = connection.send(request);
            }
            let answer = |open: &mut Option<Connection>| open.as_mut()?.answer().ok().map(|answer| answer.status);
            open.iter_mut().map(|open| answer(open).unwrap_or(0)).collect::<Vec<_>>()
        };
        let parts: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || part(number))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|seen| **seen == status).count()
}

/// How a client stands, as the operator is told.
fn standing(server: &Server, client: &str) -> serde_json::Value {
    let output = server.order(&["limits", "show", client, "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is used of one limit.
fn used(standing: &serde_json::Value, limit: &str) -> u64 {
    let limits = standing["limits"].as_array().unwrap();
    limits.iter().find(|known| known["name"] == limit).unwrap()["count"].as_u64().unwrap()
}

fn long() -> bool {
    std::env::var_os("CHATCORN_TEST_LONG").is_some()
}

const HELLO: &str = r#"{"message":"hello","session_id":"s"}"#;

#[test]
fn forty_at_once_over_four_workers_are_exactly_ten() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start_with(&[("CHAT_UPSTREAM", &upstream.url)], &[]);
    let address = &server.address;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| Connection::open(address).post("/api/chat", HELLO).unwrap().status))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 30);
    let refused = server.connect().post("/api/chat", HELLO).unwrap();
    let body = refused.json();
    assert_eq!((refused.status, body["error"].as_str()), (429, Some("rate_limited")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait) && body["retry_after"].as_u64() == Some(wait));
    assert!(body["limit"].as_str().unwrap().contains("minute"));
    assert!(refused.header("ratelimit-policy").unwrap().contains(r#""minute";q=10;w=60"#));
    assert!(refused.header("ratelimit").unwrap().contains("r=0;t="));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    server.expect_that("the security event", |event| {
        event["target"] == "security" && event.to_string().contains("rate_limited")
    });
}

#[test]
fn health_and_preflights_are_free_and_mistakes_are_not() {
    let server = Server::start_with(&[], &[]);
    for _ in 0..15 {
        assert_eq!(server.connect().get("/api/health").unwrap().status, 200);
        assert_eq!(server.connect().get("/readyz").unwrap().status, 503);
    }
    let statuses: Vec<u16> = (0..11).map(|_| server.connect().get("/api/nothing").unwrap().status).collect();
    assert_eq!(statuses[..10], [404; 10]);
    assert_eq!(statuses[10], 429);
}

#[test]
fn a_client_behind_a_trusted_proxy_is_counted_as_itself() {
    let ask = |server: &Server, forwarded: &str| {
        let mut connection = server.connect();
        let head = format!("GET /api/nothing HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
        connection.send(head).unwrap();
        connection.answer().unwrap().status
    };
    let trusting = Server::start_with(&[], &[]);
    assert!((0..12).all(|client| ask(&trusting, &format!("6.6.6.6, 198.51.100.{client}")) == 404));
    let wary = Server::start_with(&[("FORWARDED_ALLOW_IPS", "10.0.0.0/8")], &[]);
    let statuses: Vec<u16> = (0..12).map(|client| ask(&wary, &format!("198.51.100.{client}"))).collect();
    assert_eq!(statuses[10..], [429, 429]);
}

#[test]
fn counts_survive_a_reload() {
    let server = Server::start_with(&[], &[]);
    for _ in 0..10 {
        assert_eq!(server.connect().get("/api/nothing").unwrap().status, 404);
    }
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.expect("reloaded");
    assert_eq!(server.connect().get("/api/nothing").unwrap().status, 429);
}

#[test]
fn forwarded_addresses_of_a_stranger_are_warned_of_once() {
    let server = Server::start_with(&[("FORWARDED_ALLOW_IPS", "10.0.0.0/8")], &[]);
    for client in 0..12 {
        ask(&server, &format!("198.51.100.{client}"));
    }
    let warning =
        |event: &serde_json::Value| event["level"] == "warn" && event.to_string().contains("FORWARDED_ALLOW_IPS");
    let event = server.expect_that("the warning", warning);
    assert_eq!(event["peer"], "127.0.0.1");
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
    assert_eq!(server.text().matches("FORWARDED_ALLOW_IPS").count(), 1, "{}", server.text());
}

#[test]
fn a_flood_of_refusals_is_a_few_lines_and_a_burst_of_wrong_paths_is_one_event() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "1/day"), ("ADMIN_BIND", "127.0.0.1:0")], &[]);
    let statuses = storm(&[&server.address], 400, &unit("198.51.100.1"));
    assert_eq!(count(&statuses, 429), 399);
    server.expect_that("the event", |event| event["event"] == "rate_limited");
    let told = |server: &Server| server.text().matches(r#""event":"rate_limited""#).count();
    assert!((1..=4).contains(&told(&server)), "a line a worker, not one a request");
    let mut connection = server.connect();
    for number in 0..40 {
        assert_eq!(connection.get(&format!("/wp-{number}.php")).unwrap().status, 404);
    }
    server.expect_that("the probe", |event| event["event"] == "probe");
    assert_eq!(server.text().matches(r#""event":"probe""#).count(), 1);
}

#[test]
fn a_reload_changes_limits_and_keeps_counts_and_a_dry_run_refuses_nobody() {
    let settings = |quota: &str, more: &str| format!("rate_limit_default = \"{quota}\"\n{more}\n");
    let server = Server::start_with(&[], &[("chatcorn.toml", &settings("3/hour", ""))]);
    let told = |times: usize, client: &str| (0..times).map(|_| ask(&server, client).status).collect::<Vec<_>>();
    let reload = |quota: &str, more: &str| {
        std::fs::write(server.home.join("chatcorn.toml"), settings(quota, more)).unwrap();
        let reloaded = server.order(&["reload"]);
        assert!(reloaded.status.success(), "{reloaded:?}");
        // Until they are gone the old ones may take one more connection, by the old limits.
        until("the old workers are gone", || server.children("worker").len() == 4);
    };
    assert_eq!(told(4, "198.51.100.1"), [404, 404, 404, 429]);
    reload("5/hour", "");
    assert_eq!(told(3, "198.51.100.1"), [404, 404, 429], "two more than before");
    reload("2/hour", "");
    assert_eq!(told(1, "198.51.100.1"), [429], "a count above the limit");
    assert_eq!(ask(&server, "198.51.100.1").header("x-ratelimit-remaining"), Some("0"));
    reload("2/hour", "rate_limit_dry_run = \"true\"");
    assert_eq!(told(3, "198.51.100.1"), [404; 3]);
    assert_eq!(used(&standing(&server, "198.51.100.1"), "hour"), 5, "would have been refused, and is not counted");
    reload("2/hour", "rate_limit_allow = \"198.51.100.0/28\"");
    assert_eq!(told(3, "198.51.100.1"), [404; 3]);
    assert_eq!(told(3, "198.51.100.17"), [404, 404, 429]);
    assert_eq!(standing(&server, "198.51.100.1")["exempt"], true);
}
