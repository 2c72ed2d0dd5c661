//! The filter with hyper behind it: what hyper saw is what the scanner declared, and refusals are answered in their turn.

use super::*;
use crate::http::head::Step;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

mod streams;

/// A request as hyper gave it to the service, or as the scanner declared it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    body: Vec<u8>,
    whole: bool,
}

#[derive(Debug)]
struct Served {
    seen: Vec<Seen>,
    marker: Option<Refusal>,
    answer: String,
    /// hyper found fault with what the filter let pass: never.
    parse_error: bool,
}

type Log = Arc<Mutex<(Vec<Seen>, Option<Refusal>)>>;

fn answer(status: u16, text: String) -> Response<Full<Bytes>> {
    Response::builder().status(status).header("x-by", "us").body(Full::new(text.into())).unwrap()
}

async fn service(request: Request<Incoming>, ledger: &Ledger, log: &Log) -> Response<Full<Bytes>> {
    if let Some(refusal) = ledger.arrived(request.uri().path()) {
        log.lock().unwrap().1 = Some(refusal);
        return answer(refusal.status(), refusal.code().to_owned());
    }
    let (method, target) = (request.method().to_string(), request.uri().to_string());
    let number = log.lock().unwrap().0.len();
    log.lock().unwrap().0.push(Seen { method: method.clone(), target: target.clone(), ..Seen::default() });
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => log.lock().unwrap().0[number].body.extend_from_slice(&data),
            Ok(Err(_)) => {}
            Err(_) => return answer(ledger.refusal().map_or(499, Refusal::status), String::new()),
        }
    }
    log.lock().unwrap().0[number].whole = true;
    // An answer that is not ready at once: hyper looks for the client's end meanwhile.
    tokio::task::yield_now().await;
    if target.ends_with("/never") {
        std::future::pending::<()>().await;
    }
    match method.as_str() {
        "CONNECT" => answer(405, String::new()),
        _ if target.ends_with("/large") => answer(200, "x".repeat(1 << 20)),
        _ => answer(200, String::new()),
    }
}

/// hyper behind the filter until the connection ends; true when hyper refused something itself.
async fn server<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S, ledger: Arc<Ledger>, log: Log) -> bool {
    let strict = Strict::new(stream, Limits::default(), ledger.clone());
    let service = hyper::service::service_fn(move |request| {
        let (ledger, log) = (ledger.clone(), log.clone());
        async move {
            let answer = service(request, &ledger, &log).await;
            ledger.answered();
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(strict, service);
    connection.await.is_err_and(|error| error.is_parse())
}

/// Runs `client` against a server over a pipe of `pipe_bytes`.
fn run<T, F: Future<Output = T>>(
    pipe_bytes: usize,
    client: impl FnOnce(DuplexStream, Arc<Ledger>) -> F,
) -> (T, Served) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (near, far) = duplex(pipe_bytes);
    let (ledger, log) = (Arc::new(Ledger::new(0)), Log::default());
    let (parse_error, result) = runtime
        .block_on(async { tokio::join!(server(far, ledger.clone(), log.clone()), client(near, ledger.clone())) });
    let (seen, marker) = log.lock().unwrap().clone();
    (result, Served { seen, marker, answer: String::new(), parse_error })
}

/// Sends `stream` in parts that end at `cuts`, ends, and takes every answer.
fn serve(stream: &[u8], cuts: &[usize]) -> Served {
    let (answer, served) = run(1 << 22, async |mut near, _| {
        let mut start = 0;
        for end in cuts.iter().copied().chain([stream.len()]) {
            // A server that has already closed takes no more.
            let _ = near.write_all(&stream[start..end]).await;
            tokio::task::yield_now().await;
            start = end;
        }
        near.shutdown().await.unwrap();
        read_all(&mut near).await
    });
    Served { answer, ..served }
}

/// What the scanner alone declares.
fn declare(stream: &[u8]) -> (Vec<Seen>, Option<Refusal>, Place) {
    let (mut scanner, mut passed, mut seen) = (Scanner::new(Limits::default()), 0, Vec::<Seen>::new());
    loop {
        let bytes = &stream[passed..];
        let before = scanner.place();
        let step = scanner.step(bytes);
        passed += match step {
            Step::More => return (seen, None, scanner.place()),
            Step::Refused(refusal) => return (seen, Some(refusal), scanner.place()),
            Step::Head(taken) => {
                let head = String::from_utf8_lossy(&bytes[..taken]).into_owned();
                let mut words = head.trim_start().split(' ').map(str::to_owned);
                seen.push(Seen { method: words.next().unwrap(), target: words.next().unwrap(), ..Seen::default() });
                taken
            }
            Step::Data(taken) => {
                assert_eq!(before, Place::Body);
                seen.last_mut().unwrap().body.extend_from_slice(&bytes[..taken]);
                taken
            }
            Step::Framing(taken) => taken,
        };
        if let (Some(last), Place::Between) = (seen.last_mut(), scanner.place()) {
            last.whole = true;
        }
    }
}

/// hyper saw what was declared, in order, and nothing else; and no byte of its own judgement went out.
fn compare(stream: &[u8], cuts: &[usize]) {
    let (declared, refusal, place) = declare(stream);
    let served = serve(stream, cuts);
    let shown = String::from_utf8_lossy(stream);
    assert!(!served.parse_error, "{shown:?}");
    assert!(served.seen.len() <= declared.len(), "hyper saw more than was declared: {:?} of {shown:?}", served.seen);
    for (seen, declared) in served.seen.iter().zip(&declared) {
        assert_eq!((&seen.method, &seen.target), (&declared.method, &normal(&declared.target)), "{shown:?}");
        assert_eq!((&seen.body, seen.whole), (&declared.body, declared.whole), "{shown:?}");
    }
    let closes = shown.to_ascii_lowercase().contains("close") || shown.contains("HTTP/1.0");
    if !closes {
        assert_eq!(served.seen.len(), declared.len(), "{shown:?}");
        let expected = refusal.filter(|_| place == Place::RefusedHead);
        assert_eq!(served.marker, expected, "{shown:?}");
    }
    let answers = served.seen.len() + usize::from(served.marker.is_some());
    assert!(served.answer.matches("x-by: us").count() <= answers);
    assert_eq!(
        served.answer.matches("HTTP/1.").count(),
        served.answer.matches("x-by: us").count() + served.answer.matches("100 Continue").count()
    );
}

/// As `http::Uri` prints it: an absolute target without a path has one.
fn normal(target: &str) -> String {
    target.parse::<http::Uri>().unwrap().to_string()
}

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: a\r\n\r\n";
const BAD: &str = "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";

#[test]
fn a_refusal_comes_in_its_turn_and_nothing_after_it() {
    let stream = format!("{}{BAD}{}", GOOD.repeat(500), GOOD.repeat(499));
    let served = serve(stream.as_bytes(), &[]);
    assert_eq!((served.seen.len(), served.marker), (500, Some(Refusal::HostRepeated)));
    let statuses: Vec<_> = served.answer.lines().filter(|line| line.starts_with("HTTP/1.1 ")).collect();
    assert_eq!(statuses.len(), 501);
    assert!(statuses[..500].iter().all(|status| *status == "HTTP/1.1 200 OK"));
    assert_eq!(statuses[500], "HTTP/1.1 400 Bad Request");
    assert!(served.answer.ends_with("invalid_request"));
    assert!(served.answer.contains("connection: close"));
}

#[test]
fn a_refusal_is_the_same_at_every_cut() {
    let post = "POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    let stream = format!("{GOOD}{post}{BAD}{GOOD}");
    for cut in 0..stream.len() {
        let served = serve(stream.as_bytes(), &[cut]);
        assert_eq!((served.seen.len(), served.marker), (2, Some(Refusal::HostRepeated)), "cut at {cut}");
        compare(stream.as_bytes(), &[cut]);
    }
    compare(stream.as_bytes(), &(0..stream.len()).collect::<Vec<_>>());
}

#[test]
fn the_marker_path_is_nothing_special_for_a_client() {
    let own = "GET /.refused HTTP/1.1\r\nHost: refused\r\n\r\n";
    let served = serve(format!("{own}{own}{BAD}").as_bytes(), &[]);
    assert_eq!((served.seen.len(), served.marker), (2, Some(Refusal::HostRepeated)));
    assert_eq!(served.answer.matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn a_refused_body_is_an_error_to_its_reader() {
    let stream =
        format!("{GOOD}POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n{GOOD}");
    for cut in 0..stream.len() {
        let served = serve(stream.as_bytes(), &[cut]);
        assert_eq!((served.seen.len(), served.marker), (2, None), "cut at {cut}");
        assert_eq!((served.seen[1].body.as_slice(), served.seen[1].whole), (&b"abc"[..], false));
        assert_eq!(served.answer.matches("HTTP/1.1 400 Bad Request").count(), 1, "{}", served.answer);
    }
}

#[test]
fn upgrades_and_tunnels_are_requests_like_others() {
    let h2c = "GET /up HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    compare(format!("{h2c}{GOOD}{BAD}").as_bytes(), &[]);
    let served = serve(format!("{h2c}{GOOD}").as_bytes(), &[]);
    assert_eq!(served.seen.len(), 2);
    assert!(!served.answer.contains("101"));
    assert_eq!(serve(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[]).marker, Some(Refusal::Version));
}

#[test]
fn the_largest_head_passes() {
    let mut head = String::from("GET /good HTTP/1.1\r\nHost: a\r\n");
    (0..7).for_each(|_| head.push_str(&format!("X: {}\r\n", "v".repeat(8185))));
    let rest = 65_536 - head.len() - 7;
    head.push_str(&format!("Y: {}\r\n\r\n", "v".repeat(rest)));
    assert_eq!(head.len(), 65_536);
    for cuts in [&[][..], &[1], &[40_000], &[8192, 16_384, 65_535]] {
        let served = serve(format!("{head}{GOOD}").as_bytes(), cuts);
        assert_eq!((served.seen.len(), served.marker), (2, None));
    }
}

#[test]
fn a_large_body_passes_unchanged() {
    let body: String = (0..200_000).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    let counted = format!("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}{GOOD}", body.len());
    let pieces: String = body
        .as_bytes()
        .chunks(777)
        .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)))
        .collect();
    let chunked =
        format!("POST /post HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n{GOOD}");
    for stream in [counted, chunked] {
        let served = serve(stream.as_bytes(), &[]);
        assert_eq!(served.seen.len(), 2);
        assert!(served.seen[0].whole && served.seen[0].body == body.as_bytes());
    }
}

/// Lets the server run until `done`; fails when that never comes.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came");
}

const LATE_MS: u64 = u64::MAX / 2;

async fn read_all(near: &mut DuplexStream) -> String {
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_slow_head_is_answered_with_408() {
    let (answer, served) = run(1 << 16, async |mut near, ledger| {
        near.write_all(format!("{GOOD}GET /slow").as_bytes()).await.unwrap();
        until(|| ledger.phase() == Phase::Head && ledger.in_flight() == 0).await;
        assert_eq!(ledger.sweep(ledger.since_ms() + 9_999, &Times::default()), None);
        assert_eq!(ledger.sweep(LATE_MS, &Times::default()), Some(Overdue::Head));
        until(|| ledger.phase() == Phase::Linger).await;
        near.shutdown().await.unwrap();
        read_all(&mut near).await
    });
    assert_eq!((served.seen.len(), served.marker), (1, Some(Refusal::HeadTimeout)));
    assert!(answer.contains("HTTP/1.1 408 Request Timeout"));
}

#[test]
fn a_slow_body_is_answered_with_408() {
    for framing in [
        "Content-Length: 5\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        let (answer, served) = run(1 << 16, async |mut near, ledger| {
            near.write_all(format!("POST /post HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes()).await.unwrap();
            until(|| ledger.phase() == Phase::Body).await;
            assert_eq!(ledger.sweep(ledger.since_ms() + 29_999, &Times::default()), None);
            assert_eq!(ledger.sweep(LATE_MS, &Times::default()), Some(Overdue::Body));
            until(|| ledger.phase() == Phase::Linger).await;
            assert_eq!(ledger.sweep(LATE_MS, &Times::default()), Some(Overdue::Linger));
            read_all(&mut near).await
        });
        assert!(!served.seen[0].whole);
        assert!(answer.contains("HTTP/1.1 408 Request Timeout"), "{answer}");
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    for first in ["", GOOD, "\r\n"] {
        let (answer, served) = run(1 << 16, async |mut near, ledger| {
            near.write_all(first.as_bytes()).await.unwrap();
            until(|| ledger.bytes_in() == first.len() as u64 && ledger.in_flight() == 0).await;
            tokio::task::yield_now().await;
            ledger.sweep(1, &Times::default());
            assert_eq!(ledger.sweep(LATE_MS, &Times::default()), Some(Overdue::Idle));
            read_all(&mut near).await
        });
        assert_eq!((served.seen.len(), served.marker), (usize::from(first == GOOD), None));
        assert_eq!(answer.matches("HTTP/1.1").count(), served.seen.len());
    }
}

#[test]
fn a_client_that_takes_nothing_is_closed() {
    let (taken, _) = run(4096, async |mut near, ledger| {
        near.write_all(GOOD.replace("good", "large").as_bytes()).await.unwrap();
        until(|| ledger.bytes_out() == 4096).await;
        until(|| ledger.sweep(LATE_MS, &Times::default()) == Some(Overdue::Stall)).await;
        near.shutdown().await.unwrap();
        read_all(&mut near).await
    });
    assert_eq!(taken.len(), 4096);
}

#[test]
fn a_client_that_left_is_cancelled_at_the_next_look() {
    let (answer, served) = run(1 << 16, async |mut near, ledger| {
        near.write_all(GOOD.replace("good", "never").as_bytes()).await.unwrap();
        near.shutdown().await.unwrap();
        until(|| ledger.phase() == Phase::Leaving).await;
        assert_eq!(ledger.in_flight(), 1);
        assert_eq!(ledger.sweep(1, &Times::default()), Some(Overdue::Leaving));
        read_all(&mut near).await
    });
    assert_eq!((served.seen.len(), answer.as_str()), (1, ""));
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_sending() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let answer = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let ledger = Arc::new(Ledger::new(0));
        let client = async move {
            client.write_all(BAD.as_bytes()).await.unwrap();
            for _ in 0..20 {
                client.write_all(&[b'x'; 10_000]).await.unwrap();
            }
            client.shutdown().await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.map(|_| answer)
        };
        tokio::join!(server(socket, ledger, Log::default()), client).1
    });
    assert!(answer.unwrap().starts_with("HTTP/1.1 400 Bad Request\r\n"));
}

#[test]
fn memory_is_held_only_for_a_head_in_parts() {
    let ledger = Arc::new(Ledger::new(0));
    let mut strict = Strict::new((), Limits::default(), ledger);
    let mut room = [0; 256];
    let mut buffer = hyper::rt::ReadBuf::new(&mut room);
    let mut cursor = buffer.unfilled();
    strict.take_in(GOOD.as_bytes(), &mut cursor);
    assert_eq!(strict.held.capacity(), 0);
    strict.take_in(b"GET /", &mut cursor);
    assert_eq!((strict.held.len(), strict.ready), (5, 0));
    strict.take_in(&GOOD.as_bytes()[5..], &mut cursor);
    strict.hand_over(&mut cursor);
    assert_eq!(strict.held.capacity(), 0);
}
