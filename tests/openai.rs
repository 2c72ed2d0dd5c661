//! A developer's view who has the openai package and nothing else.

use crate::clients::{OPENAI, client};
use crate::support::{LIMIT, Server, Upstream, Way, post};
use serde_json::{Value, json};

const HELLO: &str = r#"{"model":"any","messages":[{"role":"user","content":"hello"}]}"#;
const STREAMED: &str = r#"{"model":"any","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;

fn openai(server: &Server, part: &str) -> bool {
    client(&OPENAI, server, part)
}

#[test]
fn the_openai_package_lists_asks_and_streams() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    openai(&server, "good");
    openai(&server, "wrong");
}

#[test]
fn the_openai_package_tries_again_where_that_may_help() {
    let upstream = Upstream::start(Way::Mends);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let asked = if openai(&server, "again") { 2 } else { 0 };
    assert_eq!(upstream.requests.try_iter().count(), asked);
}

#[test]
fn the_openai_package_raises_what_went_wrong() {
    for (way, part) in [
        (Way::Refuses, "refused"),
        (Way::ErrorEvent, "broken"),
        (Way::Breaks, "broken"),
        (Way::LongLine, "broken"),
        (Way::Busy, "busy"),
    ] {
        let upstream = Upstream::start(way);
        let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
        openai(&server, part);
        assert!(!server.text().contains("hunter2"), "{}", server.text());
    }
}

#[test]
fn the_openai_package_meets_the_limit_that_chat_has() {
    let upstream = Upstream::start(Way::Instant);
    let limits = [("CHAT_UPSTREAM", upstream.url.as_str()), ("RATE_LIMIT_CHAT", "2 per hour")];
    let server = Server::start_with(&limits, &[]);
    if !openai(&server, "limited") {
        return;
    }
    let answer = server.connect().post("/api/chat", r#"{"message":"x"}"#).unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (429, Some("rate_limited")), "{answer:?}");
}

#[test]
fn a_body_goes_through_as_it_came_and_so_does_the_answer() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("CHAT_UPSTREAM_API_KEY", "sk-ours-1234567890")]);
    let body = r#"{ "messages" : [ {"role":"user","content":"é"} ], "tools":[{"x":1.50}], "odd":null }"#;
    let length = body.len();
    let mut connection = server.connect();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
        Authorization: Bearer sk-theirs-1234567890\r\nX-Request-Id: mine-7\r\nCookie: a=b\r\n\
        Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    connection.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.json()["fingerprint"].as_str()), (200, Some("kept")), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(upstream.requests.recv_timeout(LIMIT).unwrap(), body);
    let head = upstream.heads.recv_timeout(LIMIT).unwrap();
    assert!(head.contains("x-request-id: mine-7") && head.contains("authorization: bearer sk-ours"), "{head}");
    assert!(head.contains("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "{head}");
    assert!(!head.contains("theirs") && !head.contains("cookie"), "{head}");
}

#[test]
fn the_operators_model_is_the_one_that_is_asked() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("CHAT_MODEL", "ours")]);
    server.connect().post("/v1/chat/completions", HELLO).unwrap();
    let asked: Value = serde_json::from_str(&upstream.requests.recv_timeout(LIMIT).unwrap()).unwrap();
    assert_eq!(asked, json!({"model": "ours", "messages": [{"role": "user", "content": "hello"}]}));
    let models = server.connect().get("/v1/models").unwrap().json();
    assert_eq!(models["data"][0]["id"], "ours");
}

#[test]
fn every_refusal_below_v1_has_openais_shape() {
    let server = Server::start(&[]);
    let body = format!(r#"{{"messages":[1],"x":"{}"}}"#, "x".repeat(2 << 20));
    let long = "x".repeat(9000);
    let plain = post("/v1/chat/completions", HELLO).replace("application/json", "text/plain");
    for (request, status, code) in [
        (post("/v1/chat/completions", "{"), 400, "invalid_json"),
        (post("/v1/chat/completions", HELLO), 503, "not_ready"),
        (post("/v1/chat/completions", &body), 413, "payload_too_large"),
        (plain, 415, "unsupported_media_type"),
        ("DELETE /v1/models HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 405, "method_not_allowed"),
        ("GET /v1/nothing HTTP/1.1\r\nHost: t\r\n\r\n".to_owned(), 404, "not_found"),
        (format!("GET /v1/models HTTP/1.1\r\nHost: t\r\nX: {long}\r\n\r\n"), 431, "headers_too_large"),
        ("GET /v1/models HTTP/1.1\r\n\r\n".to_owned(), 400, "invalid_request"),
    ] {
        let mut connection = server.connect();
        let _ = connection.send(&request);
        let answer = connection.answer().unwrap();
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{answer:?}");
        assert!(error["message"].is_string() && error["type"].is_string() && error.get("param").is_some());
        assert!(answer.header("x-request-id").is_some() && answer.header("content-security-policy").is_some());
    }
}

#[test]
fn a_stream_goes_through_as_it_came_and_leaving_cancels_it() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let answer = server.connect().post("/v1/chat/completions", STREAMED).unwrap();
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let lines: Vec<&str> = answer.body.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!((lines.len(), lines[5]), (6, "data: [DONE]"), "{answer:?}");
    let held = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &held.url)]);
    let mut connection = server.connect();
    connection.send(post("/v1/chat/completions", STREAMED)).unwrap();
    connection.head().unwrap();
    assert!(connection.event_line().unwrap().contains("one "));
    let left_at = std::time::Instant::now();
    drop(connection);
    held.left.recv_timeout(LIMIT).unwrap();
    assert!(left_at.elapsed().as_secs_f64() < 1.0, "the upstream was cancelled after {:?}", left_at.elapsed());
    server.expect_that("the access line", |event| event["path"] == "/v1/chat/completions");
}
