//! An operator before a deployment, and after it: `chatcorn audit`.

use crate::support::{Server, Upstream, Way, run};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

const QUIET: [(&str, &str); 3] =
    [("CHAT_UPSTREAM", "http://127.0.0.1:9/v1"), ("CHATCORN_USER", "nobody"), ("LOG_DIR", "/nonexistent/logs")];

/// Runs `audit --json` and gives the exit code and the findings.
fn audit(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, Value) {
    let output = run(&[&["audit", "--json"], arguments].concat(), &[&QUIET, variables].concat(), &[]);
    (output.status.code(), findings(&output))
}

fn findings(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(report["ok"].as_bool(), Some(output.status.success()), "{report}");
    report["findings"].clone()
}

fn state<'a>(findings: &'a Value, item: &str) -> &'a str {
    let found = findings.as_array().unwrap().iter().find(|finding| finding["item"] == item);
    found.unwrap_or_else(|| panic!("no {item} in {findings}"))["state"].as_str().unwrap()
}

/// What a running server's operator would say of its own files.
fn beside(server: &Server) -> [(&'static str, String); 2] {
    [("LOG_DIR", server.home.join("logs").display().to_string()), ("CHATCORN_USER", nix::unistd::geteuid().to_string())]
}

fn audit_beside(server: &Server, arguments: &[&str]) -> Value {
    let own = beside(server);
    let url = format!("http://{}", server.address);
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    audit(&[&[url.as_str()], arguments].concat(), &own).1
}

#[test]
fn a_good_configuration_is_ok_in_every_line() {
    let (code, findings) = audit(&["--bind", "127.0.0.1:7860"], &[]);
    assert_eq!(code, Some(0), "{findings}");
    let all = findings.as_array().unwrap();
    assert!(all.len() >= 10 && all.iter().all(|finding| finding["state"] == "ok"), "{findings}");
    let output = run(&["audit", "--bind", "127.0.0.1:7860"], &QUIET, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.lines().all(|line| line.starts_with("ok ")), "{text}");
}

#[test]
fn each_setting_that_is_wrong_is_a_failure_and_says_how_to_mend_it() {
    for (item, variable, value) in [
        ("HF_TOKEN", "CHAT_UPSTREAM", "huggingface"),
        ("OMP_NUM_THREADS", "OMP_NUM_THREADS", "99"),
        ("MKL_NUM_THREADS", "MKL_NUM_THREADS", "invalid"),
        ("rate limits", "RATE_LIMIT_ENABLED", "false"),
        ("rate limits", "RATE_LIMIT_DRY_RUN", "true"),
        ("user", "CHATCORN_USER", "root"),
        ("TLS", "FORWARDED_ALLOW_IPS", "*"),
        ("TLS", "FORWARDED_ALLOW_IPS", "10.0.0.0/8,0.0.0.0/0"),
        ("redaction", "LOG_REDACT", "("),
        ("versions", "MODEL", "/dev/null"),
        ("LOG_DIR", "LOG_DIR", "/dev/null"),
        ("configuration", "CHATCORN_CONFIG", "/nonexistent.toml"),
    ] {
        let no_upstream = [("CHAT_UPSTREAM", ""), (variable, value)];
        let variables = if item == "versions" { &no_upstream[..] } else { &no_upstream[1..] };
        let (code, findings) = audit(&["--bind", "127.0.0.1:7860"], variables);
        assert_eq!((code, state(&findings, item)), (Some(1), "failure"), "{variable}={value}: {findings}");
        let all = findings.as_array().unwrap();
        let failures: Vec<_> = all.iter().filter(|finding| finding["state"] == "failure").collect();
        assert!(
            failures.len() == 1 && failures[0]["mend"].as_str().unwrap().len() > 5,
            "{variable}={value}: {failures:?}"
        );
    }
    let (code, findings) = audit(&["--bind", "0.0.0.0:7860"], &[("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwxyz01234567")]);
    assert_eq!((code, state(&findings, "TLS"), state(&findings, "HF_TOKEN")), (Some(0), "warning", "warning"));
    assert!(!findings.to_string().contains("hf_abc"));
}

#[test]
fn logs_that_others_can_read_are_a_failure() {
    let server = Server::start(&[]);
    let logs = server.home.join("logs");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let findings = audit_beside(&server, &[]);
    assert_eq!((state(&findings, "LOG_DIR"), state(&findings, "log files")), ("ok", "ok"), "{findings}");
    mode(&logs, 0o755);
    mode(&logs.join("app.log"), 0o644);
    let findings = audit_beside(&server, &[]);
    assert_eq!((state(&findings, "LOG_DIR"), state(&findings, "log files")), ("failure", "failure"), "{findings}");
    assert!(findings.to_string().contains("chmod 0700"));
}

#[test]
fn a_running_server_passes_and_the_secrets_stay_out_of_its_log() {
    let upstream = Upstream::start(Way::Instant);
    let settings = [("CHAT_UPSTREAM", upstream.url.as_str())];
    let server = Server::start_with(&settings, &[]);
    let findings = audit_beside(&server, &["--try-limit", "--bind", "127.0.0.1:1"]);
    for item in ["server", "security headers", "limits at work", "secrets in the log", "LOG_DIR", "log files"] {
        assert_eq!(state(&findings, item), "ok", "{findings}");
    }
    assert!(findings.to_string().contains("request 10 was refused"), "{findings}");
    let unlimited = Server::start(&[("CHAT_UPSTREAM", &upstream.url)]);
    for arguments in [&[][..], &["--try-limit"]] {
        assert_eq!(state(&audit_beside(&unlimited, arguments), "limits at work"), "failure");
    }
    let elsewhere = audit(&[&format!("http://{}", unlimited.address)], &[]).1;
    assert_eq!(state(&elsewhere, "secrets in the log"), "warning");
}

#[test]
fn a_server_that_is_another_or_none_or_writes_secrets_down_is_a_failure() {
    let (code, findings) = audit(&["http://127.0.0.1:9"], &[]);
    assert_eq!((code, state(&findings, "server")), (Some(1), "failure"));
    let logs = std::env::temp_dir().join(format!("chatcorn-audit-{}", std::process::id()));
    std::fs::create_dir_all(&logs).unwrap();
    let url = careless(&logs);
    let (code, findings) = audit(&[&url], &[("LOG_DIR", logs.to_str().unwrap())]);
    std::fs::remove_dir_all(&logs).unwrap();
    assert_eq!(code, Some(1));
    for item in ["server", "security headers", "limits at work", "secrets in the log"] {
        assert_eq!(state(&findings, item), "failure", "{findings}");
    }
}

/// A server without any header, which logs what it gets.
fn careless(logs: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let log = logs.join("app.log");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let mut file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
            file.write_all(&bytes[..count]).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        }
    });
    url
}
