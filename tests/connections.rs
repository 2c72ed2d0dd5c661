//! Many connections: slow ones, idle ones, and one that asks for much at once.

use crate::support::{Connection, Footprint, Server, post, until};
use std::time::{Duration, Instant};

fn long() -> bool {
    std::env::var_os("CHATCORN_TEST_LONG").is_some()
}

/// So many at once: a row of `FAULTS.md` in its short and its long form.
fn many(short: usize, long_form: usize) -> usize {
    if long() { long_form } else { short }
}

fn open(server: &Server, count: usize, bytes: &str) -> Vec<Connection> {
    let one = |_| {
        let mut connection = server.connect();
        connection.send(bytes).unwrap();
        connection
    };
    (0..count).map(one).collect()
}

/// Asks until `over`, and says how often that failed and how long the longest answer took.
fn served_until(server: &Server, mut over: impl FnMut() -> bool) -> (usize, Duration) {
    let (mut failed, mut longest) = (0, Duration::ZERO);
    while !over() {
        let began = Instant::now();
        failed += usize::from(!server.connect().get("/healthz").is_ok_and(|answer| answer.status == 200));
        longest = longest.max(began.elapsed());
    }
    (failed, longest)
}

fn connections(server: &Server) -> u64 {
    let status = server.status();
    status["workers"].as_array().unwrap().iter().map(|worker| worker["connections"].as_u64().unwrap()).sum()
}

#[test]
fn slow_heads_and_bodies_are_ended_and_nobody_else_waits() {
    let server = Server::start(&[("HEADER_TIMEOUT", "1"), ("BODY_TIMEOUT", "1"), ("TIMEOUT", "3")]);
    let count = many(200, 1000);
    for (name, start) in [
        ("heads", "GET /healthz HTTP/1.1\r\nHost: t\r\nX: ".to_owned()),
        ("bodies", post("/api/chat", "{}").replace("Content-Length: 2", "Content-Length: 99")),
        ("silent", String::new()),
    ] {
        let before = Footprint::of(&server);
        let began = Instant::now();
        let mut slow = open(&server, count, &start);
        let mut ended = 0;
        let (failed, longest) = served_until(&server, || {
            ended = connections(&server);
            ended == 0 || began.elapsed() > Duration::from_secs(20)
        });
        // A second for the sweeper's look, and three times the bound on a busy machine.
        assert!(began.elapsed() < 3 * Duration::from_secs(2) + Duration::from_secs(1), "{name}: {:?}", began.elapsed());
        assert!(failed == 0 && longest < Duration::from_secs(1), "{name}: {failed} failed, {longest:?}");
        for connection in &mut slow {
            match start.is_empty() {
                true => assert!(connection.is_closed(), "{name}"),
                false => assert_eq!(connection.answer().unwrap().status, 408, "{name}"),
            }
        }
        before.is_back(&server);
    }
}

#[test]
fn who_does_not_take_an_answer_is_ended_and_nobody_else_waits() {
    let server = Server::start(&[("BODY_TIMEOUT", "1"), ("TIMEOUT", "3")]);
    let before = Footprint::of(&server);
    // More than the kernel's buffers hold, so that the answers have nowhere to go.
    let greedy = "GET /openapi.json HTTP/1.1\r\nHost: t\r\n\r\n".repeat(2000);
    let slow = open(&server, many(30, 200), &greedy);
    let began = Instant::now();
    let (failed, longest) =
        served_until(&server, || connections(&server) == 0 || began.elapsed() > Duration::from_secs(20));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(failed == 0 && longest < Duration::from_secs(2), "{failed} failed, {longest:?}");
    drop(slow);
    before.is_back(&server);
}

#[test]
fn idle_connections_rest_and_are_served_again() {
    let server = Server::start(&[("HEADER_TIMEOUT", "4"), ("WORKER_CONNECTIONS", "4000")]);
    let count = many(500, 10_000);
    let mut slow = open(&server, 1, "GET /healthz HT");
    let mut kept = open(&server, count, "");
    for connection in &mut kept {
        assert_eq!(connection.get("/healthz").unwrap().status, 200);
    }
    // By then the first ones have not moved for seconds.
    assert_eq!(slow[0].answer().unwrap().status, 408);
    for (number, connection) in kept.iter_mut().enumerate() {
        match number % 5 {
            0 => assert_eq!(connection.get("/healthz").unwrap().status, 200),
            1 => assert_eq!(connection.post("/api/chat", "{}").unwrap().status, 400),
            2 => {
                connection.send("GET /hea").unwrap();
                connection.send("lthz HTTP/1.1\r\nHost: t\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
                assert_eq!(connection.answer().unwrap().status, 200);
                assert_eq!(connection.answer().unwrap().status, 404);
            }
            3 => {
                connection.send("GET /healthz HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n").unwrap();
                assert_eq!(connection.answer().unwrap().status, 400);
                assert!(connection.is_closed());
            }
            _ => {
                connection.send("GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
                assert_eq!(connection.answer().unwrap().status, 200);
                assert!(connection.is_closed());
            }
        }
    }
    let open = 3 * count as u64 / 5;
    until("those that ended are gone", || connections(&server) == open);
}

#[test]
fn a_resting_connection_ends_when_its_time_is_over_and_when_the_server_stops() {
    let mut server = Server::start(&[("KEEP_ALIVE", "3")]);
    let mut kept = open(&server, 8, "");
    for connection in &mut kept {
        connection.get("/healthz").unwrap();
    }
    assert!(kept.iter_mut().all(Connection::is_closed));
    let patient = Server::start(&[("HEADER_TIMEOUT", "3")]);
    let mut slow = open(&patient, 1, "GET /healthz HT");
    let mut kept = open(&patient, 8, "");
    for connection in &mut kept {
        connection.get("/healthz").unwrap();
    }
    assert_eq!(slow[0].answer().unwrap().status, 408);
    patient.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(kept.iter_mut().all(Connection::is_closed));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(server.wait().success());
}
