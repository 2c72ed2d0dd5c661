//! Limits hold over all workers.

use crate::support::{Connection, Server, Upstream, Way};

const HELLO: &str = r#"{"message":"hello","session_id":"s"}"#;

#[test]
fn forty_at_once_over_four_workers_are_exactly_ten() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start_with(&[("CHAT_UPSTREAM", &upstream.url)], &[]);
    let address = &server.address;
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| Connection::open(address).post("/api/chat", HELLO).unwrap().status))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 30);
    let refused = server.connect().post("/api/chat", HELLO).unwrap();
    let body = refused.json();
    assert_eq!((refused.status, body["error"].as_str()), (429, Some("rate_limited")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait) && body["retry_after"].as_u64() == Some(wait));
    assert!(body["limit"].as_str().unwrap().contains("minute"));
    assert!(refused.header("ratelimit-policy").unwrap().contains(r#""minute";q=10;w=60"#));
    assert!(refused.header("ratelimit").unwrap().contains("r=0;t="));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
    server.expect_that("the security event", |event| {
        event["target"] == "security" && event.to_string().contains("rate_limited")
    });
}

#[test]
fn health_and_preflights_are_free_and_mistakes_are_not() {
    let server = Server::start_with(&[], &[]);
    for _ in 0..15 {
        assert_eq!(server.connect().get("/api/health").unwrap().status, 200);
        assert_eq!(server.connect().get("/readyz").unwrap().status, 503);
    }
    let statuses: Vec<u16> = (0..11).map(|_| server.connect().get("/api/nothing").unwrap().status).collect();
    assert_eq!(statuses[..10], [404; 10]);
    assert_eq!(statuses[10], 429);
}

#[test]
fn a_client_behind_a_trusted_proxy_is_counted_as_itself() {
    let ask = |server: &Server, forwarded: &str| {
        let mut connection = server.connect();
        let head = format!("GET /api/nothing HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
        connection.send(head).unwrap();
        connection.answer().unwrap().status
    };
    let trusting = Server::start_with(&[], &[]);
    assert!((0..12).all(|client| ask(&trusting, &format!("6.6.6.6, 198.51.100.{client}")) == 404));
    let wary = Server::start_with(&[("FORWARDED_ALLOW_IPS", "10.0.0.0/8")], &[]);
    let statuses: Vec<u16> = (0..12).map(|client| ask(&wary, &format!("198.51.100.{client}"))).collect();
    assert_eq!(statuses[10..], [429, 429]);
}

#[test]
fn counts_survive_a_reload() {
    let server = Server::start_with(&[], &[]);
    for _ in 0..10 {
        assert_eq!(server.connect().get("/api/nothing").unwrap().status, 404);
    }
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.expect("reloaded");
    assert_eq!(server.connect().get("/api/nothing").unwrap().status, 429);
}
