//! A security reviewer reads the logs.

use crate::support::{Server, Upstream, Way, until};
use std::os::unix::fs::PermissionsExt;

const SECRET: &str = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz0123456789";

#[test]
fn files_are_closed_to_others_and_lines_are_whole() {
    let server = Server::start(&[]);
    server.connect().get("/api/health").unwrap();
    let mode = |path: &str| std::fs::metadata(server.home.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("logs"), mode("logs/app.log"), mode("c.db")), (0o700, 0o600, 0o600));
    let line = server.expect_that("an access line", |event| event["target"] == "access");
    assert_eq!(
        (line["status"].as_u64(), line["method"].as_str(), line["path"].as_str()),
        (Some(200), Some("GET"), Some("/api/health"))
    );
    for line in server.text().lines() {
        let keys: Vec<&str> = line.split("\",\"").filter_map(|part| part.split("\":").next()).collect();
        let unique: std::collections::BTreeSet<&&str> = keys.iter().collect();
        assert_eq!(keys.len(), unique.len(), "a key is there twice: {line}");
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn a_planted_secret_is_nowhere() {
    let upstream = Upstream::start(Way::Fails);
    let variables = [("CHAT_UPSTREAM", upstream.url.as_str()), ("HF_TOKEN", SECRET), ("CHAT_UPSTREAM_API_KEY", SECRET)];
    let server = Server::start(&variables);
    let body = format!(r#"{{"message":"my token is {SECRET}"}}"#);
    server.connect().post("/api/chat", &body).unwrap();
    let mut connection = server.connect();
    let head = format!(
        "GET /x/{SECRET}?api_key={SECRET} HTTP/1.1\r\nHost: t\r\nUser-Agent: {SECRET}\r\nAuthorization: Bearer {SECRET}\r\n\r\n"
    );
    connection.send(head).unwrap();
    connection.answer().unwrap();
    server.expect_that("the access line", |event| event["path"].as_str().is_some_and(|path| path.starts_with("/x/")));
    let told = std::fs::read_to_string(server.home.join("logs/app.log")).unwrap() + &server.text();
    for start in 3..SECRET.len() - 8 {
        assert!(!told.contains(&SECRET[start..start + 8]), "{}", &SECRET[start..start + 8]);
    }
    let mut everyone = server.children("worker");
    everyone.extend(server.children("chatcorn log"));
    everyone.push(server.pid());
    for pid in everyone {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let has = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!has(&environment) && !has(&command), "process {pid}");
    }
}

#[test]
fn an_invalid_thread_count_is_mended_and_told() {
    let server = Server::start(&[("OMP_NUM_THREADS", "invalid")]);
    let told =
        || server.text().lines().any(|line| line.contains("invalid_setting") && line.contains("OMP_NUM_THREADS"));
    until("the warning", told);
}

#[test]
fn usr1_reopens_the_files() {
    let server = Server::start(&[]);
    let log = server.home.join("logs/app.log");
    std::fs::rename(&log, server.home.join("logs/app.log.old")).unwrap();
    server.signal(nix::sys::signal::Signal::SIGUSR1);
    until("a new app.log", || log.exists());
}
