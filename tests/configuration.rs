//! What an operator writes is checked before anything runs.

use crate::support::{Server, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_names_every_problem_at_once_with_its_place() {
    let files = [("chatcorn.toml", "workers = 0\n\nwokers = 3\n"), (".env", "TIMEOUT=soon\n")];
    let variables = [("CHAT_UPSTREAM", "http://127.0.0.1:9"), ("CORS_ORIGINS", "https://a.example,https://b.example/")];
    let output = run(&["check", "--bind", "nowhere"], &variables, &files);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{told}");
    for says in [
        "chatcorn.toml:1: workers",
        "chatcorn.toml:3: unknown setting",
        ".env:1: timeout",
        "host:port",
        "\"https://b.example/\" is no origin",
    ] {
        assert!(told.contains(says), "{says:?} is not in:\n{told}");
    }
}

#[test]
fn a_flag_wins_over_the_environment_over_the_files() {
    let files =
        [("chatcorn.toml", "workers = 5\nthreads = 3\nbacklog = 7\n"), (".env", "THREADS=4\nWEB_CONCURRENCY=6\n")];
    let output = run(&["config", "--workers", "8"], &[("THREADS", "9"), ("HF_TOKEN", "hf_secret")], &files);
    let table = text(&output.stdout);
    let row = |key: &str| table.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap().to_owned();
    assert!(row("workers").contains('8') && row("workers").contains("flag --workers"));
    assert!(row("threads").contains('9') && row("threads").contains("environment THREADS"));
    assert!(row("backlog").contains('7') && row("backlog").contains("chatcorn.toml:3"));
    assert!(row("hf_token").contains("[REDACTED]") && !table.contains("hf_secret"));
}

#[test]
fn a_taken_port_exits_69_and_no_model_exits_78() {
    let server = Server::start(&[]);
    let taken = [("BIND", server.address.as_str()), ("CHAT_UPSTREAM", "http://127.0.0.1:9")];
    let output = run(&[], &taken, &[]);
    assert_eq!(output.status.code(), Some(69));
    assert!(text(&output.stderr).contains("--bind"));
    let output = run(&[], &[], &[]);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("CHAT_UPSTREAM"));
}

#[test]
fn healthcheck_tells_a_living_server_from_none() {
    let server = Server::start(&[]);
    assert_eq!(run(&["healthcheck"], &[("BIND", &server.address)], &[]).status.code(), Some(0));
    assert_eq!(run(&["healthcheck"], &[("BIND", "127.0.0.1:9")], &[]).status.code(), Some(1));
}

#[test]
fn help_and_a_wrong_flag() {
    let help = text(&run(&["--help"], &[], &[]).stdout);
    assert!(help.contains("--graceful-timeout") && help.contains("GRACEFUL_TIMEOUT") && help.contains("HUP reload"));
    let wrong = run(&["--wokers", "3"], &[], &[]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("--workers"));
}
