//! Programs that others have written, against the fake upstream and against another Chatcorn.

use crate::support::{Server, Upstream, Way, python_with};
use std::path::Path;
use std::process::{Command, Stdio};

/// A package of Python's: its module, its name, our script that uses it.
pub struct Package {
    module: &'static str,
    name: &'static str,
    script: &'static str,
}

/// OpenAI's own.
pub const OPENAI: Package = Package { module: "openai", name: "openai", script: "openai_client.py" };
/// LangChain's chat model for OpenAI's API.
pub const LANGCHAIN: Package =
    Package { module: "langchain_openai", name: "langchain-openai", script: "langchain_client.py" };
/// One interface to many APIs.
pub const LITELLM: Package = Package { module: "litellm", name: "litellm", script: "litellm_client.py" };

/// Runs one part of a package's script against a server; false when there is no such package.
pub fn client(package: &Package, server: &Server, part: &str) -> bool {
    let Some(python) = python_with(package.module, &[package.name]) else { return false };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(package.script);
    let url = format!("http://{}/v1", server.address);
    let mut command = Command::new(python);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").arg(script).args([&url, part]).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {part}: {said}\n{}", package.name, server.text());
    true
}

fn all_parts(package: &Package) {
    for (way, part) in [
        (Way::Instant, "good"),
        (Way::Refuses, "refused"),
        (Way::Breaks, "broken"),
        (Way::ErrorEvent, "broken"),
        (Way::Busy, "busy"),
    ] {
        let upstream = Upstream::start(way);
        let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
        client(package, &server, part);
        assert!(!server.text().contains("hunter2"), "{}", server.text());
    }
}

#[test]
fn langchains_chat_model_asks_streams_and_raises() {
    all_parts(&LANGCHAIN);
}

#[test]
fn the_litellm_package_asks_streams_and_raises() {
    all_parts(&LITELLM);
}

/// What the `llm` command prints, and whether it is content.
pub fn llm(server: &Server, options: &[&str]) -> Option<(bool, String)> {
    let python = python_with("llm", &["llm"])?;
    let models = format!(
        "- model_id: ours\n  model_name: any\n  api_base: \"http://{}/v1\"\n  api_key_name: ours\n",
        server.address
    );
    std::fs::write(server.home.join("extra-openai-models.yaml"), models).unwrap();
    let mut command = Command::new(python);
    command.env("LLM_USER_PATH", &server.home).args(["-m", "llm", "-m", "ours", "--key", "sk-nobody-0000"]);
    let output = command.args(options).arg("hello").stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).trim().to_owned()))
}

#[test]
fn the_llm_command_asks_streams_and_says_what_went_wrong() {
    for (way, good) in [(Way::Instant, true), (Way::Breaks, false), (Way::Refuses, false)] {
        let upstream = Upstream::start(way);
        let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
        for options in [&["--no-stream"][..], &[]] {
            let Some((worked, said)) = llm(&server, options) else { return };
            match good {
                true => assert_eq!((worked, said.as_str()), (true, "one two three"), "{way:?} {options:?}"),
                // It asks its upstream for a stream or for one answer; the fake one breaks streams only.
                false => assert!(!worked && said.contains("model") && !said.contains("hunter2"), "{way:?} {said}"),
            }
        }
    }
}

#[test]
fn the_front_ends_of_the_flask_api_are_answered_as_before() {
    let upstream = Upstream::start(Way::Instant);
    let server = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let curl = |words: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "-H", "Origin: https://front.example"]).args(words);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let url = |path: &str| format!("http://{}{path}", server.address);
    let json = "Content-Type: application/json";
    assert_eq!(curl(&[&url("/")])["endpoints"]["chat"], "/api/chat");
    assert_eq!(curl(&[&url("/api/health")])["orchestrator_ready"], true);
    assert_eq!(curl(&["-X", "POST", &url("/api/initialize")])["success"], true);
    let asked = r#"{"message":"hello","session_id":"s1","user_id":"u1","history":[["a","b"]]}"#;
    let answer = curl(&["-H", json, "-d", asked, &url("/api/chat")]);
    assert_eq!((&answer["success"], answer["message"].as_str()), (&true.into(), Some("one two three")), "{answer}");
    assert_eq!(answer["history"], serde_json::json!([["a", "b"], ["hello", "one two three"]]));
    assert!(answer["performance"]["processing_time"].is_number() && answer["performance"]["tokens_used"] == 10);
    let set = curl(&["-H", json, "-d", r#"{"session_id":"s1","mode":"fresh"}"#, &url("/api/context/mode")]);
    assert_eq!(set["context_mode"], "fresh");
    assert_eq!(curl(&[&url("/api/context/mode?session_id=s1")])["context_mode"], "fresh");
    assert_eq!(curl(&["-H", json, "-d", r#"{"message":""}"#, &url("/api/chat")])["error"], "invalid_request");
}

#[test]
fn another_chatcorn_is_an_upstream_like_any_other() {
    let upstream = Upstream::start(Way::Instant);
    let inner = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let outer = Server::start(&[("CHAT_UPSTREAM", &format!("http://{}/v1", inner.address))]);
    client(&OPENAI, &outer, "good");
    let answer = outer.connect().post("/api/chat", r#"{"message":"hello","stream":true}"#).unwrap();
    assert!(answer.body.contains("event: done") && answer.body.contains(r#""tokens_used":10"#), "{answer:?}");
    let id = answer.header("x-request-id").unwrap();
    inner.expect_that("the same request's id", |event| event["request_id"] == id);
    let (again, busy) = (Upstream::start(Way::Busy), "Retry-After");
    let inner = Server::start(&[("CHAT_UPSTREAM", &again.url)]);
    let outer = Server::start(&[("CHAT_UPSTREAM", &format!("http://{}/v1", inner.address))]);
    client(&OPENAI, &outer, "busy");
    let answer = outer.connect().post("/api/chat", r#"{"message":"hello"}"#).unwrap();
    assert_eq!((answer.status, answer.header(&busy.to_lowercase())), (503, Some("7")), "{answer:?}");
}
