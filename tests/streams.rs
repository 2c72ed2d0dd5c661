//! Streams in bad times: a slow start, a client that leaves early, one that wants everything.

use crate::support::{Connection, LIMIT, Server, Upstream, Way, post};
use std::time::Instant;

const OWN: (&str, &str) = ("/api/chat", r#"{"message":"hello","stream":true}"#);
const OPENAI: (&str, &str) =
    ("/v1/chat/completions", r#"{"stream":true,"messages":[{"role":"user","content":"hello"}]}"#);
const WHOLE: &str = r#"{"messages":[{"role":"user","content":"hello"}]}"#;

fn asked(server: &Server, (path, body): (&str, &str)) -> Connection {
    let mut connection = server.connect();
    connection.send(post(path, body)).unwrap();
    connection
}

#[test]
fn a_model_that_thinks_long_is_shown_to_be_alive_and_then_heard() {
    let (late, pauses) = (Upstream::start(Way::Late), Upstream::start(Way::Held));
    let servers = [&late, &pauses].map(|upstream| Server::start(&[("CHAT_UPSTREAM", &upstream.url)]));
    let began = Instant::now();
    let mut connections: Vec<Connection> =
        servers.iter().flat_map(|server| [OWN, OPENAI].map(|wish| asked(server, wish))).collect();
    for connection in &mut connections[2..] {
        connection.head().unwrap();
        assert!(connection.event_line().unwrap().contains("one "));
    }
    for connection in &mut connections[..2] {
        let head = connection.head().unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")), "{head:?}");
    }
    for connection in &mut connections {
        assert_eq!(connection.event_line().unwrap().trim(), ": keep-alive");
    }
    let after_s = began.elapsed().as_secs_f64();
    assert!((14.0..20.0).contains(&after_s), "the comments came after {after_s} s");
    late.release();
    pauses.release();
    for (connection, end) in connections.iter_mut().zip(["event: done", "data: [DONE]"].into_iter().cycle()) {
        let mut lines = std::iter::from_fn(|| connection.event_line().ok());
        assert!(lines.any(|line| line.contains("three")) && lines.any(|line| line.starts_with(end)), "{end}");
    }
}

#[test]
fn a_model_that_never_begins_ends_an_open_stream_with_an_error() {
    let upstream = Upstream::start(Way::Silent);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "16")]);
    let connections = [OWN, OPENAI].map(|wish| asked(&server, wish));
    for (mut connection, error) in connections.into_iter().zip([r#""error":"timeout""#, r#""code":"timeout""#]) {
        let answer = connection.answer().unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(": keep-alive\n\n") && answer.body.contains(error), "{answer:?}");
        assert!(!answer.body.contains("[DONE]"));
    }
}

#[test]
fn a_client_that_leaves_before_the_first_token_cancels_the_call() {
    let upstream = Upstream::start(Way::Silent);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    for wish in [OWN, OPENAI, (OPENAI.0, WHOLE), (OWN.0, r#"{"message":"hello"}"#)] {
        let connection = asked(&server, wish);
        upstream.requests.recv_timeout(LIMIT).unwrap();
        let left_at = Instant::now();
        drop(connection);
        upstream.left.recv_timeout(LIMIT).unwrap();
        assert!(left_at.elapsed().as_secs_f64() < 1.0, "{wish:?} was cancelled after {:?}", left_at.elapsed());
    }
}

#[test]
fn one_client_with_many_chats_leaves_room_for_the_others() {
    let upstream = Upstream::start(Way::Held);
    let one = [("WEB_CONCURRENCY", "1"), ("WORKER_CONNECTIONS", "40"), ("CHAT_UPSTREAM", upstream.url.as_str())];
    let server = Server::start(&one);
    let mut greedy: Vec<Connection> = (0..30).map(|_| asked(&server, OPENAI)).collect();
    let heads: Vec<_> = greedy.iter_mut().map(|connection| connection.head().unwrap()).collect();
    let refused: Vec<_> = heads.iter().filter(|head| head.status == 503).collect();
    assert!((8..=12).contains(&refused.len()), "{} of 30 were refused", refused.len());
    assert!(
        refused.iter().all(|head| head.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() >= 1))
    );
    let other = post(OPENAI.0, OPENAI.1).replace("\r\nHost", "\r\nX-Forwarded-For: 203.0.113.9\r\nHost");
    let mut connection = server.connect();
    connection.send(other).unwrap();
    assert_eq!(connection.head().unwrap().status, 200);
    upstream.release();
    drop((greedy, connection));
    crate::support::until("room for the first one again", || {
        server.connect().post("/v1/chat/completions", WHOLE).unwrap().status == 200
    });
}
