//! What the strict filter costs: nanoseconds a head, megabytes a second of a body that passes through, and a whole request
//! through hyper with the filter and without. `cargo bench --bench head`.

use chatcorn::http::head::{Limits, Scanner};
use chatcorn::http::strict::{Ledger, Strict};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use nix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const WRK: &str = "GET /api/health HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n";
const CURL: &str = "GET /api/health HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\
    Accept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\nX-Request-Id: 0123456789\r\n\r\n";
const BROWSER: &str = "GET /api/context/mode?session_id=abcdefgh HTTP/1.1\r\nHost: chat.example.org\r\nConnection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nReferer: https://chat.example.org/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nCookie: theme=dark; visited=1\r\n\r\n";
const ROUNDS: u32 = 2_000_000;
const REQUESTS: u32 = 60_000;
const TURNS: u32 = 7;

fn main() {
    for (name, head) in [("wrk", WRK), ("curl", CURL), ("browser", BROWSER)] {
        println!("head {name:8} {:4} bytes {:7.1} ns", head.len(), head_ns(head.as_bytes()));
    }
    println!(
        "body by length   {:9.0} MB/s",
        body_mb_per_s("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1152921504606846976\r\n\r\n", &[b'x'; 32_768])
    );
    let mut chunk = b"2000\r\n".to_vec();
    chunk.resize(8192 + 6, b'x');
    chunk.extend_from_slice(b"\r\n");
    println!(
        "body in 8K chunks {:8.0} MB/s",
        body_mb_per_s("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk)
    );
    let (mut bare, mut strict) = (f64::MAX, f64::MAX);
    for _ in 0..TURNS {
        bare = bare.min(request_us(false));
        strict = strict.min(request_us(true));
    }
    println!(
        "the server's core for a request over TCP, best of {TURNS}: hyper {bare:.2} us, with the filter {strict:.2} us"
    );
}

fn head_ns(head: &[u8]) -> f64 {
    let mut scanner = Scanner::new(Limits::default());
    let start = cpu();
    for _ in 0..ROUNDS {
        assert_eq!(scanner.scan(black_box(head)).pass, head.len());
    }
    (cpu() - start).as_nanos() as f64 / f64::from(ROUNDS)
}

fn body_mb_per_s(head: &str, part: &[u8]) -> f64 {
    let mut scanner = Scanner::new(Limits::default());
    scanner.scan(head.as_bytes());
    let (rounds, start) = (200_000u32, cpu());
    for _ in 0..rounds {
        assert_eq!(scanner.scan(black_box(part)).pass, part.len());
    }
    part.len() as f64 * f64::from(rounds) / (cpu() - start).as_secs_f64() / 1e6
}

/// This thread's time on a core: other work on the machine does not count.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// What the server's thread spends on one request and its answer on a kept connection.
fn request_us(strict: bool) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || serve(listener, strict));
    let mut client = TcpStream::connect(address).expect("the server");
    client.set_nodelay(true).expect("an option");
    let mut answer = [0; 1024];
    for _ in 0..REQUESTS {
        client.write_all(CURL.as_bytes()).expect("written");
        assert!(client.read(&mut answer).expect("an answer") > 0);
    }
    drop(client);
    server.join().expect("the server's end").as_nanos() as f64 / f64::from(REQUESTS) / 1000.0
}

fn serve(listener: TcpListener, strict: bool) -> Duration {
    let start = cpu();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async {
        let (socket, _) = listener.accept().expect("the client");
        socket.set_nonblocking(true).expect("an option");
        let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
        let http = hyper::server::conn::http1::Builder::new();
        if strict {
            let ledger = Arc::new(Ledger::new(0));
            let known = ledger.clone();
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                assert!(known.arrived(request.uri().path()).is_none());
                known.answered();
                answer()
            });
            let _ = http.serve_connection(Strict::new(socket, Limits::default(), ledger), service).await;
        } else {
            let _ = http
                .serve_connection(hyper_util::rt::TokioIo::new(socket), hyper::service::service_fn(|_| answer()))
                .await;
        }
    });
    cpu() - start
}

async fn answer() -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"{\"status\":\"healthy\"}"))))
}
