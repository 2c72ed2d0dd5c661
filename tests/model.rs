//! With the real model, which `bin/test` names in CHATCORN_TEST_MODEL.

use crate::clients::{LANGCHAIN, LITELLM, OPENAI, client, llm};
use crate::support::{Connection, LIMIT, Server, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicUsize, Ordering};
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

#[test]
fn model_answers_programs_that_others_have_written() {
    let (server, _turn) = start();
    let packages = [OPENAI, LANGCHAIN, LITELLM];
    if !packages.iter().all(|package| client(package, &server, "real")) {
        return;
    }
    for options in [&["--no-stream"][..], &[]] {
        let Some((worked, said)) = llm(&server, options) else { return };
        assert!(worked && !said.is_empty(), "{options:?}: {said}");
    }
    // One Chatcorn is the upstream of another.
    let outer = Server::start(&[("CHAT_UPSTREAM", &format!("http://{}/v1", server.address))]);
    assert!(client(&OPENAI, &outer, "real"));
    let answer = outer.connect().post("/api/chat", r#"{"message":"hi","stream":true}"#).unwrap();
    let tokens = answer.body.split("\"completion_tokens\":").nth(1).and_then(|rest| rest.split(',').next());
    assert!(tokens.is_some_and(|tokens| tokens.parse::<u64>().unwrap() > 0), "the engine's own count: {answer:?}");
}

#[test]
fn model_is_not_kept_from_one_client_by_another_with_many_chats() {
    const MANY: usize = 24;
    let (server, _turn) = start();
    let body = |text: &str| {
        let messages = [serde_json::json!({"role": "user", "content": text})];
        serde_json::json!({"messages": messages, "max_tokens": 12, "temperature": 0}).to_string()
    };
    let ended = AtomicUsize::new(0);
    let ask = |number: usize| {
        let text = format!("Tell story {number}.");
        let answer = Connection::open(&server.address).post("/v1/chat/completions", &body(&text)).unwrap();
        ended.fetch_add(1, Ordering::SeqCst);
        assert!(answer.status == 200 || answer.header("retry-after").is_some(), "{answer:?}");
        answer.status == 200
    };
    let ask = &ask;
    let (before, answered) = std::thread::scope(|scope| {
        let greedy: Vec<_> = (0..MANY).map(|number| scope.spawn(move || ask(number))).collect();
        until("all slots taken and the rest waiting", || {
            let engine = server.status()["engine"].clone();
            engine["queued"].as_u64().is_some_and(|queued| queued >= 12)
        });
        let others = post("/v1/chat/completions", &body("hi"));
        let before = ended.load(Ordering::SeqCst);
        let mut connection = server.connect();
        connection.send(others.replace("\r\nHost", "\r\nX-Forwarded-For: 203.0.113.9\r\nHost")).unwrap();
        let answer = connection.answer().unwrap();
        let after = ended.load(Ordering::SeqCst);
        assert_eq!(answer.status, 200, "{answer:?}");
        (after - before, greedy.into_iter().map(|asking| asking.join().unwrap()).filter(|answered| *answered).count())
    });
    // It waits for the first of four slots that is free, and then for its own answer; by its place in a line it
    // would have come last.
    assert!(before <= 10, "{before} of the other's {answered} chats were answered first");
    assert!(answered >= 16, "{answered} of {MANY} were answered");
}
