//! What a broken session store does to a server: chat says when to come back, everything else serves on.

use crate::support::{Answer, Connection, Server, Upstream, Way, until};
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
    only_chat_is_refused_for(server, upstream, HELLO);
}

fn only_chat_is_refused_for(server: &Server, upstream: &Upstream, body: &str) {
    upstream.requests.try_iter().for_each(drop);
    let begun = Instant::now();
    let answer = server.connect().post("/api/chat", body).unwrap();
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
fn a_full_disk_is_a_503_and_then_chat_goes_on() {
    if !nix::unistd::Uid::effective().is_root() {
        return eprintln!("skipped: a file system of its own needs root");
    }
    let mount = "mkdir -m 700 s && mount -t tmpfs -o size=512k,mode=700 none s && exec \"$0\" \"$@\"";
    let probe = std::process::Command::new("unshare").args(["-m", "sh", "-c", "mount -t tmpfs none /mnt"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no mount is allowed here");
    }
    let upstream = Upstream::start(Way::Instant);
    let variables =
        [("CHAT_UPSTREAM", &*upstream.url), ("DATABASE_URL", "sqlite:s/c.db"), ("RATE_LIMIT_ENABLED", "false")];
    let server = Server::spawn_under(&["unshare", "-m", "sh", "-c", mount], &variables, &[]).serving();
    let inside = std::path::Path::new("/proc").join(server.pid().to_string()).join("root");
    let filler = inside.join(server.home.strip_prefix("/").unwrap()).join("s/filler");
    assert_eq!(chat(&server).status, 200);
    assert!(std::fs::write(&filler, vec![b'x'; 1 << 20]).is_err(), "the disk is not full");
    let long = serde_json::json!({"message": "x".repeat(9000), "session_id": "s1"}).to_string();
    until("a refusal", || server.connect().post("/api/chat", &long).unwrap().status == 503);
    only_chat_is_refused_for(&server, &upstream, &long);
    std::fs::remove_file(&filler).unwrap();
    until("chat again", || chat(&server).status == 200);
    assert_eq!(server.connect().post("/api/chat", &long).unwrap().status, 200);
}

#[test]
fn a_database_locked_for_ten_seconds_refuses_each_chat_in_time() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream);
    let limit = Duration::from_secs(if std::env::var_os("CHATCORN_TEST_LONG").is_some() { 10 } else { 3 });
    let other = rusqlite::Connection::open(server.home.join("c.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < limit {
        only_chat_is_refused(&server, &upstream);
    }
    other.execute_batch("ROLLBACK").unwrap();
    until("chat after the lock", || chat(&server).status == 200);
}

/// Kills of one worker after the other while four clients write; none in the middle of a start.
#[test]
fn turns_that_four_writers_were_answered_outlive_a_hundred_kills() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream);
    let kills = if std::env::var_os("CHATCORN_TEST_LONG").is_some() { 100 } else { 6 };
    let (answered, ended) = (std::sync::Mutex::new(Vec::new()), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (address, answered, ended) = (server.address.as_str(), &answered, &ended);
            scope.spawn(move || {
                for number in 0.. {
                    if ended.load(std::sync::atomic::Ordering::Relaxed) {
                        return;
                    }
                    let message = format!("turn {writer}.{number}");
                    let body = serde_json::json!({"message": message, "session_id": format!("w{writer}")}).to_string();
                    let answer = Connection::try_open(address).and_then(|mut open| open.post("/api/chat", &body));
                    if answer.is_ok_and(|answer| answer.status == 200) {
                        answered.lock().unwrap().push(message);
                    }
                }
            });
        }
        for number in 0..kills {
            let (before, workers) = (answered.lock().unwrap().len(), server.children("worker"));
            if let Some(worker) = workers.get(number % 4) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*worker), nix::sys::signal::Signal::SIGKILL);
            }
            until("more answers", || answered.lock().unwrap().len() > before + 3);
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let kept: std::collections::BTreeSet<(String, String)> = turns(&server).into_iter().collect();
    for message in answered.into_inner().unwrap() {
        assert!(kept.contains(&(message.clone(), "complete".to_owned())), "{message} is lost");
    }
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
            Connection::try_open(&server.address).and_then(|mut open| open.get("/healthz")).is_ok()
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
