//! What a client may rely on beside the answers themselves: CORS, ids, traces, HEAD, Allow, negotiation; Unix sockets; balancers.

use crate::heads::has_headers;
use crate::support::{Answer, Server, Upstream, Way, post};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

fn asked(server: &Server, line: &str, fields: &str) -> Answer {
    let mut connection = server.connect();
    connection.send(format!("{line} HTTP/1.1\r\nHost: t\r\n{fields}\r\n")).unwrap();
    if line.starts_with("HEAD") { connection.head().unwrap() } else { connection.answer().unwrap() }
}

#[test]
fn any_origin_is_let_in_by_default_and_never_with_credentials() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "1/minute")], &[]);
    for _ in 0..5 {
        let preflight = asked(
            &server,
            "OPTIONS /api/chat",
            "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n",
        );
        assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (204, Some("*")));
        let allowed = |name: &str, value: &str| preflight.header(name).unwrap().contains(value);
        assert!(allowed("access-control-allow-methods", "POST"), "{preflight:?}");
        // OpenAI's client for browsers tells of its system in fields of its own.
        assert!(allowed("access-control-allow-headers", "authorization,content-type,x-stainless-os"), "{preflight:?}");
        assert!(preflight.header("access-control-max-age").is_some() && preflight.header("ratelimit").is_none());
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
    }
    let first = asked(&server, "GET /api/nowhere", "Origin: https://a.example\r\n");
    assert_eq!(
        (first.status, first.header("access-control-allow-origin")),
        (404, Some("*")),
        "preflights cost nothing"
    );
    let second = asked(&server, "GET /api/nowhere", "Origin: https://a.example\r\n");
    assert_eq!((second.status, second.header("access-control-allow-origin")), (429, Some("*")));
    for exposed in ["RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "X-RateLimit-Remaining"] {
        assert!(second.header("access-control-expose-headers").unwrap().contains(exposed), "{exposed}");
    }
    assert_eq!(second.header("access-control-allow-credentials"), None);
}

#[test]
fn listed_origins_alone_are_let_in() {
    let server = Server::start(&[("CORS_ORIGINS", "https://a.example,https://b.example:8443")]);
    for (origin, allowed) in [
        ("https://a.example", true),
        ("https://b.example:8443", true),
        ("https://b.example", false),
        ("http://a.example", false),
        ("https://a.example.evil", false),
        ("https://evil.a.example", false),
        ("null", false),
    ] {
        for line in ["GET /healthz", "OPTIONS /api/chat", "GET /nowhere"] {
            let answer = asked(&server, line, &format!("Origin: {origin}\r\n"));
            let granted = answer.header("access-control-allow-origin");
            assert_eq!(granted, allowed.then_some(origin), "{line} {origin}");
            assert!(answer.header("vary").is_some_and(|vary| vary.contains("Origin")), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
        }
    }
}

#[test]
fn an_id_and_a_trace_are_taken_over_and_passed_on() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let fields = format!("Host: t\r\nX-Request-Id: a.b-c_1\r\ntraceparent: {trace}\r\n");
    let mut connection = server.connect();
    connection.send(post("/api/chat", r#"{"message":"x"}"#).replace("Host: t\r\n", &fields)).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("a.b-c_1")));
    assert_eq!(answer.json()["metadata"]["request_id"], "a.b-c_1");
    let heads = std::iter::from_fn(|| upstream.heads.recv_timeout(crate::support::LIMIT).ok());
    let call = heads.into_iter().find(|head| head.starts_with("post")).unwrap();
    assert!(call.contains("x-request-id: a.b-c_1") && call.contains(&format!("traceparent: {trace}")), "{call}");
    server.expect_that("the access line", |event| event["request_id"] == "a.b-c_1");
    let untraced = post("/api/chat", r#"{"message":"x"}"#).replace("Host: t\r\n", "Host: t\r\ntraceparent: 00-x\r\n");
    connection.send(untraced).unwrap();
    assert_eq!(connection.answer().unwrap().status, 200);
    let heads = std::iter::from_fn(|| upstream.heads.recv_timeout(crate::support::LIMIT).ok());
    let call = heads.into_iter().find(|head| head.starts_with("post")).unwrap();
    assert!(!call.contains("traceparent"), "{call}");
    for bad in ["", "a b", "a/b", "\u{e9}", &"x".repeat(129), "a;b", "<x>"] {
        let answer = asked(&server, "GET /api/nowhere", &format!("X-Request-Id: {bad}\r\n"));
        let id = answer.header("x-request-id").unwrap().to_owned();
        assert!(id != bad && !id.is_empty() && answer.json()["request_id"] == id.as_str(), "{bad:?} became {id:?}");
    }
}

#[test]
fn head_says_what_get_says_and_sends_no_body() {
    let server = Server::start(&[]);
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/api/health",
        "/openapi.json",
        "/page/page.js",
        "/api/context/mode?session_id=a",
        "/nowhere",
    ] {
        let (get, head) = (asked(&server, &format!("GET {path}"), ""), asked(&server, &format!("HEAD {path}"), ""));
        let told = |answer: &Answer| {
            let kept = |(name, _): &&(String, String)| !["date", "x-request-id"].contains(&name.as_str());
            answer.headers.iter().filter(kept).cloned().collect::<Vec<_>>()
        };
        assert_eq!((get.status, told(&get)), (head.status, told(&head)), "{path}");
        let mut connection = server.connect();
        connection
            .send(format!("HEAD {path} HTTP/1.1\r\nHost: t\r\n\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n"))
            .unwrap();
        connection.head().unwrap();
        assert_eq!(connection.answer().unwrap().json()["status"], "alive", "{path}: a body came behind the head");
    }
}

#[test]
fn a_method_that_is_not_there_is_told_which_are() {
    let server = Server::start(&[]);
    let (get, post, both) = ("GET, HEAD, OPTIONS", "POST, OPTIONS", "GET, HEAD, POST, OPTIONS");
    for (path, allow) in [
        ("/", get),
        ("/healthz", get),
        ("/readyz", get),
        ("/openapi.json", get),
        ("/api/health", get),
        ("/v1/models", get),
        ("/page/page.css", get),
        ("/api/chat", post),
        ("/api/initialize", post),
        ("/v1/chat/completions", post),
        ("/api/context/mode", both),
    ] {
        let mut methods = vec!["PUT", "DELETE", "PATCH", "TRACE", "BREW"];
        if !allow.contains("GET") {
            methods.extend(["GET", "HEAD"]);
        }
        if !allow.contains("POST") {
            methods.push("POST");
        }
        for method in methods {
            let answer = asked(&server, &format!("{method} {path}"), "");
            assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        }
    }
}

#[test]
fn a_browser_gets_the_page_and_a_program_json() {
    let server = Server::start(&[]);
    for (accept, html) in [
        ("text/html", true),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
        ("text/html;q=0.9, application/json;q=0.1", true),
        ("text/*", true),
        ("*/*", false),
        ("application/json", false),
        ("application/json, text/html", false),
        ("text/html;q=0.1, application/json", false),
        ("text/html;q=0", false),
        ("image/png", false),
        ("", false),
        (";;;,,,", false),
    ] {
        let answer = asked(&server, "GET /", &format!("Accept: {accept}\r\n"));
        let is_html = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        assert_eq!((answer.status, is_html), (200, html), "{accept:?}");
        assert!(answer.headers.iter().any(|(name, value)| name == "vary" && value.contains("Accept")), "{answer:?}");
    }
}

/// What a Unix socket answers.
fn unix(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn a_unix_socket_is_closed_to_others_unless_a_umask_opens_it() {
    for (umask, mode) in [("", 0o600), ("117", 0o660), ("0", 0o777)] {
        let directory = std::env::temp_dir().join(format!("chatcorn-unix-{}-{mode:o}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("front.sock");
        let bind = format!("unix:{}", path.display());
        let mut server = Server::start(&[("BIND", &bind), ("CHATCORN_UMASK", umask), ("LOG_CLIENT", "full")]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "umask {umask:?}");
        let close = "GET /healthz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n";
        let answer = unix(&path, format!("{close}\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-frame-options: DENY"), "{answer}");
        assert!(unix(&path, b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 400 "));
        // Who speaks through the socket is trusted to say for whom.
        unix(&path, format!("{close}X-Forwarded-For: 192.0.2.9\r\n\r\n").as_bytes());
        server.expect_that("the access line", |event| event.to_string().contains("192.0.2.9"));
        server.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(server.wait().success());
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// The second version's header: a command, a family, and what follows.
fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family, 0, rest.len() as u8][..], rest].concat()
}

#[test]
fn every_form_of_the_proxy_protocol_names_its_client() {
    let server = Server::start(&[("PROXY_PROTOCOL", "true"), ("HEADER_TIMEOUT", "0.5")]);
    let request = b"GET /healthz HTTP/1.1\r\nHost: t\r\nX-Request-Id: ";
    let v6 = [[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], [0; 16]].concat();
    let forms: [(&str, Vec<u8>, &str); 8] = [
        ("v1-tcp4", b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".to_vec(), "192.0.2.1"),
        ("v1-tcp6", b"PROXY TCP6 2001:db8::5 ::1 1 2\r\n".to_vec(), "2001:db8::5"),
        ("v1-unknown", b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        ("v1-unknown-with-more", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "127.0.0.1"),
        ("v2-tcp4", second(1, 0x11, &[192, 0, 2, 2, 1, 1, 1, 1, 0, 1, 0, 2]), "192.0.2.2"),
        ("v2-tcp4-with-more", second(1, 0x11, &[192, 0, 2, 3, 1, 1, 1, 1, 0, 1, 0, 2, 4, 0, 1, 0]), "192.0.2.3"),
        ("v2-tcp6", second(1, 0x21, &[&v6[..], &[0, 1, 0, 2]].concat()), "2001:db8::7"),
        ("v2-local", second(0, 0, b""), "127.0.0.1"),
    ];
    for (name, header, client) in &forms {
        let stream = [&header[..], request, name.as_bytes(), b"\r\n\r\n"].concat();
        for cut in (1..header.len() + 4).step_by(3) {
            let mut connection = server.connect();
            connection.send(&stream[..cut]).unwrap();
            connection.send(&stream[cut..]).unwrap();
            let answer = connection.answer().unwrap_or_else(|error| panic!("{name} cut at {cut}: {error}"));
            assert_eq!(answer.status, 200, "{name} cut at {cut}");
            has_headers(&answer);
        }
        let line = server.expect_that("the access line", |event| event["request_id"] == *name);
        assert!(line.to_string().contains(&format!("\"{client}\"")), "{name}: {line}");
    }
    let mut silent = server.connect();
    silent.send("PROXY TCP4 1.2.3.4 ").unwrap();
    assert!(silent.is_closed(), "a header that does not end is closed");
    for bad in [
        &b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"[..],
        b"PROXY TCP4 1.2.3.4\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[b'P'; 200],
        b"PROXY UNKNOWN \n\n",
    ] {
        let mut connection = server.connect();
        let _ = connection.send(bad);
        assert!(connection.is_closed(), "{bad:?}");
    }
}
