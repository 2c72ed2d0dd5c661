//! Clients that ask and then take nothing: each stream has the time that HTTP/1's slow reader has.

use super::wire::{self, Client, Said, frame};
use crate::support::Server;
use std::time::{Duration, Instant};

const CANCEL: u32 = 8;
/// `GET http t /openapi.json`
const DOCUMENT: &[u8] = b"\x82\x86\x04\x0d/openapi.json\x01\x01t";

fn patient_for_a_second() -> Server {
    Server::start(&[("HTTP2_CLEAR", "true"), ("BODY_TIMEOUT", "1"), ("LOG_CLIENT", "full")])
}

/// A client whose streams begin with a window of so many bytes.
fn with_window(server: &Server, bytes: u32) -> Client {
    let mut client = Client::connect(&server.address);
    let settings = [&[0, 4][..], &bytes.to_be_bytes()].concat();
    client.send(&[wire::PREFACE, &frame(4, 0, 0, &settings)].concat());
    client
}

fn logged(server: &Server, path: &str) {
    server.expect_that("the access line", |event| {
        event["target"] == "access" && event["path"] == path && event["protocol"] == "HTTP/2.0"
    });
}

#[test]
fn an_answer_that_nobody_takes_is_reset_and_its_connection_closed() {
    let server = patient_for_a_second();
    let began = Instant::now();
    let mut client = with_window(&server, 0);
    client.send(&[frame(1, 5, 1, wire::GET), frame(1, 5, 3, DOCUMENT)].concat());
    let said = client.until(|said| *said == Said::Closed);
    assert!(began.elapsed() >= Duration::from_millis(950), "after {:?}: {said:?}", began.elapsed());
    // The last requests that it takes are told first; how many come of the rest is the client's own doing.
    assert_eq!(said.iter().filter(|said| **said == Said::Reset(CANCEL)).count(), 2, "{said:?}");
    assert!(said.contains(&Said::Status(1, 200)) && said.contains(&Said::Goaway(0)), "{said:?}");
    assert!(!said.iter().any(|said| matches!(said, Said::Data(..))), "{said:?}");
    logged(&server, "/healthz");
    logged(&server, "/openapi.json");
    assert_eq!(server.connect().get("/healthz").unwrap().status, 200);
}

#[test]
fn a_window_for_the_beginning_of_an_answer_does_not_hold_the_rest_for_ever() {
    let server = patient_for_a_second();
    let mut client = with_window(&server, 100);
    client.send(&frame(1, 5, 1, DOCUMENT));
    let said = client.until(|said| *said == Said::Closed);
    assert!(said.contains(&Said::Data(1, 100, false)) && said.contains(&Said::Reset(CANCEL)), "{said:?}");
    assert!(said.contains(&Said::Goaway(0)), "{said:?}");
}

#[test]
fn beside_an_answer_that_nobody_takes_others_are_served() {
    let server = patient_for_a_second();
    let mut client = with_window(&server, 0);
    // An upload that has earned some seconds, and goes on when the other stream has gone.
    let upload = [frame(1, 4, 3, wire::POST), frame(0, 0, 3, &[b' '; 16_000])].concat();
    client.send(&[frame(1, 5, 1, wire::GET), upload].concat());
    let said = client.until(|said| matches!(said, Said::Reset(_) | Said::Goaway(_)));
    assert_eq!(said.last(), Some(&Said::Reset(CANCEL)), "{said:?}");
    client.send(&[frame(8, 0, 3, &[0, 0, 0x10, 0]), frame(0, 1, 3, b"{}")].concat());
    let said = client.until(|said| matches!(said, Said::Data(3, _, true)));
    assert!(said.iter().any(|said| matches!(said, Said::Status(3, _))), "{said:?}");
    assert!(matches!(said.last(), Some(Said::Data(3, _, true))), "{said:?}");
}
