//! Workers that served enough, or hold too much, make room for new ones, and nobody notices.

use crate::support::{Load, Server, Upstream, Way, post, until};

fn long_or<T>(long: T, short: T) -> T {
    if std::env::var_os("CHATCORN_TEST_LONG").is_some() { long } else { short }
}

fn recycled(server: &Server) -> usize {
    server.text().lines().filter(|line| line.contains("it was recycled: it served")).count()
}

#[test]
fn workers_that_served_enough_are_replaced_one_at_a_time_and_no_request_is_lost() {
    let upstream = Upstream::start(Way::Load);
    let variables = [("CHAT_UPSTREAM", upstream.url.as_str()), ("MAX_REQUESTS", "60"), ("MAX_REQUESTS_JITTER", "20")];
    let server = Server::start(&variables);
    let load = Load::start(&server);
    let mut most = 0;
    let wanted = long_or(40, 4);
    for turn in 1..=wanted {
        until("one more to be recycled", || {
            most = most.max(server.children("worker").len());
            recycled(&server) >= turn
        });
    }
    load.end().assert_none_failed(&["single", "kept", "stream"]);
    assert_eq!(most, 5, "one successor at a time");
    assert!(!server.text().contains("worker died"), "{}", server.text());
    let status = server.status();
    assert!(status["restarts"]["causes"]["recycled"].as_u64().unwrap() >= wanted as u64, "{status}");
    let shown = String::from_utf8(server.order(&["status"]).stdout).unwrap();
    assert!(shown.contains(" by recycled; the last ") && shown.contains("it was recycled: it served"), "{shown}");
}

#[test]
fn a_worker_that_holds_too_much_finishes_what_it_has_and_is_replaced() {
    const BODY_BYTES: usize = 40 << 20;
    let upstream = Upstream::start(Way::Instant);
    let fresh = Server::start(&[("WEB_CONCURRENCY", "2")]);
    let rss = fresh.status()["workers"][0]["rss_bytes"].as_u64().unwrap();
    drop(fresh);
    let most = (rss + (24 << 20)).to_string();
    let variables = [
        ("CHAT_UPSTREAM", upstream.url.as_str()),
        ("WEB_CONCURRENCY", "2"),
        ("LIMIT_BODY", "64MiB"),
        ("MAX_RSS", &most),
    ];
    let server = Server::start(&variables);
    let before = server.children("worker");
    let body = format!(r#"{{"message":"x"{}}}"#, " ".repeat(BODY_BYTES));
    let (first, last) = body.split_at(body.len() - 1);
    let mut connection = server.connect();
    let request = post("/api/chat", "").replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
    assert!(request.contains(&body.len().to_string()), "{request}");
    connection.send(request + first).unwrap();
    // Its successor is there before it is told to go.
    server.expect("worker ready");
    assert_eq!(before.iter().filter(|pid| server.children("worker").contains(pid)).count(), 2);
    connection.send(last).unwrap();
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{}", answer.body);
    drop(connection);
    let ended = server.expect("worker ended");
    assert!(ended["why"].as_str().unwrap().starts_with("it was recycled: it held "), "{ended}");
    assert_eq!((ended["by"].as_str(), ended["how"].as_str()), (Some("us"), Some("exit code 0")));
    until("two workers again", || server.children("worker").len() == 2);
}

#[test]
fn a_measure_that_every_newcomer_is_over_does_not_keep_forking() {
    let server = Server::start(&[("WEB_CONCURRENCY", "1"), ("MAX_RSS", "1MiB")]);
    until("the third", || server.text().matches("it was recycled: it held").count() >= 2);
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
    let wait = server.text().lines().filter(|line| line.contains("worker ready")).count();
    assert!(wait <= 5, "{}", server.text());
}
