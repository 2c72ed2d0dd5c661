//! How long an upstream is waited for: each limit by itself, the others at their defaults, which no test reaches.

use crate::support::{Connection, LIMIT, Server, Upstream, Way, post};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

const CHAT: (&str, &str) = ("/api/chat", r#"{"message":"hello"}"#);
const CHAT_STREAM: (&str, &str) = ("/api/chat", r#"{"message":"hello","stream":true}"#);
const OPENAI: (&str, &str) = ("/v1/chat/completions", r#"{"messages":[{"role":"user","content":"hello"}]}"#);
const OPENAI_STREAM: (&str, &str) =
    ("/v1/chat/completions", r#"{"stream":true,"messages":[{"role":"user","content":"hello"}]}"#);
const ALL: [(&str, &str); 4] = [CHAT, CHAT_STREAM, OPENAI, OPENAI_STREAM];

/// Asks in each of these ways at once; the error's code comes after the limit, with 504 or inside the stream.
fn ends_by(variable: &str, seconds: f64, way: Way, asked: &[(&str, &str)]) {
    let upstream = Upstream::start(way);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), (variable, &seconds.to_string())]);
    let begun = Instant::now();
    let mut connections: Vec<Connection> = asked.iter().map(|_| server.connect()).collect();
    for (connection, (path, body)) in connections.iter_mut().zip(asked) {
        connection.send(post(path, body)).unwrap();
    }
    for (connection, (path, body)) in connections.iter_mut().zip(asked) {
        let answer = connection.answer().unwrap();
        let what = format!("{variable} {way:?} {path} {body}: {answer:?}");
        assert!(begun.elapsed().as_secs_f64() >= seconds * 0.95, "after {:?}: {what}", begun.elapsed());
        let code = if *path == OPENAI.0 { r#""code":"timeout""# } else { r#""error":"timeout""# };
        assert!(answer.body.contains(code) && !answer.body.contains("[DONE]"), "{what}");
        // A stream that has begun keeps its 200.
        let begun = body.contains("stream") && way != Way::Silent;
        assert_eq!(answer.status, if begun { 200 } else { 504 }, "{what}");
        if !begun && *path == OPENAI.0 {
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{what}");
        }
    }
    for _ in asked {
        upstream.left.recv_timeout(LIMIT).unwrap();
    }
}

#[test]
fn an_upstream_that_does_not_begin_is_left_after_the_first_tokens_limit() {
    ends_by("UPSTREAM_FIRST_TOKEN_TIMEOUT", 0.5, Way::Silent, &[CHAT, CHAT_STREAM, OPENAI_STREAM]);
}

#[test]
fn an_upstream_that_falls_silent_is_left_after_the_limit_between_tokens() {
    ends_by("UPSTREAM_IDLE_TIMEOUT", 0.5, Way::Held, &[CHAT, CHAT_STREAM, OPENAI_STREAM]);
}

#[test]
fn an_upstream_that_goes_on_and_on_is_left_after_the_whole_requests_limit() {
    ends_by("TIMEOUT", 1.5, Way::Drips, &[CHAT, CHAT_STREAM, OPENAI_STREAM]);
    ends_by("TIMEOUT", 1.5, Way::Silent, &ALL);
}

/// A listener whose queue is full: whoever connects next is not answered. With what fills it.
fn black_hole() -> Option<(TcpListener, Vec<TcpStream>)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let patience = Duration::from_millis(300);
    let filling = (0..8).map_while(|_| TcpStream::connect_timeout(&address, patience).ok()).collect::<Vec<_>>();
    (filling.len() < 8).then_some((listener, filling))
}

#[test]
fn an_upstream_that_takes_no_connection_is_left_after_the_limit_to_connect() {
    let Some((hole, _filling)) = black_hole() else {
        return println!("not run: this kernel's queue of connections does not fill");
    };
    let url = format!("http://{}/v1", hole.local_addr().unwrap());
    // Longer than the default, which would end it sooner.
    let server = Server::start(&[("CHAT_UPSTREAM", &url), ("UPSTREAM_CONNECT_TIMEOUT", "6")]);
    let begun = Instant::now();
    let mut connections = ALL.map(|_| server.connect());
    for (connection, (path, body)) in connections.iter_mut().zip(ALL) {
        connection.send(post(path, body)).unwrap();
    }
    for (connection, (path, _)) in connections.iter_mut().zip(ALL) {
        let answer = connection.answer().unwrap();
        assert!(begun.elapsed().as_secs_f64() > 5.7, "{path} after {:?}", begun.elapsed());
        assert!(answer.status == 503 && answer.body.contains("not_ready"), "{path} {answer:?}");
        assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()), "{answer:?}");
    }
    let next = Upstream::start(Way::Instant);
    let both = format!("{url},{}", next.url);
    let server = Server::start(&[("CHAT_UPSTREAM", &both), ("UPSTREAM_CONNECT_TIMEOUT", "0.5")]);
    for (path, body) in ALL {
        let answer = server.connect().post(path, body).unwrap();
        assert!(answer.status == 200 && answer.body.contains("three"), "the next one answers: {answer:?}");
    }
}
