//! Bad input gets a clear error, and every answer its headers.

use crate::support::{Answer, Server, Upstream, Way, post};

fn judge(answer: &Answer, status: u16, code: &str, says: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["error"].as_str()), (status, Some(code)), "{answer:?}");
    assert_eq!(body["success"].as_bool(), Some(false));
    assert!(body["message"].as_str().unwrap().contains(says), "{says:?} is not in {body}");
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    has_headers(answer);
}

fn has_headers(answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("x-xss-protection", "1; mode=block"),
        ("strict-transport-security", "max-age=31536000; includeSubDomains"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    assert!(answer.header("x-request-id").is_some() && answer.header("server").is_none());
}

#[test]
fn every_mistake_gets_the_error_of_the_contract() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let deep = format!(r#"{{"message":"x","extra":{}1{}}}"#, "[".repeat(40), "]".repeat(40));
    for (body, code, says) in [
        ("{", "invalid_json", "EOF"),
        (r#"{"message":"a","message":"b"}"#, "invalid_json", "twice"),
        ("\"\u{7}\"", "invalid_json", "control character"),
        (deep.as_str(), "invalid_json", "deeper than 32"),
        ("{}", "invalid_request", "message is required"),
        (r#"{"message":"  "}"#, "invalid_request", "message must not be empty"),
        (r#"{"message":"a","session_id":"../../etc/passwd"}"#, "invalid_request", "session_id must be"),
        (r#"{"message":"a","history":[["x"]]}"#, "invalid_request", "history must be"),
    ] {
        judge(&server.connect().post("/api/chat", body).unwrap(), 400, code, says);
    }
    let text = "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
    let mut connection = server.connect();
    connection.send(text).unwrap();
    judge(&connection.answer().unwrap(), 415, "unsupported_media_type", "application/json");
    let coded = post("/api/chat", "{}").replace("Content-Length", "Content-Encoding: gzip\r\nContent-Length");
    connection.send(coded).unwrap();
    judge(&connection.answer().unwrap(), 415, "unsupported_media_type", "without a Content-Encoding");
    judge(&server.connect().get("/api/nothing").unwrap(), 404, "not_found", "GET /");
    let wrong = server.connect().get("/api/chat").unwrap();
    judge(&wrong, 405, "method_not_allowed", "POST");
    assert_eq!(wrong.header("allow"), Some("POST, OPTIONS"));
    let missing = server.connect().get("/api/context/mode").unwrap();
    judge(&missing, 400, "invalid_request", "session_id is required");
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let server = Server::start(&[]);
    let mut connection = server.connect();
    connection
        .send("POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 2097152\r\n\r\n")
        .unwrap();
    judge(&connection.answer().unwrap(), 413, "payload_too_large", "1048576 bytes");
    let mut connection = server.connect();
    let head =
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head).unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..32 {
        if connection.send(&chunk).is_err() {
            break;
        }
    }
    judge(&connection.answer().unwrap(), 413, "payload_too_large", "1048576 bytes");
}

#[test]
fn a_doubtful_head_is_400_with_headers_and_nothing_after_it_is_served() {
    let server = Server::start(&[]);
    for head in [
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Length: +3\r\n\r\n",
        "POST /api/chat HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /healthz HTTP/1.1\nHost: a\n\n",
        "GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
    ] {
        let mut connection = server.connect();
        let next = "GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n";
        connection.send(format!("{next}{head}{next}")).unwrap();
        assert_eq!(connection.answer().unwrap().status, 200, "what came before is served: {head:?}");
        let refused = connection.answer().unwrap();
        assert_eq!(refused.status, 400, "{head:?}");
        has_headers(&refused);
        assert_eq!(refused.header("connection"), Some("close"));
        assert!(connection.is_closed(), "{head:?}");
    }
    server.expect_that("the security line", |event| event["target"] == "security");
}

#[test]
fn every_answer_has_its_headers() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    for path in ["/", "/api/health", "/healthz", "/readyz", "/favicon.ico"] {
        has_headers(&server.connect().get(path).unwrap());
    }
    let mut connection = server.connect();
    connection.send("OPTIONS /api/chat HTTP/1.1\r\nHost: t\r\nOrigin: https://a.example\r\n\r\n").unwrap();
    let preflight = connection.answer().unwrap();
    assert_eq!(preflight.status, 204);
    assert!(preflight.header("access-control-allow-methods").is_some());
    assert_eq!(preflight.header("allow"), Some("POST, OPTIONS"));
    has_headers(&preflight);
    let mut stream = server.connect();
    stream.send(post("/api/chat", r#"{"message":"x","stream":true}"#)).unwrap();
    let head = stream.head().unwrap();
    has_headers(&head);
    assert_eq!(head.header("cache-control"), Some("no-store"));
    let mut connection = server.connect();
    connection.send("HEAD /api/health HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine-1\r\n\r\n").unwrap();
    let head = connection.head().unwrap();
    assert_eq!((head.status, head.header("x-request-id")), (200, Some("mine-1")));
    has_headers(&head);
    assert_eq!(connection.get("/healthz").unwrap().status, 200, "a HEAD has no body");
}

#[test]
fn a_slow_head_is_408_and_an_idle_connection_is_closed() {
    let server = Server::start(&[("HEADER_TIMEOUT", "0.5"), ("KEEP_ALIVE", "0.5")]);
    let mut connection = server.connect();
    connection.send("GET /healthz HTTP/1.1\r\nHos").unwrap();
    let refused = connection.answer().unwrap();
    assert_eq!((refused.status, refused.json()["error"].as_str()), (408, Some("request_timeout")));
    let mut idle = server.connect();
    assert_eq!(idle.get("/healthz").unwrap().status, 200);
    assert!(idle.is_closed());
}
