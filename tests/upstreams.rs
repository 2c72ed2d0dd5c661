//! An operator's view who has more than one model server, or one behind TLS.

use crate::support::{LIMIT, Server, Upstream, Way, post};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

const CHAT: &str = r#"{"message":"hello"}"#;
const ASKED: &str = r#"{"model":"any","messages":[{"role":"user","content":"hello"}]}"#;
const STREAMED: &str = r#"{"model":"any","stream":true,"messages":[{"role":"user","content":"hello"}]}"#;
const PATIENCE: (&str, &str) = ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "0.3");

/// One thread in one worker: what it learned of its upstreams is known to the next request.
const ALONE: [(&str, &str); 2] = [("WEB_CONCURRENCY", "1"), ("THREADS", "1")];

#[test]
fn the_next_upstream_answers_when_the_first_does_not() {
    for way in [Way::Fails, Way::Junk, Way::Noise, Way::Busy, Way::Silent] {
        let (first, second) = (Upstream::start(way), Upstream::start(Way::Instant));
        let both = format!("{},{}", first.url, second.url);
        let server = Server::start(&[&ALONE[..], &[PATIENCE, ("CHAT_UPSTREAM", &both)]].concat());
        let mut connection = server.connect();
        let answer = connection.post("/api/chat", CHAT).unwrap();
        assert_eq!(
            (answer.status, answer.json()["message"].as_str()),
            (200, Some("one two three")),
            "{way:?} {answer:?}"
        );
        let answer = connection.post("/v1/chat/completions", STREAMED).unwrap();
        assert!(answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"), "{way:?} {answer:?}");
        assert!(!server.text().contains("hunter2"));
    }
}

#[test]
fn an_upstream_that_failed_rests_while_another_answers() {
    let (first, second) = (Upstream::start(Way::Fails), Upstream::start(Way::Instant));
    let both = format!("{},{}", first.url, second.url);
    let server = Server::start(&[&ALONE[..], &[("CHAT_UPSTREAM", &both)]].concat());
    let mut connection = server.connect();
    let begun = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(connection.post("/v1/chat/completions", ASKED).unwrap().status, 200);
    }
    let most = 2 + begun.elapsed().as_millis() as usize / 500;
    let asked = first.requests.try_iter().count();
    assert!((1..=most).contains(&asked), "the one that fails was asked {asked} times in {:?}", begun.elapsed());
    assert_eq!(second.requests.try_iter().count(), 50);
}

#[test]
fn a_stream_that_has_begun_is_nobody_elses() {
    let (first, second) = (Upstream::start(Way::Breaks), Upstream::start(Way::Instant));
    let both = format!("{},{}", first.url, second.url);
    let server = Server::start(&[("CHAT_UPSTREAM", &both)]);
    let answer = server.connect().post("/v1/chat/completions", STREAMED).unwrap();
    assert!(answer.body.contains("one ") && answer.body.contains(r#""code":"upstream_error""#), "{answer:?}");
    assert!(!answer.body.contains("[DONE]") && second.requests.try_recv().is_err());
}

#[test]
fn a_v1_stream_that_goes_wrong_ends_in_an_error_chunk_and_nothing_of_it_is_told() {
    let limits = [("UPSTREAM_IDLE_TIMEOUT", "0.3"), ("TIMEOUT", "3")];
    for (way, code) in [
        (Way::Breaks, "upstream_error"),
        (Way::ErrorEvent, "upstream_error"),
        (Way::LongLine, "upstream_error"),
        (Way::Resets, "upstream_error"),
        (Way::Held, "timeout"),
    ] {
        let upstream = Upstream::start(way);
        let server = Server::start(&[&limits[..], &[("CHAT_UPSTREAM", &upstream.url)]].concat());
        let answer = server.connect().post("/v1/chat/completions", STREAMED).unwrap();
        let end = &answer.body[answer.body.len().saturating_sub(300)..];
        // A reset may overtake the piece before it; then there was no stream yet.
        assert!(answer.status == 200 || (way == Way::Resets && answer.status == 502), "{way:?} {end}");
        assert!(end.contains(&format!(r#""code":"{code}""#)) && !end.contains("[DONE]"), "{way:?} {end}");
        assert!(!answer.body.contains("hunter2") && !server.text().contains("hunter2"));
    }
}

#[test]
fn a_v1_stream_without_an_end_is_ended_and_its_upstream_left() {
    let upstream = Upstream::start(Way::Endless);
    let server = Server::start(&[("TIMEOUT", "2"), ("CHAT_UPSTREAM", &upstream.url)]);
    let answer = server.connect().post("/v1/chat/completions", STREAMED).unwrap();
    let end = answer.body.lines().rev().find(|line| !line.is_empty()).unwrap();
    // Whichever comes first: the time limit, or 64 MiB.
    assert!(end.contains(r#""code":"timeout""#) || end.contains(r#""code":"upstream_error""#), "{end}");
    upstream.left.recv_timeout(LIMIT).unwrap();
    // An answer in one piece has 4 MiB.
    let answer = server.connect().post("/v1/chat/completions", ASKED).unwrap();
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (502, Some("upstream_error")), "{answer:?}");
    upstream.left.recv_timeout(LIMIT).unwrap();
}

/// A server behind TLS that holds the certificate of a name; it ends with the test, and the certificate goes.
struct Sealed {
    child: Child,
    said: BufReader<ChildStdout>,
    port: u16,
    /// The certificate, for `SSL_CERT_FILE`.
    certificate: PathBuf,
}

impl Sealed {
    /// `None` where there is no openssl to make a certificate with.
    fn start(name: &str) -> Option<Sealed> {
        let certificate = std::env::temp_dir().join(format!("chatcorn-{name}-{}.pem", std::process::id()));
        let key = certificate.with_extension("key");
        let subject = ["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")];
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(subject)
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .stderr(Stdio::piped())
            .output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: no openssl to make a certificate with");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/https_upstream.py");
        let mut command = Command::new("python3");
        let mut child = command.arg(script).arg(&certificate).arg(&key).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        said.read_line(&mut port).unwrap();
        std::fs::remove_file(&key).unwrap();
        Some(Sealed { child, said, port: port.trim().parse().unwrap(), certificate })
    }

    /// What the next request said: `METHOD path, host, authorization`.
    fn heard(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.certificate);
    }
}

#[test]
fn an_upstream_by_https_is_trusted_by_its_certificate_alone() {
    let Some(mut sealed) = Sealed::start("localhost") else { return };
    let url = format!("https://localhost:{}/v1", sealed.port);
    let variables = [("CHAT_UPSTREAM", url.as_str()), ("CHAT_UPSTREAM_API_KEY", "sk-ours-1234567890")];
    let trusted = sealed.certificate.to_str().unwrap().to_owned();
    let server = Server::start(&[&variables[..], &[("SSL_CERT_FILE", trusted.as_str())]].concat());
    let answer = server.connect().post("/v1/chat/completions", ASKED).unwrap();
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "sealed", "{answer:?} {}", server.text());
    assert_eq!(server.connect().post("/api/chat", CHAT).unwrap().json()["message"], "sealed");
    let wanted = format!("POST /v1/chat/completions, localhost:{}, Bearer sk-ours-1234567890", sealed.port);
    assert_eq!(sealed.heard(), wanted);
    let wary = Server::start(&variables);
    let answer = wary.connect().post("/v1/chat/completions", ASKED).unwrap();
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (503, Some("not_ready")), "{answer:?}");
}

/// What stands for the way to the internet: the router's name leads to this machine, and its port to the fake one's.
const LEADS_HERE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **found) {
  int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
  return real(name && strcmp(name, "router.huggingface.co") == 0 ? "127.0.0.1" : name, port, hints, found);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
  struct sockaddr_in other;
  if (address->sa_family != AF_INET || length < sizeof other)
    return real(socket, address, length);
  memcpy(&other, address, sizeof other);
  if (other.sin_port == htons(443))
    other.sin_port = htons(PORT);
  return real(socket, (struct sockaddr *)&other, sizeof other);
}
"#;

#[test]
fn hugging_face_is_asked_by_its_name_with_a_token_that_nobody_else_sees() {
    const TOKEN: &str = "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";
    let Some(mut sealed) = Sealed::start("router.huggingface.co") else { return };
    let build = format!("cc -shared -fPIC -DPORT={} -o here.so here.c -ldl", sealed.port);
    let build = format!("{build} && LD_PRELOAD=./here.so exec \"$0\"");
    let trusted = sealed.certificate.to_str().unwrap().to_owned();
    let variables = [
        ("CHAT_UPSTREAM", "huggingface"),
        ("HF_TOKEN", TOKEN),
        ("CHAT_UPSTREAM_API_KEY", "sk-other-1234567890"),
        ("SSL_CERT_FILE", trusted.as_str()),
        ("LOG_LEVEL", "debug"),
        ("RATE_LIMIT_ENABLED", "false"),
    ];
    let server = Server::spawn_under(&["sh", "-c", &build], &variables, &[("here.c", LEADS_HERE)]).serving();
    let wanted = format!("POST /v1/chat/completions, router.huggingface.co, Bearer {TOKEN}");
    let mut answers = Vec::new();
    for (path, body) in [
        ("/v1/chat/completions", ASKED),
        ("/v1/chat/completions", STREAMED),
        ("/api/chat", CHAT),
        ("/api/chat", r#"{"message":"hello","stream":true}"#),
    ] {
        let answer = server.connect().post(path, body).unwrap();
        assert!(answer.status == 200 && answer.body.contains("sealed"), "{answer:?} {}", server.text());
        assert_eq!(sealed.heard(), wanted);
        answers.push(answer);
    }
    // It says the token again in a refusal, as a careless one may.
    let refused = r#"{"message":"refuse"}"#;
    let answer = server.connect().post("/api/chat", refused).unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (502, Some("upstream_error")), "{answer:?}");
    server.expect_that("why it failed", |event| event["message"] == "an upstream failed");
    answers.push(answer);
    let log = std::fs::read_to_string(server.home.join("logs/app.log")).unwrap();
    let shown = server.order_with(&["config"], &variables);
    let all = format!("{answers:?}\n{}\n{log}\n{}", server.text(), String::from_utf8(shown.stdout).unwrap());
    assert!(log.contains("serving") && all.contains("[REDACTED]") && !all.contains(&TOKEN[3..]), "{all}");
}

#[test]
fn a_connection_that_the_upstream_gave_up_costs_no_failure() {
    let upstream = Upstream::start(Way::OnceEach);
    let server = Server::start(&[&ALONE[..], &[("CHAT_UPSTREAM", &upstream.url)]].concat());
    let mut connection = server.connect();
    for _ in 0..20 {
        assert_eq!(connection.post("/v1/chat/completions", ASKED).unwrap().status, 200, "{}", server.text());
    }
    let _ = connection.send(post("/api/chat", CHAT));
    assert_eq!(connection.answer().unwrap().status, 200);
    assert!(upstream.heads.recv_timeout(LIMIT).is_ok());
}
