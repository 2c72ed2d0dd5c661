//! RFC 9113 and RFC 7541, frame by frame: each rule that a client may break, and what the server must do then.
//!
//! The frames are bytes of ours, so that nothing mends them on their way. A connection error is a GOAWAY with its code or
//! the end of the connection; a stream error is a RST_STREAM, or a connection error.

mod broken;
mod messages;
mod patience;
mod wire;

use crate::heads::has_headers;
use crate::support::{Answer, Server};
use std::process::Command;
use std::time::{Duration, Instant};
use wire::{Client, Expect, Said, frame};

/// One row: a name, the frames behind the preface and its SETTINGS, and what must come.
struct Case {
    name: &'static str,
    frames: Vec<u8>,
    expect: Expect,
}

fn case(name: &'static str, frames: impl AsRef<[u8]>, expect: Expect) -> Case {
    Case { name, frames: frames.as_ref().to_vec(), expect }
}

#[test]
fn every_rule_that_is_broken_is_answered_as_the_rfc_says() {
    let server = Server::start(&[("HTTP2_CLEAR", "true"), ("HEADER_TIMEOUT", "1"), ("KEEP_ALIVE", "1")]);
    let cases = [broken::framing(), broken::streams(), broken::settings(), broken::windows(), broken::compression()];
    let cases: Vec<Case> =
        cases.into_iter().flatten().chain(messages::malformed()).chain(messages::smuggling()).collect();
    assert!(cases.len() > 110, "{}", cases.len());
    let wrong: Vec<String> = cases.iter().filter_map(|case| judged(&server, case).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(!server.text().contains("panic"));
}

fn judged(server: &Server, case: &Case) -> Result<(), String> {
    let mut client = Client::open(&server.address);
    client.send(&case.frames);
    let said = client.until(|said| case.expect.is_met(said) || matches!(said, Said::Closed));
    // A connection that was let be is closed in the end, too: with a GOAWAY that finds no fault.
    match said.iter().any(|said| case.expect.is_met(said)) && !said.contains(&Said::Goaway(0)) {
        true => Ok(()),
        false => Err(format!("{}: {:?} was expected, and this came: {said:?}", case.name, case.expect)),
    }
}

#[test]
fn what_the_rfc_lets_pass_is_served() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let wrong: Vec<String> = messages::served().iter().filter_map(|case| judged(&server, case).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_preface_is_known_however_it_arrives() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let start = [wire::PREFACE, &frame(4, 0, 0, b""), &frame(1, 5, 1, wire::GET)].concat();
    for cut in 1..start.len() {
        let mut client = Client::connect(&server.address);
        client.send(&start[..cut]);
        client.send(&start[cut..]);
        let said = client.until(|said| matches!(said, Said::Status(1, _) | Said::Closed));
        assert_eq!(said.last(), Some(&Said::Status(1, 200)), "cut at {cut}");
    }
}

#[test]
fn windows_hold_back_what_does_not_fit() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let mut client = Client::connect(&server.address);
    // SETTINGS_INITIAL_WINDOW_SIZE of 1: one byte of the body, then nothing until there is room.
    client.send(&[wire::PREFACE, &frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]), &frame(1, 5, 1, wire::GET)].concat());
    let said = client.until(|said| matches!(said, Said::Data(1, _, _) | Said::Closed));
    assert_eq!(said.last(), Some(&Said::Data(1, 1, false)));
    client.send(&frame(6, 0, 0, b"12345678"));
    let said = client.until(|said| matches!(said, Said::Pong | Said::Data(..) | Said::Closed));
    assert_eq!(said.last(), Some(&Said::Pong), "more than fits was sent");
    client.send(&frame(8, 0, 1, &[0, 0, 0x10, 0]));
    let said = client.until(|said| matches!(said, Said::Data(1, _, true) | Said::Closed));
    assert!(matches!(said.last(), Some(Said::Data(1, bytes, true)) if *bytes > 1), "{said:?}");
}

/// A POST without a media type is answered before its body comes; what came up to the answer's end.
fn answered_early(server: &Server) -> (Client, Vec<Said>) {
    let mut client = Client::open(&server.address);
    client.send(&frame(1, 4, 1, &wire::POST[..wire::POST.len() - 19]));
    let said = client.until(|said| matches!(said, Said::Data(1, _, true)));
    assert!(said.contains(&Said::Status(1, 415)), "{said:?}");
    (client, said)
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_is_not_followed_by_a_reset() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let began = Instant::now();
    let (mut client, mut said) = answered_early(&server);
    client.send(&[frame(0, 1, 1, b"{}"), frame(6, 0, 0, b"12345678")].concat());
    said.extend(client.until(|said| matches!(said, Said::Pong)));
    // The body is waited for two seconds: a machine that took as long shows nothing.
    let in_time = began.elapsed() < Duration::from_secs(1);
    assert!(!said.iter().any(|said| matches!(said, Said::Reset(_))) || !in_time, "{said:?}");
    // Whoever waited would have got it now.
    client.send(&frame(1, 5, 3, wire::GET));
    let said = client.until(|said| matches!(said, Said::Data(3, _, true)));
    assert!(!said.contains(&Said::Reset(0)) || !in_time, "{said:?}");
}

#[test]
fn a_body_that_never_ends_is_not_waited_for() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let (mut client, mut said) = answered_early(&server);
    if !said.contains(&Said::Reset(0)) {
        said.extend(client.until(|said| matches!(said, Said::Reset(_) | Said::Goaway(_))));
    }
    assert_eq!(said.last(), Some(&Said::Reset(0)), "{said:?}");
    client.send(&frame(1, 5, 3, wire::GET));
    let said = client.until(|said| matches!(said, Said::Data(3, _, true)));
    assert!(matches!(said.last(), Some(Said::Data(3, _, true))), "{said:?}");
}

#[test]
fn what_a_client_gets_wrong_is_no_line_of_the_log_for_each_frame() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let mut client = Client::open(&server.address);
    client.send(&[frame(6, 1, 0, b"12345678").repeat(100), frame(1, 5, 1, wire::GET)].concat());
    client.until(|said| matches!(said, Said::Data(1, _, true)));
    server.expect_that("the access line", |event| event["target"] == "access" && event["protocol"] == "HTTP/2.0");
    assert!(!server.text().contains("h2::proto"), "{}", server.text());
}

/// A head of so many fields of 4,000 bytes: the first one goes into the table, the others are a byte each.
fn head_of(fields: usize) -> Vec<u8> {
    let value = vec![b'v'; 4000];
    let first = [&b"\x40\x01x\x7f\xa1\x1e"[..], &value].concat();
    frame(1, 5, 1, &[wire::GET, &first, &vec![0xbe; fields - 1]].concat())
}

#[test]
fn a_head_over_every_limit_is_answered_with_all_headers() {
    let server = Server::start(&[("HTTP2_CLEAR", "true"), ("LOG_CLIENT", "full")]);
    // Over ours; over h2's, which has an answer of its own; and once more on a connection that has served something.
    for (before, fields) in [(false, 20), (false, 40), (false, 100), (true, 40)] {
        let mut client = Client::open(&server.address);
        if before {
            client.send(&frame(1, 5, 1, wire::GET));
            client.until(|said| matches!(said, Said::Data(1, _, true)));
        }
        let mut head = head_of(fields);
        head[8] = if before { 3 } else { 1 };
        client.seen.clear();
        client.send(&head);
        let said = client.until(|said| matches!(said, Said::Status(..)));
        let answered = said.iter().any(|said| matches!(said, Said::Status(_, status) if *status == 431 || before));
        assert!(answered, "{fields}: {said:?}");
        // Answers of ours use Huffman's code; h2's own, with fields behind it, does not.
        let has = |text: &[u8]| client.seen.windows(text.len()).any(|window| window == text);
        if fields >= 40 {
            for text in ["x-content-type-options\x07nosniff", "x-frame-options\x04DENY", "x-request-id\x20", "no-store"]
            {
                assert!(has(text.as_bytes()), "{fields}: {text}");
            }
        }
    }
    server.expect_that("the security event", |event| {
        event["target"] == "security" && event.to_string().contains("oversize")
    });
    assert!(server.connect().get("/healthz").is_ok());
}

#[test]
fn a_head_without_any_measure_ends_its_connection() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let mut client = Client::open(&server.address);
    client.send(&head_of(5000));
    let said = client.until(|said| matches!(said, Said::Goaway(_)));
    assert!(!said.iter().any(|said| matches!(said, Said::Status(..))), "{said:?}");
}

/// What curl gets over HTTP/2 in clear.
fn curl(server: &Server, fields: &[String], path: &str) -> Answer {
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "20", "--http2-prior-knowledge"]);
    for field in fields {
        command.args(["-H", field]);
    }
    let output = command.arg(format!("http://{}{path}", server.address)).output().unwrap();
    Answer::parse(&output.stdout).unwrap_or_else(|| panic!("{output:?}"))
}

#[test]
fn every_kind_of_answer_over_http_2_has_its_headers() {
    let server = Server::start(&[("HTTP2_CLEAR", "true")]);
    let json = "Content-Type: application/json".to_owned();
    for (fields, path, status) in [
        (vec![], "/healthz", 200),
        (vec![], "/nowhere", 404),
        (vec![], "/api/chat", 405),
        (vec!["Accept: text/html".to_owned()], "/", 200),
        (vec![json.clone()], "/readyz", 503),
        (vec!["Host: other".to_owned(), "X: y".to_owned()], "/healthz", 200),
    ] {
        let answer = curl(&server, &fields, path);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        has_headers(&answer);
    }
}
