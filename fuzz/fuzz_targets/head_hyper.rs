//! hyper behind the filter sees the bodies that the scanner declared, in order, and not one request more; and it never
//! finds fault with what passed.
#![no_main]

use chatcorn::http::head::{Limits, Scanner, Step};
use chatcorn::http::strict::{Ledger, Strict};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

fuzz_target!(|input: &[u8]| {
    let [cut, stream @ ..] = input else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = runtime.block_on(serve(stream, usize::from(*cut) % (stream.len() + 1)));
    let declared = declare(stream);
    assert!(seen.len() <= declared.len(), "hyper saw more than was declared");
    for (seen, declared) in seen.iter().zip(&declared) {
        assert_eq!(seen, declared);
    }
});

async fn serve(stream: &[u8], cut: usize) -> Vec<Vec<u8>> {
    let (mut near, far) = tokio::io::duplex(1 << 22);
    let (ledger, seen) = (Arc::new(Ledger::new(0)), Bodies::default());
    let (known, log) = (ledger.clone(), seen.clone());
    let service = hyper::service::service_fn(move |request| record(request, known.clone(), log.clone()));
    let builder = hyper::server::conn::http1::Builder::new();
    let connection = builder.serve_connection(Strict::new(far, Limits::default(), ledger), service);
    let client = async {
        let _ = near.write_all(&stream[..cut]).await;
        tokio::task::yield_now().await;
        let _ = near.write_all(&stream[cut..]).await;
        let _ = near.shutdown().await;
        let _ = near.read_to_end(&mut Vec::new()).await;
    };
    let (ended, ()) = tokio::join!(connection, client);
    assert!(!ended.is_err_and(|error| error.is_parse()), "hyper refused what passed");
    seen.lock().expect("no panic").clone()
}

async fn record(
    request: Request<Incoming>,
    ledger: Arc<Ledger>,
    log: Bodies,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::default());
    if ledger.arrived(request.uri().path()).is_none() {
        if request.method() == hyper::Method::CONNECT {
            *answer.status_mut() = hyper::StatusCode::METHOD_NOT_ALLOWED;
        }
        let number = log.lock().expect("no panic").len();
        log.lock().expect("no panic").push(Vec::new());
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            log.lock().expect("no panic")[number].extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }
    ledger.answered();
    Ok(answer)
}

fn declare(stream: &[u8]) -> Vec<Vec<u8>> {
    let (mut scanner, mut passed, mut bodies) = (Scanner::new(Limits::default()), 0, Vec::<Vec<u8>>::new());
    loop {
        let bytes = &stream[passed..];
        passed += match scanner.step(bytes) {
            Step::More | Step::Refused(_) => return bodies,
            Step::Head(taken) => {
                bodies.push(Vec::new());
                taken
            }
            Step::Data(taken) => {
                bodies.last_mut().expect("a head first").extend_from_slice(&bytes[..taken]);
                taken
            }
            Step::Framing(taken) => taken,
        };
    }
}
