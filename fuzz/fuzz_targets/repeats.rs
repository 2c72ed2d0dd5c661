//! A connection on which equal requests are answered in front of hyper gives the same bytes as one on which hyper answers
//! all of them, whatever else comes between, and wherever the packets end.
#![no_main]

use chatcorn::http::head::Limits;
use chatcorn::http::strict::{Again, Ledger, Strict};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the requests are made of; everything else is taken from the input as it is.
const PIECES: [&[u8]; 13] = [
    b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: t\r\n\r\nGET /a HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /b HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nxyz",
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 28\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"1c\r\n",
    b"\r\n0\r\n\r\n",
    b"\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /a HTTP/1.1\r\n\r\n",
    // Its body is bytes of the input: nearly what was kept, or just that.
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n",
];

fuzz_target!(|input: &[u8]| {
    let (stream, cuts) = stream(input);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let with = runtime.block_on(told(&stream, &cuts, true));
    let without = runtime.block_on(told(&stream, &cuts, false));
    assert_eq!(String::from_utf8_lossy(&with), String::from_utf8_lossy(&without));
});

/// A byte below 32 is a piece, or a cut; one above is itself.
fn stream(input: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut stream, mut cuts) = (Vec::new(), Vec::new());
    for byte in input.iter().take(300) {
        match usize::from(*byte) {
            at if at < PIECES.len() => stream.extend_from_slice(PIECES[at]),
            13..32 => cuts.push(stream.len()),
            _ => stream.push(*byte),
        }
    }
    (stream, cuts)
}

struct Once(Vec<u8>);

impl Again for Once {
    fn again(&self, ledger: &Arc<Ledger>, answer: &mut Vec<u8>) -> bool {
        ledger.arrived("");
        answer.extend_from_slice(&self.0);
        ledger.answered();
        true
    }
}

async fn told(stream: &[u8], cuts: &[usize], repeats: bool) -> Vec<u8> {
    let (mut near, far) = tokio::io::duplex(1 << 22);
    let ledger = Arc::new(Ledger::new(0));
    let known = ledger.clone();
    let service = hyper::service::service_fn(move |request| answer(request, known.clone(), repeats));
    let mut builder = hyper::server::conn::http1::Builder::new();
    let connection =
        builder.auto_date_header(false).serve_connection(Strict::new(far, Limits::default(), ledger), service);
    let client = async {
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let _ = near.write_all(&stream[from..to]).await;
            // Answers to all of that before more comes, so that a repeat finds a connection at rest.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            from = to;
        }
        let _ = near.shutdown().await;
        let mut told = Vec::new();
        let _ = near.read_to_end(&mut told).await;
        told
    };
    tokio::join!(connection, client).1
}

async fn answer(
    request: Request<Incoming>,
    ledger: Arc<Ledger>,
    repeats: bool,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let marked = ledger.arrived(request.uri().path()).is_some();
    let mut text = format!("{} {} ", request.method(), request.uri());
    let (head, body) = (request.method() == hyper::Method::HEAD, request.into_body());
    let whole = body.collect().await.map(|body| text.push_str(&String::from_utf8_lossy(&body.to_bytes())));
    if repeats && whole.is_ok() && !marked && !head && text.contains(" /a ") {
        let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes();
        ledger.repeats(|| Some(Box::new(Once(bytes))));
    }
    ledger.answered();
    let mut answer = Response::new(Full::from(text));
    if marked {
        *answer.status_mut() = hyper::StatusCode::BAD_REQUEST;
    }
    Ok(answer)
}
