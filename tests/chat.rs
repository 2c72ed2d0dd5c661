//! A front-end developer's view.

use crate::support::{LIMIT, Server, Upstream, Way, until};
use serde_json::json;

const HELLO: &str = r#"{"message":"hello","session_id":"s1"}"#;

#[test]
fn chat_answers_in_one_piece_with_every_field() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let answer = server.connect().post("/api/chat", HELLO).unwrap();
    let body = answer.json();
    assert_eq!((answer.status, body["message"].as_str()), (200, Some("one two three")), "{answer:?}");
    assert_eq!(body["history"], json!([["hello", "one two three"]]));
    assert_eq!((body["session_id"].as_str(), body["success"].as_bool()), (Some("s1"), Some(true)));
    assert!(body["reasoning"].is_null());
    let figures = &body["performance"];
    assert_eq!((figures["tokens_used"].as_u64(), figures["prompt_tokens"].as_u64()), (Some(10), Some(7)));
    assert!(figures["processing_time"].is_number() && figures["time_to_first_token_ms"].is_number());
    assert_eq!(body["metadata"]["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(body["metadata"]["model"], "fake");
}

#[test]
fn a_conversation_goes_on_over_every_worker_and_fresh_forgets_it() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("SYSTEM_PROMPT", "be kind")]);
    let issued = server.connect().post("/api/chat", r#"{"message":"first"}"#).unwrap().json();
    let id = issued["session_id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 32);
    upstream.requests.recv_timeout(LIMIT).unwrap();
    let body = json!({"message": "second", "session_id": id}).to_string();
    let history = server.connect().post("/api/chat", &body).unwrap().json()["history"].clone();
    assert_eq!(history, json!([["first", "one two three"], ["second", "one two three"]]));
    let asked: serde_json::Value = serde_json::from_str(&upstream.requests.recv_timeout(LIMIT).unwrap()).unwrap();
    let roles: Vec<_> = asked["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user"]);
    assert_eq!((asked["max_tokens"].as_u64(), asked["stream"].as_bool()), (Some(256), Some(true)));
    let mode = json!({"session_id": id, "mode": "fresh"}).to_string();
    assert_eq!(server.connect().post("/api/context/mode", &mode).unwrap().json()["context_mode"], "fresh");
    let asked_mode = server.connect().get(&format!("/api/context/mode?session_id={id}")).unwrap().json();
    assert_eq!(asked_mode, json!({"success": true, "session_id": id, "context_mode": "fresh"}));
    server.connect().post("/api/chat", &body).unwrap();
    let asked: serde_json::Value = serde_json::from_str(&upstream.requests.recv_timeout(LIMIT).unwrap()).unwrap();
    assert_eq!(asked["messages"].as_array().unwrap().len(), 2);
}

#[test]
fn a_stream_brings_deltas_then_the_whole_answer() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let answer = server.connect().post("/api/chat", r#"{"message":"hello","stream":true}"#).unwrap();
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let lines: Vec<&str> = answer.body.lines().filter(|line| !line.is_empty()).collect();
    let deltas = [r#"data: {"delta":"one "}"#, r#"data: {"delta":"two "}"#, r#"data: {"delta":"three"}"#];
    assert_eq!(lines[..4], [deltas[0], deltas[1], deltas[2], "event: done"]);
    let done: serde_json::Value = serde_json::from_str(lines[4].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(done["message"], "one two three");
}

#[test]
fn a_client_that_leaves_cancels_the_upstream_and_is_one_line() {
    let upstream = Upstream::start(Way::Held);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let mut connection = server.connect();
    connection.send(crate::support::post("/api/chat", r#"{"message":"x","session_id":"gone","stream":true}"#)).unwrap();
    connection.head().unwrap();
    assert_eq!(connection.event_line().unwrap(), r#"data: {"delta":"one "}"#);
    let left_at = std::time::Instant::now();
    drop(connection);
    upstream.left.recv_timeout(LIMIT).unwrap();
    assert!(left_at.elapsed().as_secs_f64() < 1.0, "the upstream was cancelled after {:?}", left_at.elapsed());
    server.expect_that("the access line", |event| event["target"] == "access" && event["path"] == "/api/chat");
    let database = rusqlite::Connection::open(server.home.join("c.db")).unwrap();
    let mut row = (String::new(), String::new());
    until("the half reply in the store", || {
        let sql = "SELECT assistant, state FROM turns";
        row = database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        row.1 == "incomplete"
    });
    assert_eq!(row.0, "one ");
}

#[test]
fn a_failing_upstream_is_an_honest_error_and_nothing_of_it_is_told() {
    for (way, status, code) in [
        (Way::Fails, 502, "upstream_error"),
        (Way::Breaks, 502, "upstream_error"),
        (Way::Junk, 502, "upstream_error"),
        (Way::Noise, 502, "upstream_error"),
        (Way::ErrorEvent, 502, "upstream_error"),
        (Way::LongLine, 502, "upstream_error"),
        (Way::Endless, 502, "upstream_error"),
        (Way::Resets, 502, "upstream_error"),
        (Way::Refuses, 502, "upstream_error"),
        (Way::Busy, 503, "overloaded"),
        (Way::Silent, 504, "timeout"),
    ] {
        let upstream = Upstream::start(way);
        let limits = [("CHAT_UPSTREAM", upstream.url.as_str()), ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "0.3")];
        let server = Server::start(&limits);
        let answer = server.connect().post("/api/chat", HELLO).unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(code)), "{way:?} {answer:?}");
        assert!(!answer.body.contains("hunter2") && !answer.body.contains("10.9.8.7"));
        drop(upstream);
        assert!(!server.text().contains("hunter2"));
    }
}

#[test]
fn without_a_model_chat_is_503_and_the_rest_serves() {
    let server = Server::start(&[]);
    let answer = server.connect().post("/api/chat", HELLO).unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("not_ready")));
    assert!(answer.header("retry-after").is_some());
    until("a degraded health", || server.connect().get("/api/health").unwrap().json()["status"] == "degraded");
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
    let ready = server.connect().get("/readyz").unwrap();
    assert_eq!((ready.status, ready.json()["reasons"][0].as_str()), (503, Some("model: cannot be reached")));
    assert_eq!(server.connect().get("/").unwrap().json()["name"], "chatcorn");
}
