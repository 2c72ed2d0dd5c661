//! A balancer that asks for the health on one connection for ever: it is answered in front of hyper from its third question
//! on, and can see no difference.

use crate::heads::has_security_headers;
use crate::support::{Answer, Connection, Server, until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::TcpListener;

const PROBE: &str =
    "GET /api/health?key=hidden HTTP/1.1\r\nHost: t\r\nUser-Agent: probe/1\r\nOrigin: https://a.example\r\n\r\n";

fn hears(connection: &mut Connection) -> Answer {
    connection.send(PROBE).unwrap();
    connection.answer().unwrap()
}

/// Names and values, but for those that each answer has of its own.
fn constant(answer: &Answer) -> Vec<(String, String)> {
    let own = |name: &String| name == "x-request-id" || name == "date";
    let mut fields = answer.headers.clone();
    fields.iter_mut().filter(|(name, _)| own(name)).for_each(|(_, value)| value.clear());
    fields.sort();
    fields
}

fn lines(server: &Server) -> Vec<Value> {
    let parsed = server.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>();
    parsed.into_iter().filter(|line| line["target"] == "access" && line["user_agent"] == "probe/1").collect()
}

#[test]
fn who_asks_for_the_health_for_ever_hears_the_same_and_each_is_logged() {
    let server = Server::start(&[("CORS_ORIGINS", "https://a.example")]);
    let mut connection = server.connect();
    let told: Vec<Answer> = (0..20).map(|_| hears(&mut connection)).collect();
    for answer in &told {
        assert_eq!((answer.status, constant(answer)), (200, constant(&told[0])));
        has_security_headers(answer);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    }
    let ids: BTreeSet<&str> = told.iter().filter_map(|answer| answer.header("x-request-id")).collect();
    assert_eq!(ids.len(), told.len());
    until("a line for each", || lines(&server).len() == told.len());
    let (lines, own) = (lines(&server), ["request_id", "time", "duration_ms", "first_byte_ms"]);
    let logged = |line: &Value| {
        let fields = line.as_object().unwrap().iter().filter(|(name, _)| !own.contains(&name.as_str()));
        fields.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    for line in &lines {
        assert!(ids.contains(line["request_id"].as_str().unwrap()));
        assert_eq!(logged(line), logged(&lines[0]));
        assert_eq!(line["bytes_out"], told[0].body.len());
    }
}

#[test]
fn who_asks_for_the_health_for_ever_hears_of_a_model_that_goes() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let server = Server::start(&[("CHAT_UPSTREAM", &url)]);
    let mut connection = server.connect();
    connection.get("/readyz").unwrap();
    (0..5).for_each(|_| assert_eq!(hears(&mut connection).json()["status"], "healthy"));
    drop(upstream);
    // A failed chat tells its worker, and this connection is of that worker.
    assert_eq!(connection.post("/api/chat", r#"{"message":"hello","session_id":"s"}"#).unwrap().status, 503);
    assert_eq!(hears(&mut connection).json()["status"], "degraded");
}

#[test]
fn who_asks_for_the_health_for_ever_is_let_go_when_the_server_stops() {
    let mut server = Server::start(&[]);
    let mut connection = server.connect();
    (0..5).for_each(|_| assert_eq!(hears(&mut connection).header("connection"), None));
    server.signal(Signal::SIGTERM);
    // An answer that says so, or an end between two answers: never half of one.
    let last = std::iter::repeat_with(|| connection.send(PROBE).and_then(|()| connection.answer()))
        .find(|told| told.as_ref().map_or(true, |answer| answer.header("connection") == Some("close")));
    assert!(last.unwrap().map_or(true, |answer| answer.status == 200));
    assert!(server.wait().success());
}

#[test]
fn probes_and_others_in_one_packet_are_answered_in_their_order() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    (0..3).for_each(|_| _ = hears(&mut connection));
    let other = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
    let changed = PROBE.replace("GET", "PUT");
    let flood = format!("{}{other}{}{changed}{PROBE}", PROBE.repeat(20), PROBE.repeat(20));
    connection.send(flood).unwrap();
    let told: Vec<Answer> = (0..43).map(|_| connection.answer().unwrap()).collect();
    let alive = |at: &usize| told[*at].body.contains("alive");
    assert_eq!((0..43).filter(alive).collect::<Vec<_>>(), [20]);
    assert_eq!((0..43).filter(|at| told[*at].status != 200).collect::<Vec<_>>(), [41]);
}
