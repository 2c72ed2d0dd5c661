//! What a broken session store does to a server: chat says when to come back, everything else serves on.

use crate::support::{Answer, Server, Upstream, Way, until};
use std::time::{Duration, Instant};

const HELLO: &str = r#"{"message":"hello","session_id":"s1"}"#;

fn start(upstream: &Upstream) -> Server {
    Server::start(&[("CHAT_UPSTREAM", &upstream.url)])
}

fn chat(server: &Server) -> Answer {
    server.connect().post("/api/chat", HELLO).unwrap()
}

/// Chat is refused as it should be, and nothing else is.
fn only_chat_is_refused(server: &Server, upstream: &Upstream) {
    upstream.requests.try_iter().for_each(drop);
    let begun = Instant::now();
    let answer = chat(server);
    assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("not_ready")), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert!(begun.elapsed() < Duration::from_millis(2500), "refused after {:?}", begun.elapsed());
    assert!(upstream.requests.try_recv().is_err(), "the model was asked for a turn that cannot be kept");
    assert_eq!(server.connect().get("/api/health").unwrap().status, 200);
    let asked = r#"{"model":"any","messages":[{"role":"user","content":"hello"}]}"#;
    assert_eq!(server.connect().post("/v1/chat/completions", asked).unwrap().status, 200, "/v1 stores nothing");
}

fn turns(server: &Server) -> Vec<(String, String)> {
    let database = rusqlite::Connection::open(server.home.join("c.db")).unwrap();
    let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let mut turns = database.prepare("SELECT user, state FROM turns ORDER BY id").unwrap();
    let rows = turns.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_locked_database_is_a_503_and_then_chat_goes_on() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream);
    assert_eq!(chat(&server).status, 200);
    let other = rusqlite::Connection::open(server.home.join("c.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    only_chat_is_refused(&server, &upstream);
    assert_eq!(server.connect().get("/readyz").unwrap().status, 503);
    other.execute_batch("ROLLBACK").unwrap();
    until("chat after the lock", || chat(&server).status == 200);
}

#[test]
fn a_garbled_database_is_a_503_and_is_named() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream);
    assert_eq!(chat(&server).status, 200);
    for file in ["c.db", "c.db-wal"] {
        let path = server.home.join(file);
        let length = std::fs::metadata(&path).map_or(0, |file| file.len() as usize);
        std::fs::write(&path, vec![b'x'; length]).unwrap();
    }
    // A worker sees it when its own cache lacks a page that is asked for; the one that wrote the first turn may not.
    let mut answer = chat(&server);
    until("a refusal", || {
        answer = chat(&server);
        answer.status == 503
    });
    assert_eq!(answer.json()["error"], "not_ready");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(server.connect().get("/api/health").unwrap().status, 200);
    // Which of the two it is depends on what SQLite comes upon first.
    let names = |line: &str| line.contains("not a usable database") || line.contains("the session store failed");
    server.expect_that("the reason", |event| names(&event.to_string()));
}

#[test]
fn turns_that_were_answered_are_kept_when_workers_are_killed() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream);
    let mut answered = Vec::new();
    for round in 0..10 {
        for number in 0..5 {
            let message = format!("turn {round}.{number}");
            let body = serde_json::json!({"message": message, "session_id": "s1"}).to_string();
            // A kill may take the request with it: then nothing was promised.
            let answer = server.connect().post("/api/chat", &body);
            if answer.is_ok_and(|answer| answer.status == 200) {
                answered.push(message);
            }
        }
        for pid in server.children("worker") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        until("a worker again", || {
            crate::support::Connection::try_open(&server.address).and_then(|mut open| open.get("/healthz")).is_ok()
        });
    }
    assert!(answered.len() > 25, "only {} were answered", answered.len());
    let kept = turns(&server);
    for message in &answered {
        assert!(kept.iter().any(|(user, state)| user == message && state == "complete"), "{message} is lost");
    }
}

#[test]
fn an_operator_lists_shows_exports_deletes_and_purges_sessions() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream);
    let issued = server.connect().post("/api/chat", r#"{"message":"a \u001b[31m secret"}"#).unwrap().json();
    let id = issued["session_id"].as_str().unwrap();
    assert_eq!(chat(&server).status, 200);
    let said = |arguments: &[&str]| {
        let output = server.command(arguments);
        assert!(output.status.success(), "{arguments:?} {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let list = said(&["sessions", "list"]);
    assert!(list.contains(" s1 ") && list.contains(&id[..6]) && !list.contains(id), "{list}");
    let number = |name: &str| {
        let line = list.lines().find(|line| line.contains(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    let shown = said(&["sessions", "show", &number(&id[..6])]);
    assert!(shown.contains("assistant: one two three") && !shown.contains('\u{1b}'), "{shown}");
    let exported: serde_json::Value = serde_json::from_str(&said(&["sessions", "export", &number("s1")])).unwrap();
    assert_eq!(
        (exported["session"]["session_id"].as_str(), exported["turns"][0]["user"].as_str()),
        (Some("s1"), Some("hello"))
    );
    assert_eq!(said(&["sessions", "export"]).lines().count(), 2);
    said(&["sessions", "delete", &number("s1")]);
    assert_eq!(turns(&server).len(), 1);
    assert_eq!(server.command(&["sessions", "delete", &number("s1")]).status.code(), Some(1));
    assert_eq!(said(&["sessions", "purge"]), "0 sessions deleted\n");
    let database = rusqlite::Connection::open(server.home.join("c.db")).unwrap();
    database.execute("UPDATE sessions SET active_ms = 5", []).unwrap();
    assert_eq!(said(&["sessions", "purge"]), "1 sessions deleted\n");
    assert!(turns(&server).is_empty());
}
