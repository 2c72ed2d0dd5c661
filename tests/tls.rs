//! TLS and HTTP/2, asked by curl and openssl; the PROXY protocol; HTTP/2's floods, byte by byte.

use crate::heads::has_headers;
use crate::support::{Connection, Server, until};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A self-signed certificate for `localhost`; `name` is its common name.
fn certificate(directory: &Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::set_permissions(directory.join("key.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// A server with TLS: its certificate is there before it starts.
fn start(variables: &[(&str, &str)]) -> Server {
    let scratch =
        std::env::temp_dir().join(format!("chatcorn-tls-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&scratch).unwrap();
    certificate(&scratch, "first");
    let read = |name: &str| std::fs::read_to_string(scratch.join(name)).unwrap();
    let (cert, key) = (read("cert.pem"), read("key.pem"));
    std::fs::remove_dir_all(&scratch).unwrap();
    let tls = [("CERTFILE", "cert.pem"), ("KEYFILE", "key.pem"), ("RATE_LIMIT_ENABLED", "false")];
    Server::start_with(&[&tls, variables].concat(), &[("cert.pem", &cert), ("key.pem", &key)])
}

fn curl(server: &Server, arguments: &[&str], path: &str) -> String {
    let scheme = if server.home.join("cert.pem").exists() { "https" } else { "http" };
    let url = format!("{scheme}://{}{path}", server.address);
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "20"]).args(arguments).arg(url).current_dir(&server.home);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn s_client(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &server.address, "-servername", "localhost"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn curl_speaks_http_2_and_http_1_over_tls() {
    let server = start(&[]);
    let trusted = ["--cacert", "cert.pem"];
    for (flag, version) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK")] {
        let answer = curl(&server, &[&trusted[..], &[flag]].concat(), "/api/health");
        assert!(answer.starts_with(version), "{answer}");
        for header in ["x-content-type-options: nosniff", "strict-transport-security: ", "x-request-id: "] {
            assert!(answer.contains(header), "{header} is not in {answer}");
        }
        let json = ["-H", "Content-Type: application/json", "-d", "{}"];
        let posted = curl(&server, &[&trusted[..], &[flag], &json].concat(), "/api/chat");
        assert!(posted.contains(" 400") && posted.contains("message is required"), "{posted}");
        let head = curl(&server, &[&trusted[..], &[flag, "-I"]].concat(), "/healthz");
        assert!(head.contains(" 200") && head.trim_end().ends_with(|c: char| c.is_ascii()), "{head}");
        let large = format!("X: {}", "v".repeat(9000));
        let refused = curl(&server, &[&trusted[..], &[flag, "-H", &large]].concat(), "/healthz");
        assert!(refused.contains(" 431") && refused.contains("x-frame-options: DENY"), "{refused}");
        let many: Vec<String> = (0..101).map(|number| format!("X-{number}: y")).collect();
        let many: Vec<&str> = many.iter().flat_map(|field| ["-H", field.as_str()]).collect();
        assert!(curl(&server, &[&trusted[..], &[flag], &many].concat(), "/healthz").contains(" 431"));
    }
    let protocol = |event: &serde_json::Value| event.to_string().contains("HTTP/2.0");
    server.expect_that("the access line of HTTP/2", protocol);
}

#[test]
fn the_strict_filter_stands_behind_tls() {
    let server = start(&[]);
    let bad = b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let output = s_client(&server, &["-quiet", "-alpn", "http/1.1"], bad);
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("x-frame-options: DENY"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[test]
fn only_tls_1_2_and_1_3_are_spoken() {
    let server = start(&[]);
    let said = |arguments: &[&str]| {
        let output = s_client(&server, arguments, b"Q");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (flag, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (good, text) = said(&[flag, "-alpn", "h2,http/1.1"]);
        assert!(good && text.contains(name) && text.contains("ALPN protocol: h2"), "{flag}: {text}");
    }
    for flag in ["-tls1", "-tls1_1"] {
        assert!(!said(&[flag, "-cipher", "ALL:@SECLEVEL=0"]).0, "{flag}");
    }
    let mut plain = server.connect();
    plain.send("GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert!(plain.answer().is_err(), "no HTTP is spoken without TLS");
}

#[test]
fn a_session_goes_on_at_whichever_worker_takes_the_next_connection() {
    let server = start(&[]);
    let kept = server.home.join("session");
    let kept = kept.to_str().unwrap();
    assert!(s_client(&server, &["-tls1_2", "-sess_out", kept], b"Q").status.success());
    for number in 0..12 {
        let output = s_client(&server, &["-tls1_2", "-sess_in", kept], b"Q");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Reused, TLSv1.2"), "{number}: {output:?}");
    }
}

#[test]
fn a_new_certificate_is_taken_over_and_a_bad_one_refuses_the_reload() {
    let server = start(&[("HEADER_TIMEOUT", "0.5")]);
    let subject = || {
        let output = s_client(&server, &[], b"Q");
        String::from_utf8_lossy(&output.stdout).lines().find(|line| line.starts_with("subject=")).unwrap().to_owned()
    };
    assert!(subject().contains("first"));
    certificate(&server.home, "second");
    server.signal(Signal::SIGHUP);
    server.expect("reloaded");
    until("the old workers have left", || (0..8).all(|_| subject().contains("second")));
    std::fs::write(server.home.join("cert.pem"), "nothing").unwrap();
    server.signal(Signal::SIGHUP);
    let refused = server.expect("reload refused: everything stays as it was");
    assert!(refused["reason"].as_str().unwrap().contains("cert.pem"), "{refused}");
    assert!(subject().contains("second"));
    let mut silent = TcpStream::connect(&server.address).unwrap();
    silent.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    assert_eq!(silent.read(&mut [0; 8]).unwrap_or(0), 0, "a handshake that does not begin is closed");
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `POST https t /api/chat` in HPACK's static table and literals.
const POST: &[u8] = b"\x83\x87\x44\x09/api/chat\x41\x01t\x0f\x10\x10application/json";

#[test]
fn http_2_in_clear_is_spoken_when_asked_for() {
    let off = Server::start(&[]);
    let mut connection = off.connect();
    connection.send(PREFACE).unwrap();
    let refused = connection.answer().unwrap();
    assert_eq!(refused.status, 505);
    has_headers(&refused);
    let on = Server::start(&[("HTTP2_CLEAR", "true")]);
    assert!(curl(&on, &["--http2-prior-knowledge"], "/healthz").starts_with("HTTP/2 200"));
    assert!(curl(&on, &["--http1.1"], "/healthz").starts_with("HTTP/1.1 200"));
    assert!(curl(&on, &["--http2"], "/healthz").starts_with("HTTP/1.1 200"), "no upgrade from HTTP/1.1");
}

#[test]
fn floods_of_http_2_end_their_connection_alone() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let settings = frame(4, 0, 0, &[]);
    let open = frame(1, 4, 1, POST);
    let endless: Vec<u8> =
        std::iter::once(frame(1, 0, 1, POST)).chain((0..100_000).map(|_| frame(9, 0, 1, &[0; 8]))).flatten().collect();
    let reset = |stream: u32| {
        let id = (2 * stream + 1).to_be_bytes();
        let mut pair = [frame(1, 5, 0, POST), frame(3, 0, 0, &[0, 0, 0, 8])];
        pair.iter_mut().for_each(|frame| frame[5..9].copy_from_slice(&id));
        pair.concat()
    };
    for (name, flood) in [
        ("rapid reset", (0..20_000).flat_map(reset).collect::<Vec<u8>>()),
        ("CONTINUATION", endless),
        ("empty DATA", [open.clone(), frame(0, 0, 1, &[]).repeat(200_000)].concat()),
        ("PING", frame(6, 0, 0, &[0; 8]).repeat(200_000)),
        ("SETTINGS", settings.repeat(200_000)),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(200_000)),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(200_000)),
    ] {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
        let mut reader = stream.try_clone().unwrap();
        let drained = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
        let sent = stream.write_all(&[PREFACE, &settings, &flood].concat());
        // Everything was taken only if the kernel's buffers held it; the end comes in any case.
        let _ = sent;
        let ended = drained.join().unwrap();
        assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{name}: still open");
        assert_eq!(server.connect().get("/healthz").unwrap().status, 200, "{name}");
    }
    assert!(!server.text().contains("panic"));
}

#[test]
fn a_slow_body_and_an_idle_connection_end_over_http_2_too() {
    let server = Server::start(&[("HTTP2_CLEAR", "true"), ("BODY_TIMEOUT", "0.5"), ("KEEP_ALIVE", "1")]);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(crate::support::LIMIT)).unwrap();
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[]), &frame(1, 4, 1, POST), &frame(0, 0, 1, b"{")].concat()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(String::from_utf8_lossy(&all).contains("request_timeout"));
}

#[test]
fn a_balancer_names_the_client_and_nobody_else_does() {
    let server = Server::start(&[("PROXY_PROTOCOL", "true"), ("FORWARDED_ALLOW_IPS", "127.0.0.1")]);
    let ask = |header: &[u8]| {
        let mut connection = server.connect();
        connection.send([header, b"GET /api/nothing HTTP/1.1\r\nHost: t\r\n\r\n"].concat()).unwrap();
        connection.answer().map(|answer| answer.status)
    };
    assert_eq!(ask(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n").unwrap(), 404);
    server.expect_that("the access line", |event| event.to_string().contains("192.0.2.7"));
    let second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x7f\0\0\x01\0\x01\0\x02";
    assert_eq!(ask(second).unwrap(), 404);
    server.expect_that("the access line", |event| event.to_string().contains("192.0.2.8"));
    assert!(ask(b"").is_err(), "a header is expected");
    assert!(ask(b"PROXY TCP4 1.2.3.4 nonsense 1 2\r\n").is_err());
    let wary = Server::start(&[("PROXY_PROTOCOL", "true"), ("FORWARDED_ALLOW_IPS", "10.0.0.0/8")]);
    let mut stranger = wary.connect();
    let _ = stranger.send("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n");
    assert!(stranger.answer().is_err(), "who is not allowed is not served");
    let without = Server::start(&[]);
    let mut plain: Connection = without.connect();
    plain.send("PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET /healthz HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    assert_eq!(plain.answer().unwrap().status, 400);
}

/// Runs a command beside the server, as its operator: with its settings.
fn operate(server: &Server, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatcorn"));
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("BIND", &server.address)
        .env("LOG_DIR", server.home.join("logs"));
    command.envs(variables.iter().copied()).args(arguments).current_dir(&server.home).stdin(Stdio::null());
    command.output().unwrap()
}

const OWN: [(&str, &str); 2] = [("CERTFILE", "cert.pem"), ("KEYFILE", "key.pem")];

#[test]
fn healthcheck_asks_its_own_server_by_tls_whatever_name_its_certificate_has() {
    let server = start(&[]);
    assert!(server.text().contains("\"address\":\"https://127.0.0.1:"), "{}", server.text());
    let healthy = operate(&server, &["healthcheck"], &OWN);
    assert!(healthy.status.success() && healthy.stderr.is_empty(), "{healthy:?}");
    assert_eq!(operate(&server, &["healthcheck"], &[]).status.code(), Some(1), "no HTTP is spoken without TLS");
    // A renewed file that was not taken over yet: the server lives, and somebody should reload it.
    certificate(&server.home, "second");
    let renewed = operate(&server, &["healthcheck"], &OWN);
    assert!(renewed.status.success(), "{renewed:?}");
    assert!(String::from_utf8_lossy(&renewed.stderr).contains("another certificate"), "{renewed:?}");
    // Elsewhere a certificate has to be good.
    let url = format!("https://{}", server.address);
    let strange = operate(&server, &["healthcheck", &url], &[]);
    assert_eq!(strange.status.code(), Some(1), "{strange:?}");
    assert!(String::from_utf8_lossy(&strange.stderr).contains("certificate"), "{strange:?}");
}

#[test]
fn healthcheck_finds_a_server_on_a_unix_socket_and_behind_a_balancers_protocol() {
    let scratch = std::env::temp_dir().join(format!("chatcorn-health-{}.sock", std::process::id()));
    let bind = format!("unix:{}", scratch.display());
    for tls in [false, true] {
        let server = if tls { start(&[("BIND", &bind)]) } else { Server::start(&[("BIND", &bind)]) };
        assert_eq!(server.address, bind);
        let healthy = operate(&server, &["healthcheck"], if tls { &OWN } else { &[] });
        assert!(healthy.status.success(), "{tls}: {healthy:?}");
        drop(server);
    }
    let _ = std::fs::remove_file(scratch);
    let server = Server::start(&[("PROXY_PROTOCOL", "true")]);
    assert!(operate(&server, &["healthcheck"], &[("PROXY_PROTOCOL", "true")]).status.success());
    assert!(!operate(&server, &["healthcheck"], &[]).status.success());
}

#[test]
fn audit_and_chat_reach_a_server_by_https() {
    let upstream = crate::support::Upstream::start(crate::support::Way::Load);
    let server = start(&[("CHAT_UPSTREAM", &upstream.url)]);
    let url = format!("https://{}", server.address);
    let report = |variables: &[(&str, &str)]| -> serde_json::Value {
        let output = operate(&server, &["audit", "--json", &url], variables);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let state = |report: &serde_json::Value, item: &str| {
        let found = report["findings"].as_array().unwrap().iter().find(|finding| finding["item"] == item);
        found.unwrap_or_else(|| panic!("no {item} in {report}")).to_string()
    };
    // Of one report: a second request that is refused within seconds would only be counted in the log.
    let trusted = report(&[("SSL_CERT_FILE", "cert.pem"), ("CHAT_UPSTREAM", "http://127.0.0.1:9/v1")]);
    for item in ["server", "security headers", "secrets in the log"] {
        assert!(state(&trusted, item).contains("\"ok\""), "{}", state(&trusted, item));
    }
    let unknown = state(&report(&[("CHAT_UPSTREAM", "http://127.0.0.1:9/v1")]), "server");
    assert!(unknown.contains("failure") && unknown.contains("certificate"), "{unknown}");
    let talk = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatcorn"));
        command.env_clear().env("BIND", &server.address).envs(variables.iter().copied()).arg("chat");
        let child =
            command.current_dir(&server.home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        // One that is refused at once may be gone before it has read.
        let _ = child.stdin.take().unwrap().write_all(b"hello\n");
        child.wait_with_output().unwrap()
    };
    let said = talk(&OWN);
    assert!(said.status.success() && !said.stdout.is_empty(), "{said:?}");
    certificate(&server.home, "second");
    assert!(!talk(&OWN).status.success(), "a key and a message go to the very server that is configured");
}
