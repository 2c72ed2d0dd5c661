//! Every kind of answer there is, and the headers that each of them has.

use crate::heads::{has_headers, has_security_headers};
use crate::support::{Answer, Connection, Server, Upstream, Way, post};

const JSON_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// One answer to these bytes; of a HEAD or a stream, its head.
fn asked(server: &Server, bytes: &str) -> Answer {
    let mut connection = server.connect();
    let _ = connection.send(bytes);
    let head_alone = bytes.starts_with("HEAD") || bytes.contains("\"stream\":true");
    let answer = if head_alone { connection.head() } else { connection.answer() };
    answer.unwrap_or_else(|error| panic!("{error}: {bytes:.200}"))
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: t\r\n{fields}\r\n")
}

fn judge(name: &str, answer: &Answer, status: u16) {
    has_headers(answer);
    judge_alone(name, answer, status);
}

/// The same without what lets other origins read it: the operators' address is for nobody's page but its own.
fn judge_alone(name: &str, answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    has_security_headers(answer);
    let page =
        answer.header("content-type").is_some_and(|kind| !kind.contains("json") && !kind.contains("event-stream"))
            && !name.contains("/metrics");
    let policy = answer.header("content-security-policy").unwrap();
    match page {
        true => assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{name}: {policy}"),
        false => assert_eq!(policy, JSON_POLICY, "{name}"),
    }
    assert!(answer.header("permissions-policy").unwrap().contains("camera=()"), "{name}");
    let below = name.contains(" /api") || name.contains(" /v1");
    let stored = answer.header("cache-control") == Some("no-store");
    // A preflight says nothing that could be kept; its own age is another header.
    assert!(!below || stored || name.starts_with("OPTIONS"), "{name}: {answer:?}");
    for name in ["connection", "x-request-id", "content-type", "content-length", "date", "content-security-policy"] {
        assert!(answer.headers.iter().filter(|(key, _)| key == name).count() <= 1, "{name} twice: {answer:?}");
    }
}

/// What a plain request gets; the name is the request line.
fn kinds() -> Vec<(String, u16)> {
    let mut kinds = Vec::new();
    let mut add = |bytes: String, status: u16| kinds.push((bytes, status));
    for path in
        ["/", "/healthz", "/readyz", "/api/health", "/openapi.json", "/v1/models", "/page/page.css", "/page/icon.svg"]
    {
        add(get(path, ""), 200);
        add(get(path, "").replacen("GET", "HEAD", 1), 200);
        add(get(path, "").replacen("GET", "OPTIONS", 1), 204);
        add(get(path, "").replacen("GET", "DELETE", 1), 405);
    }
    add(get("/", "Accept: text/html\r\n"), 200);
    add(get("/api/context/mode?session_id=a", ""), 200);
    for (path, body, status) in [
        ("/api/chat", r#"{"message":"x"}"#, 200),
        ("/api/chat", r#"{"message":"x","stream":true}"#, 200),
        ("/api/chat", "{", 400),
        ("/api/chat", "{}", 400),
        ("/api/initialize", "", 200),
        ("/api/context/mode", r#"{"session_id":"a","mode":"fresh"}"#, 200),
        ("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#, 200),
        ("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#, 200),
        ("/v1/chat/completions", "{", 400),
        ("/v1/nowhere", "{}", 404),
        ("/api/nowhere", "{}", 404),
        ("/nowhere", "{}", 404),
    ] {
        add(post(path, body), status);
    }
    for path in ["/api/chat", "/v1/chat/completions"] {
        add(post(path, "{}").replace("application/json", "text/plain"), 415);
        add(
            format!(
                "POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"
            ),
            413,
        );
        add(get(path, "Host: u\r\n"), 400);
        add(get(path, &format!("X: {}\r\n", "v".repeat(9000))), 431);
        add(get(path, "").replace("HTTP/1.1", "HTTP/3.0"), 505);
        add(get(&format!("{path}?{}", "q".repeat(9000)), ""), 414);
        add(get(path, "").replace("HTTP/1.1", "HTTP/1.0"), 405);
    }
    kinds
}

#[test]
fn every_kind_of_answer_has_every_header() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url), ("ADMIN_BIND", "127.0.0.1:0")]);
    for (bytes, status) in kinds() {
        judge(bytes.lines().next().unwrap(), &asked(&server, &bytes), status);
    }
    let tag = asked(&server, &get("/page/page.css", "")).header("etag").unwrap().to_owned();
    judge("not modified", &asked(&server, &get("/page/page.css", &format!("If-None-Match: {tag}\r\n"))), 304);
    judge(
        "a preflight",
        &asked(&server, &get("/api/chat", "Origin: https://a\r\n").replacen("GET", "OPTIONS", 1)),
        204,
    );
    let admin = admin(&server);
    for (path, status) in [("/metrics", 200), ("/status", 200), ("/api/chat", 404)] {
        let answer = Connection::open(&admin).get(path).unwrap();
        judge_alone(path, &answer, status);
        assert!(status != 200 || answer.header("access-control-allow-origin").is_none(), "{answer:?}");
    }
}

/// Where the operators' address is: the second line that says "listening" may have come before the one that is waited for.
fn admin(server: &Server) -> String {
    let text = server.text();
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["address"].as_str().map(str::to_owned);
    let all: Vec<String> = text.lines().filter(|line| line.contains("\"listening\"")).filter_map(of).collect();
    let other = all.iter().find(|address| !address.ends_with(&server.address)).unwrap_or_else(|| panic!("{all:?}"));
    other.trim_start_matches("http://").to_owned()
}

#[test]
fn what_waits_or_fails_has_every_header() {
    let timed =
        [("HEADER_TIMEOUT", "0.3"), ("BODY_TIMEOUT", "0.3"), ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "0.2"), ("TIMEOUT", "1")];
    for (way, status) in [(Way::Silent, 504), (Way::Fails, 502), (Way::Junk, 502), (Way::Busy, 503), (Way::Noise, 502)]
    {
        let upstream = Upstream::start(way);
        let server = Server::start(&[&timed[2..], &[("CHAT_UPSTREAM", upstream.url.as_str())]].concat());
        judge("POST /api", &asked(&server, &post("/api/chat", r#"{"message":"x"}"#)), status);
        let messages = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
        let answer = asked(&server, &post("/v1/chat/completions", messages));
        assert!(answer.status >= 500, "{answer:?}");
        judge("POST /v1", &answer, answer.status);
    }
    let server = Server::start(&timed);
    judge("a slow head", &asked(&server, "GET /healthz HT"), 408);
    let slow = post("/api/chat", "{}").replace("Content-Length: 2", "Content-Length: 9");
    judge("POST /api, a slow body", &asked(&server, &slow), 408);
    judge("not ready", &asked(&server, &get("/readyz", "")), 503);
    judge("POST /api, no model", &asked(&server, &post("/api/initialize", "")), 503);
    judge("POST /api, no model", &asked(&server, &post("/api/chat", r#"{"message":"x"}"#)), 503);
}

#[test]
fn who_is_refused_gets_every_header() {
    let variables = [("RATE_LIMIT_DEFAULT", "1/minute"), ("RATE_LIMIT_AUTH", "2/minute"), ("API_KEYS_FILE", "keys")];
    let server = Server::start_with(&variables, &[("keys", "")]);
    judge("GET /api without a key", &asked(&server, &get("/api/nowhere", "")), 401);
    judge("GET /v1 with a wrong key", &asked(&server, &get("/v1/models", "Authorization: Bearer x\r\n")), 401);
    judge("GET /api, too often", &asked(&server, &get("/api/nowhere", "")), 429);
    judge("GET /v1, too often", &asked(&server, &get("/v1/models", "")), 429);
    let server = Server::start_with(&variables[..1], &[]);
    judge("GET /api", &asked(&server, &get("/api/nowhere", "")), 404);
    let limited = asked(&server, &get("/api/nowhere", "Origin: https://a.example\r\n"));
    judge("GET /api", &limited, 429);
    assert!(limited.header("access-control-expose-headers").unwrap().contains("Retry-After"));
    assert!(limited.header("retry-after").is_some() && limited.header("ratelimit").is_some());
}

#[test]
fn a_server_that_stops_answers_with_every_header() {
    let upstream = Upstream::start(Way::Held);
    let mut server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let (mut held, mut kept) = (server.connect(), server.connect());
    kept.get("/healthz").unwrap();
    held.send(post("/api/chat", r#"{"message":"x"}"#)).unwrap();
    upstream.requests.recv_timeout(crate::support::LIMIT).unwrap();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.expect_that("the phase", |event| event["message"] == "phase" && event["to"] == "stopping");
    upstream.release();
    judge("POST /api in a drain", &held.answer().unwrap(), 200);
    assert!(server.wait().success());
}
