//! Raw bytes, what is answered, and whether the connection lives on: a table of what is served, one of what is refused.
//!
//! Every row is followed by a request for `/smuggled`; what is refused must leave it unanswered, what is served must
//! answer it next. Each refused row is also cut at every byte: in this process against the strict filter, and in two at
//! a few places against the running server.

mod desync;
mod refused;
mod served;

use crate::support::{Answer, Connection, Server, Upstream, Way};
use chatcorn::http::head::{Limits, Refusal, Scanner};

/// What follows every row.
const NEXT: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n";

/// One row: a name, the bytes, the status.
struct Row {
    name: String,
    bytes: Vec<u8>,
    status: u16,
}

fn row(name: impl Into<String>, bytes: impl AsRef<[u8]>, status: u16) -> Row {
    Row { name: name.into(), bytes: bytes.as_ref().to_vec(), status }
}

/// The headers that every answer has at the public address.
pub fn has_headers(answer: &Answer) {
    has_security_headers(answer);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
    assert!(answer.header("access-control-expose-headers").is_some(), "{answer:?}");
}

/// The headers that every answer has.
pub fn has_security_headers(answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("x-xss-protection", "1; mode=block"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    for name in ["content-security-policy", "permissions-policy", "x-request-id"] {
        assert!(answer.header(name).is_some(), "{name}: {answer:?}");
    }
    assert_eq!(answer.header("server"), None);
}

#[test]
fn what_is_refused_is_answered_once_and_closed() {
    let server = Server::start(&[]);
    let rows = refused::rows();
    assert!(rows.len() > 550, "{}", rows.len());
    for row in &rows {
        let mut connection = server.connect();
        // The server may have closed before all is sent.
        let _ = connection.send([&row.bytes[..], NEXT].concat());
        judge(&mut connection, row);
    }
}

#[test]
fn what_is_refused_is_refused_however_it_arrives() {
    let server = Server::start(&[]);
    for row in refused::rows().iter().filter(|row| row.bytes.len() < 400).step_by(7) {
        for cut in [1, row.bytes.len() / 2, row.bytes.len() - 1] {
            let mut connection = server.connect();
            let _ = connection.send(&row.bytes[..cut]);
            // Another connection's answer in between: the first part has been read by then, or waits alone.
            assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
            let _ = connection.send([&row.bytes[cut..], NEXT].concat());
            judge(&mut connection, row);
        }
    }
}

fn judge(connection: &mut Connection, row: &Row) {
    let bodiless = row.bytes.trim_ascii_start().starts_with(b"HEAD ");
    let answer = if bodiless { connection.head() } else { connection.answer() };
    let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", row.name));
    assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
    has_headers(&answer);
    if !bodiless {
        let body = answer.json();
        assert!(body["success"] == false && body["request_id"].as_str() == answer.header("x-request-id"), "{body}");
    }
    assert_eq!(answer.header("connection"), Some("close"), "{}", row.name);
    assert!(connection.is_closed(), "{}: something followed", row.name);
}

#[test]
fn what_is_refused_is_refused_at_every_cut() {
    for row in refused::rows().iter().filter(|row| row.bytes.len() < 400 && row.status != 413) {
        let stream = [&row.bytes[..], NEXT].concat();
        let whole = verdict(&stream, stream.len());
        assert!(whole.is_some_and(|refusal| refusal.status() == row.status), "{}: {whole:?}", row.name);
        for cut in 1..stream.len() {
            assert_eq!(verdict(&stream, cut), whole, "{} cut at {cut}", row.name);
        }
    }
}

/// What the strict filter says when the socket gives `stream` in two parts.
fn verdict(stream: &[u8], cut: usize) -> Option<Refusal> {
    let mut scanner = Scanner::new(Limits::default());
    let first = scanner.scan(&stream[..cut]);
    first.refusal.or_else(|| scanner.scan(&stream[first.pass..]).refusal)
}

#[test]
fn what_is_served_leaves_the_connection_as_it_says() {
    let server = Server::start(&[]);
    for served in served::rows() {
        let row = &served.row;
        let mut connection = server.connect();
        let _ = connection.send([&row.bytes[..], NEXT].concat());
        let answer = if served.bodiless { connection.head() } else { connection.answer() };
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(answer.status, row.status, "{}: {answer:?}", row.name);
        has_headers(&answer);
        if served.kept {
            let next = connection.answer().unwrap_or_else(|error| panic!("{}: {error}", row.name));
            assert_eq!((next.status, next.json()["error"].as_str()), (404, Some("not_found")), "{}", row.name);
        } else {
            assert!(connection.is_closed(), "{}: something followed", row.name);
        }
    }
}

/// A client whose head and body are two packets has its answer between them.
#[test]
fn a_body_that_comes_behind_its_answer_leaves_the_connection_as_the_answer_says() {
    let limits =
        [("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_DEFAULT", "1000/minute"), ("RATE_LIMIT_CHAT", "1/minute")];
    let server = Server::start(&limits);
    assert_eq!(server.connect().get("/v1/chat/completions").unwrap().status, 405);
    let chunks = "3\r\nabc\r\n5\r\nabcde\r\n0\r\n\r\n";
    for (line, fields, body, status, kept) in [
        ("GET /healthz", "Content-Length: 3\r\n", "abc", 200, true),
        ("POST /nowhere", "Content-Length: 3\r\n", "abc", 404, true),
        ("PUT /healthz", "Content-Length: 3\r\n", "abc", 405, true),
        ("POST /api/context/mode", "Content-Length: 3\r\n", "abc", 415, true),
        ("POST /api/chat", "Content-Length: 3\r\n", "abc", 429, true),
        ("PUT /healthz", "Content-Length: 40000\r\n", &"x".repeat(40_000), 405, true),
        ("PUT /healthz", "Transfer-Encoding: chunked\r\n", chunks, 405, true),
        ("PUT /healthz", "Content-Length: 65537\r\n", "", 405, false),
        ("PUT /healthz", "Content-Length: 3\r\nExpect: 100-continue\r\n", "", 405, false),
        ("POST /api/chat", "Content-Length: 3\r\nExpect: 100-continue\r\n", "", 429, false),
    ] {
        let mut connection = server.connect();
        connection.send(format!("{line} HTTP/1.1\r\nHost: t\r\n{fields}\r\n")).unwrap();
        let answer = connection.answer().unwrap();
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, (!kept).then_some("close")),
            "{line} {fields}"
        );
        has_headers(&answer);
        if kept {
            connection.send([body.as_bytes(), NEXT].concat()).unwrap();
            assert_eq!(connection.answer().unwrap().status, 404, "{line} {fields}");
        } else {
            assert!(connection.is_closed(), "{line} {fields}");
        }
    }
    // Whole in one packet, but in more pieces than one read.
    let mut connection = server.connect();
    let head = "PUT /healthz HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send([head.as_bytes(), chunks.as_bytes(), NEXT].concat()).unwrap();
    assert_eq!((connection.answer().unwrap().status, connection.answer().unwrap().status), (405, 404));
}

/// Nothing is served whose body is malformed, also where nobody would read it.
#[test]
fn a_body_that_is_known_to_be_broken_is_refused_whatever_was_asked_for() {
    let server = Server::start(&[]);
    for line in
        ["GET /healthz", "GET /", "POST /nowhere", "PUT /healthz", "OPTIONS /api/chat", "POST /api/context/mode"]
    {
        for chunks in ["g\r\n", "3\nabc\n0\n\n", "3\r\nabcd\r\n0\r\n\r\n", "0 \r\n\r\n", "0\r\nHost: u\r\n\r\n"] {
            let name = format!("{line} {chunks:?}");
            let mut connection = server.connect();
            let head = format!("{line} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
            connection
                .send([b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n", head.as_bytes(), chunks.as_bytes(), NEXT].concat())
                .unwrap();
            assert_eq!(connection.answer().unwrap().status, 200, "{name}");
            let answer = connection.answer().unwrap();
            assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{name}: {answer:?}");
            has_headers(&answer);
            connection.end().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    // What is wrong behind a whole body is nothing of that request's.
    let mut connection = server.connect();
    let good = "POST /nowhere HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    connection.send(format!("{good}GET / HTTP/1.1\r\n\r\n")).unwrap();
    assert_eq!([connection.answer().unwrap().status, connection.answer().unwrap().status], [404, 400]);
    connection.end().unwrap();
}

/// hyper lets go of a stream whose request asked for an upgrade, and does not end it.
#[test]
fn a_client_that_would_upgrade_is_not_reset_after_its_last_answer() {
    let server = Server::start(&[]);
    let upgrade = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n";
    for (bytes, statuses) in [
        (format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{upgrade}\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &[200, 505][..]),
        (format!("GET /healthz HTTP/1.1\r\nHost: t\r\n{upgrade}\r\n{}", "\n".repeat(9)), &[200, 400]),
        (format!("PUT /healthz HTTP/1.1\r\nHost: t\r\n{upgrade}Content-Length: 200000\r\n\r\n"), &[405]),
    ] {
        let mut connection = server.connect();
        connection.send([bytes.as_bytes(), &[b'x'; 100_000]].concat()).unwrap();
        for status in statuses {
            assert_eq!(connection.answer().unwrap().status, *status, "{bytes:?}");
        }
        connection.end().unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
    }
}

/// The kinds of answer that no row above makes.
#[test]
fn waiting_and_failing_answers_have_their_headers_too() {
    for (way, status) in [(Way::Silent, 504), (Way::Fails, 502)] {
        let upstream = Upstream::start(way);
        let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "0.2")]);
        let answer = server.connect().post("/api/chat", r#"{"message":"x"}"#).unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        has_headers(&answer);
    }
    let server =
        Server::start(&[("BODY_TIMEOUT", "0.3"), ("RATE_LIMIT_ENABLED", "true"), ("RATE_LIMIT_DEFAULT", "2/minute")]);
    let mut slow = server.connect();
    slow.send("POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        .unwrap();
    let answer = slow.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    has_headers(&answer);
    let unavailable = server.connect().post("/api/chat", r#"{"message":"x"}"#).unwrap();
    assert_eq!(unavailable.status, 503);
    assert!(unavailable.header("retry-after").is_some());
    has_headers(&unavailable);
    let limited = server.connect().post("/api/chat", r#"{"message":"x"}"#).unwrap();
    assert_eq!(limited.status, 429);
    has_headers(&limited);
}

#[test]
fn connect_never_gets_a_2xx() {
    let server = Server::start(&[]);
    for target in ["t:80", "example.com:443", "127.0.0.1:22", "[::1]:443", "t:0"] {
        for extra in ["", "Content-Length: 0\r\n", "Upgrade: h2c\r\nConnection: Upgrade\r\n"] {
            let mut connection = server.connect();
            connection.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{extra}\r\n")).unwrap();
            let answer = connection.answer().unwrap();
            assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
            has_headers(&answer);
        }
    }
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order_up_to_the_bad_one() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    let good = |number: usize| format!("GET /healthz HTTP/1.1\r\nHost: t\r\nX-Request-Id: n{number}\r\n\r\n");
    let mut stream: String = (0..999).map(good).collect();
    stream.push_str("GET /healthz HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n");
    stream.extend((1000..1100).map(good));
    connection.send(stream).unwrap();
    for number in 0..999 {
        let answer = connection.answer().unwrap();
        assert_eq!((answer.status, answer.header("x-request-id")), (200, Some(format!("n{number}").as_str())));
    }
    assert_eq!(connection.answer().unwrap().status, 400);
    assert!(connection.is_closed());
}
