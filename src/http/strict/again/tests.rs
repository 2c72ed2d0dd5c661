//! Answers that are given in front of hyper stand in the same order as hyper's own, whatever comes, in whatever pieces.

use super::super::{Overdue, Times};
use super::*;
use crate::http::head::Limits;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};
use proptest::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// What both sides did.
#[derive(Default)]
struct Seen {
    /// Targets that hyper brought.
    served: Mutex<Vec<String>>,
    /// How often [`Again`] answered, and how often it still will.
    again: AtomicUsize,
    left: AtomicUsize,
}

struct Fixed(Arc<Seen>, String);

impl Again for Fixed {
    fn again(&self, ledger: &Arc<Ledger>, answer: &mut Vec<u8>) -> bool {
        if self.0.left.load(SeqCst) == 0 {
            return false;
        }
        self.0.left.fetch_sub(1, SeqCst);
        self.0.again.fetch_add(1, SeqCst);
        ledger.arrived("");
        answer.extend_from_slice(
            format!("HTTP/1.1 429 T\r\ncontent-length: {}\r\n\r\n{}", self.1.len(), self.1).as_bytes(),
        );
        ledger.answered();
        true
    }
}

/// Refuses what lies below `/no`, serves the rest; the body is the target.
fn service(request: Request<Incoming>, ledger: &Ledger, seen: &Arc<Seen>) -> Response<Full<Bytes>> {
    let target = request.uri().to_string();
    let marked = ledger.arrived(&target).is_some();
    seen.served.lock().unwrap().push(target.clone());
    let status = match (marked, target.starts_with("/no")) {
        (true, _) => 400,
        (false, true) => {
            ledger.repeats(|| Some(Box::new(Fixed(seen.clone(), target.clone()))));
            429
        }
        (false, false) => 200,
    };
    Response::builder().status(status).body(Full::from(target)).unwrap()
}

/// Runs `client` against the filter with hyper behind it; `left` answers are given in front of it at most.
fn run<T>(pipe_bytes: usize, left: usize, client: impl AsyncFnOnce(DuplexStream, Arc<Ledger>) -> T) -> (T, Arc<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (near, far) = duplex(pipe_bytes);
    let (ledger, seen) = (Arc::new(Ledger::new(0)), Arc::new(Seen { left: left.into(), ..Seen::default() }));
    let server = {
        let (ledger, seen) = (ledger.clone(), seen.clone());
        let strict = Strict::new(far, Limits::default(), ledger.clone());
        let service = hyper::service::service_fn(move |request| {
            let (ledger, seen) = (ledger.clone(), seen.clone());
            async move {
                let answer = service(request, &ledger, &seen);
                ledger.answered();
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(strict, service)
    };
    let (_, told) = runtime.block_on(async { tokio::join!(server, client(near, ledger)) });
    (told, seen)
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The next answer's status and body.
async fn answer(near: &mut DuplexStream) -> (u16, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    near.read_exact(&mut body).await.unwrap();
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}

#[test]
fn the_third_equal_request_does_not_reach_hyper_until_it_would_be_served() {
    let (told, seen) = run(1 << 16, 5, async |mut near, _| {
        let mut told = Vec::new();
        for target in ["/yes", "/no", "/no", "/no", "/no", "/yes", "/no", "/no", "/no", "/no", "/no", "/no", "/no"] {
            near.write_all(get(target).as_bytes()).await.unwrap();
            told.push(answer(&mut near).await);
            assert_eq!(told.last().unwrap().1, target);
        }
        told
    });
    assert_eq!(told.iter().filter(|(status, _)| *status == 429).count(), 11);
    // Five in front: the third and fourth, and three after the other one. Then it is asked for in vain, and begins anew.
    assert_eq!(seen.again.load(SeqCst), 5);
    assert_eq!(seen.served.lock().unwrap().len(), 8);
}

#[test]
fn a_request_that_was_not_refused_is_let_go_of() {
    let (_, seen) = run(1 << 16, usize::MAX, async |mut near, ledger| {
        for target in ["/no", "/yes", "/no", "/no", "/no"] {
            near.write_all(get(target).as_bytes()).await.unwrap();
            answer(&mut near).await;
        }
        assert!(!ledger.wants_kept());
    });
    // Refused; the wrong one kept; refused; kept and refused; and only then in front.
    assert_eq!((seen.again.load(SeqCst), seen.served.lock().unwrap().len()), (1, 4));
}

#[test]
fn a_refused_head_behind_repeats_is_told_by_its_number() {
    let (told, seen) = run(1 << 16, usize::MAX, async |mut near, _| {
        let mut told = Vec::new();
        for _ in 0..2 {
            near.write_all(get("/no").as_bytes()).await.unwrap();
            told.push(answer(&mut near).await);
        }
        let bad = "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
        near.write_all(format!("{}{bad}", get("/no").repeat(3)).as_bytes()).await.unwrap();
        for _ in 0..4 {
            told.push(answer(&mut near).await);
        }
        near.shutdown().await.unwrap();
        told
    });
    assert_eq!(told.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [429, 429, 429, 429, 429, 400]);
    assert_eq!(seen.again.load(SeqCst), 3);
}

#[test]
fn who_does_not_take_the_answers_is_closed() {
    let (_, seen) = run(4096, usize::MAX, async |mut near, ledger| {
        for _ in 0..2 {
            near.write_all(get("/no").as_bytes()).await.unwrap();
            answer(&mut near).await;
        }
        // Until nothing more is taken in.
        let flood = get("/no").repeat(100_000);
        let writing = near.write_all(flood.as_bytes());
        let mut overdue = None;
        let sweeping = async {
            while overdue.is_none() {
                tokio::task::yield_now().await;
                let late_ms = crate::sys::clock::monotonic_ms() + 200_000;
                overdue = ledger.sweep(late_ms, &Times::default()).filter(|overdue| *overdue == Overdue::Stall);
            }
        };
        let (written, ()) = tokio::join!(writing, sweeping);
        assert!(written.is_err(), "the server is gone");
    });
    assert!((1..20_000).contains(&seen.again.load(SeqCst)), "what is not taken is bounded");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn answers_come_in_the_order_of_requests(
        picks in proptest::collection::vec(0usize..4, 1..60),
        cuts in proptest::collection::vec(1usize..200, 0..60),
        pipe_bytes in 16usize..4096,
        left in 0usize..60,
    ) {
        const TARGETS: [&str; 4] = ["/no", "/no", "/no/else", "/yes"];
        let wanted: Vec<&str> = picks.iter().map(|pick| TARGETS[*pick]).collect();
        let (told, seen) = run(pipe_bytes, left, async |near, _| {
            let (mut read, mut write) = tokio::io::split(near);
            let stream: String = wanted.iter().map(|target| get(target)).collect();
            let writing = async {
                let mut rest = stream.as_bytes();
                for cut in cuts.iter().copied().chain([usize::MAX]) {
                    let (now, later) = rest.split_at(cut.min(rest.len()));
                    write.write_all(now).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = later;
                }
                write.shutdown().await.unwrap();
            };
            let mut told = Vec::new();
            let reading = async { read.read_to_end(&mut told).await.unwrap() };
            tokio::join!(writing, reading);
            String::from_utf8(told).unwrap()
        });
        // The target is each answer's body, so it stands between its head's end and the next answer.
        let bodies: Vec<&str> = told.split("\r\n\r\n").skip(1).map(|part| part.split("HTTP/1.1").next().unwrap()).collect();
        prop_assert_eq!(bodies, wanted);
        prop_assert_eq!(seen.again.load(SeqCst) + seen.served.lock().unwrap().len(), picks.len());
    }
}
