//! With the real model, which `bin/test` names in CHATCORN_TEST_MODEL.

use crate::support::{LIMIT, Server, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One engine at a time: two of them on two cores wait for each other's threads.
static TURN: Mutex<()> = Mutex::new(());

fn start() -> (Server, MutexGuard<'static, ()>) {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let model = std::env::var("CHATCORN_TEST_MODEL").expect("CHATCORN_TEST_MODEL names the model; bin/test sets it");
    let server =
        Server::start(&[("CHAT_UPSTREAM", ""), ("MODEL", &model), ("OMP_NUM_THREADS", "2"), ("MAX_TOKENS", "24")]);
    until("a model that answers", || server.connect().get("/api/health").unwrap().json()["status"] == "healthy");
    (server, turn)
}

#[test]
fn model_answers_a_chat_and_a_second_turn_reads_less() {
    let (server, _turn) = start();
    let long = "Tell me about the sea. ".repeat(20);
    let body = |message: &str| serde_json::json!({"message": message, "session_id": "s"}).to_string();
    let first = server.connect().post("/api/chat", &body(&long)).unwrap().json();
    assert!(!first["message"].as_str().unwrap().is_empty(), "{first}");
    assert!(first["performance"]["completion_tokens"].as_u64().unwrap() <= 24);
    assert_eq!(first["metadata"]["model"], "SmolLM2-135M-Instruct.Q4_1");
    let second = server.connect().post("/api/chat", &body("And the sky?")).unwrap().json();
    assert_eq!(second["history"].as_array().unwrap().len(), 2);
    assert_eq!(server.connect().post("/api/initialize", "").unwrap().status, 200);
}

#[test]
fn model_survives_the_death_of_a_worker_the_engine_and_the_log_in_turn() {
    let (server, _turn) = start();
    for name in ["worker", "chatcorn log", "chatcorn engine"] {
        let victim = server.children(name)[0];
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        until("a successor", || server.children(name).iter().any(|pid| *pid != victim));
        if name == "chatcorn engine" {
            let answer = server.connect().post("/api/chat", r#"{"message":"hi"}"#).unwrap();
            assert!(
                answer.status == 200 || (answer.status == 503 && answer.header("retry-after").is_some()),
                "{answer:?}"
            );
        }
        until("a chat that is answered", || {
            server.connect().post("/api/chat", r#"{"message":"hi"}"#).unwrap().status == 200
        });
    }
}

#[test]
fn model_is_read_behind_walls() {
    let (server, _turn) = start();
    let engine = server.children("chatcorn engine")[0];
    let status = std::fs::read_to_string(format!("/proc/{engine}/status")).unwrap();
    assert!(["Seccomp:\t2", "NoNewPrivs:\t1"].iter().all(|line| status.contains(line)), "{status}");
    assert!(!server.text().contains("not confined"), "{}", server.text());
    let sooner = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_ne!(sooner(engine), sooner(server.pid()));
}

#[test]
fn model_streams_eight_at_once() {
    let (server, _turn) = start();
    let mut connections: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(post("/api/chat", r#"{"message":"Count to ten.","stream":true}"#)).unwrap();
    }
    let began = std::time::Instant::now();
    for connection in &mut connections {
        let answer = connection.answer().unwrap();
        assert!(answer.body.contains("event: done"), "{answer:?}");
    }
    assert!(began.elapsed() < LIMIT);
}
