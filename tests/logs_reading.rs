//! Somebody reads the log with `chatcorn logs`.

use crate::support::{Server, run, until};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn logs(server: &Server, arguments: &[&str]) -> String {
    let dir = server.home.join("logs");
    let variables = [("LOG_DIR", dir.to_str().unwrap())];
    let output = run(&[&["logs"], arguments].concat(), &variables, &[]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_log_is_read_by_level_time_and_request_across_its_backups() {
    let server = Server::start(&[]);
    let log = server.home.join("logs/app.log");
    until("the first lines", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("serving")));
    std::fs::rename(&log, server.home.join("logs/app.log.1")).unwrap();
    server.signal(nix::sys::signal::Signal::SIGUSR1);
    until("a new app.log", || log.exists());
    assert!(logs(&server, &[]).contains("serving"));
    assert!(!logs(&server, &["--level", "error"]).contains("serving"));
    assert!(logs(&server, &["--since", "1h"]).contains("serving"));
    assert_eq!(logs(&server, &["--since", "2999-01-01"]), "");
    assert_eq!(logs(&server, &["--request", "nobody"]), "");
    let coloured = logs(&server, &["--color", "always"]);
    assert!(coloured.contains("serving") && coloured.contains("\x1b[32mINFO"), "{coloured}");
    let refused = run(&["logs", "--since", "soon"], &[], &[]);
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("2026-01-02"));
}

#[test]
fn a_request_is_found_in_the_access_file_and_followed_over_a_rotation() {
    let access = std::env::temp_dir().join(format!("chatcorn-access-{}.log", std::process::id()));
    let path = access.to_str().unwrap();
    let server = Server::start(&[("ACCESS_LOGFILE", path)]);
    let id = server.connect().get("/api/health").unwrap().header("x-request-id").unwrap().to_owned();
    let dir = server.home.join("logs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatcorn"));
    command.args(["logs", "-f", "--access-logfile", path]).env_clear().env("LOG_DIR", &dir);
    let mut follower = command.current_dir(&server.home).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(&id)));
    std::fs::rename(&access, access.with_extension("log.1")).unwrap();
    server.signal(nix::sys::signal::Signal::SIGUSR1);
    until("a new access file", || access.exists());
    let id = server.connect().get("/api/health").unwrap().header("x-request-id").unwrap().to_owned();
    assert!(lines.any(|line| line.contains(&id)));
    follower.kill().unwrap();
    follower.wait().unwrap();
    let found = logs(&server, &["--request", &id, "--access-logfile", path]);
    assert_eq!(found.lines().count(), 1, "{found}");
    std::fs::remove_file(&access).unwrap();
    std::fs::remove_file(access.with_extension("log.1")).unwrap();
}
