//! An operator's view who has an engine of his own and wants it kept.

use crate::support::{Server, lives, run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::net::TcpListener;

const ASKED: &str = r#"{"messages":[{"role":"user","content":"hello"}]}"#;
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/engine.py");

/// The URL of a port that is free, and the command of an engine there.
fn place() -> (String, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    (format!("http://127.0.0.1:{port}/v1"), format!("python3 '{SCRIPT}' {port}"))
}

fn started(files: &[(&str, &str)]) -> Server {
    let (url, command) = place();
    let variables =
        [("RATE_LIMIT_ENABLED", "false"), ("CHAT_UPSTREAM", url.as_str()), ("HF_TOKEN", "hf_abcdefghijklmnopqrstuv")];
    match files {
        [] => Server::start_with(&[&variables[..], &[("ENGINE_COMMAND", &command)]].concat(), &[]),
        files => Server::start_with(&variables, files),
    }
}

/// What the engine says of itself, as soon as it answers.
fn said(server: &Server) -> Value {
    let mut said = Value::Null;
    until("an engine that answers", || {
        let answer = server.connect().post("/v1/chat/completions", ASKED).unwrap();
        // A request that is under way when the engine dies is a 502.
        let away = answer.status == 503 && answer.header("retry-after").is_some();
        assert!(away || matches!(answer.status, 200 | 502), "{answer:?}");
        if answer.status == 200 {
            said = serde_json::from_str(answer.json()["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
        }
        answer.status == 200
    });
    said
}

fn pid(said: &Value, name: &str) -> i32 {
    said[name].as_i64().unwrap() as i32
}

#[test]
fn another_engine_is_waited_for_and_what_it_prints_is_redacted() {
    let server = started(&[]);
    let health = server.connect().get("/api/health").unwrap().json();
    assert!(health["status"] == "initializing" || health["status"] == "healthy", "{health}");
    let said = said(&server);
    assert_eq!((pid(&said, "group"), &said["token"]), (pid(&said, "pid"), &Value::Null), "{said}");
    assert_eq!(server.connect().get("/api/health").unwrap().json()["status"], "healthy");
    assert_eq!(server.connect().post("/api/chat", r#"{"message":"hi"}"#).unwrap().status, 200);
    assert_eq!(server.status()["engine"]["state"], "ready", "{}", server.status());
    // It may have printed before the workers served.
    until("what it printed", || server.text().contains("loads with"));
    let text = server.text();
    let line = text.lines().find(|line| line.contains("loads with")).unwrap();
    assert!(!line.contains("sk-live") && line.contains("[REDACTED]"), "{line}");
}

#[test]
fn another_engine_that_dies_is_replaced_with_all_that_it_started() {
    let server = started(&[]);
    let first = said(&server);
    for way in ["killed", "dies by itself", "its keeper is killed"] {
        let before = said(&server);
        match way {
            "killed" => kill(Pid::from_raw(pid(&before, "pid")), Signal::SIGKILL).unwrap(),
            "dies by itself" => {
                let _ = server.connect().post("/v1/chat/completions", &ASKED.replace("hello", "die"));
            }
            _ => kill(Pid::from_raw(server.children("chatcorn engine")[0]), Signal::SIGKILL).unwrap(),
        }
        until("the end of the engine", || !lives(pid(&before, "pid")));
        assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
        let after = said(&server);
        assert_ne!(before["pid"], after["pid"], "{way}");
        until("the end of its helper", || !lives(pid(&before, "helper")));
    }
    assert!(server.text().contains("its last line: out of memory") && !lives(pid(&first, "pid")));
}

#[test]
fn a_killed_master_takes_another_engine_with_all_that_it_started() {
    let mut server = started(&[]);
    let said = said(&server);
    server.signal(Signal::SIGKILL);
    server.wait();
    until("the end of the engine", || !lives(pid(&said, "pid")) && !lives(pid(&said, "helper")));
}

#[test]
fn another_engine_goes_on_over_reload_and_upgrade_and_ends_with_the_server() {
    let (url, command) = place();
    let file =
        |command: &str| format!("chat_upstream = {url:?}\nengine_command = {command:?}\nrate_limit_enabled = false\n");
    let mut server = Server::spawn(&[("CHAT_UPSTREAM", &url)], &[("chatcorn.toml", &file(&command))]).serving();
    let first = said(&server);
    assert!(server.order(&["reload"]).status.success());
    assert_eq!(said(&server), first, "a reload that changes nothing keeps it");
    let upgraded = server.order(&["upgrade"]);
    assert!(upgraded.status.success(), "{upgraded:?}");
    assert_eq!(said(&server), first, "an upgrade keeps it");
    std::fs::write(server.home.join("chatcorn.toml"), file(&format!("{command} again"))).unwrap();
    assert!(server.order(&["reload"]).status.success());
    until("the end of the old one", || !lives(pid(&first, "pid")) && !lives(pid(&first, "helper")));
    let second = said(&server);
    assert!(server.order(&["stop"]).status.success());
    assert!(server.wait().success());
    assert!(!lives(pid(&second, "pid")) && !lives(pid(&second, "helper")), "{}", server.text());
}

#[test]
fn a_command_that_cannot_be_kept_is_named_before_anything_starts() {
    let (url, command) = place();
    for (variables, says) in [
        (&[("ENGINE_COMMAND", command.as_str())][..], "needs CHAT_UPSTREAM"),
        (
            &[("CHAT_UPSTREAM", &url), ("ENGINE_COMMAND", "no-such-engine --x")],
            "there is no program \"no-such-engine\"",
        ),
        (&[("CHAT_UPSTREAM", &url), ("ENGINE_COMMAND", "sh -c 'x")], "has no end"),
    ] {
        let output = run(&["check"], variables, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(78) && said.contains(says), "{says}: {said}");
    }
}

#[test]
fn a_command_that_keeps_dying_is_started_ever_more_slowly_while_the_rest_serves() {
    let (url, _) = place();
    let server = Server::start(&[("CHAT_UPSTREAM", &url), ("ENGINE_COMMAND", "sh -c 'echo no GPU here; exit 5'")]);
    until("five tries", || server.text().matches("exit code 5").count() >= 5);
    // 0.1, 0.2, 0.4, 0.8 and 1.6 s apart: a sixth comes 1.5 s later at the earliest.
    assert!(server.text().matches("no GPU here").count() <= 24, "{}", server.text());
    let answer = server.connect().post("/v1/chat/completions", ASKED).unwrap();
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("not_ready")), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(server.connect().get("/api/health").unwrap().json()["orchestrator_ready"], false);
}
