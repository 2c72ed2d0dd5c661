//! The ceiling for `GET /api/health`: hyper alone, 4 forked processes of 2 threads on one shared listener, plain accept.
//!
//! `bare ADDRESS FILE` answers every request with FILE: header lines, an empty line, the body. It prints where it
//! listens. No routing, limit, log, deadline or balance: what those cost is what `bin/bench` shows.

use bytes::Bytes;
use chatcorn::listener::{Address, Listener};
use chatcorn::sys::{fork, process, signal};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::error::Error;
use std::io;

const PROCESSES: usize = 4;
const BACKLOG: i32 = 2048;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, file] = args.as_slice() else { return Err("usage: bare ADDRESS FILE".into()) };
    let answer = Answer::read(&std::fs::read_to_string(file)?)?;
    let listener = Listener::bind(&Address::parse(address)?, BACKLOG, None).map_err(|error| error.to_string())?;
    let parent = nix::unistd::getpid().as_raw();
    for _ in 0..PROCESSES {
        fork::fork_child(|| child(parent, &listener, answer))?;
    }
    println!("{}", listener.address());
    nix::sys::wait::wait()?;
    Err("a child ended".into())
}

fn child(parent: i32, listener: &Listener, answer: Answer) -> Infallible {
    let done = process::die_with_parent(parent)
        .and_then(|()| signal::unblock_all())
        .and_then(|()| two_threads(listener, answer));
    if let Err(error) = done {
        eprintln!("bare: {error}");
    }
    fork::leave(1)
}

fn two_threads(listener: &Listener, answer: Answer) -> io::Result<()> {
    let second = listener.socket()?;
    std::thread::spawn(move || accept_forever(second.into(), answer));
    accept_forever(listener.socket()?.into(), answer)
}

fn accept_forever(listener: std::net::TcpListener, answer: Answer) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let service = service_fn(move |_| std::future::ready(Ok::<_, Infallible>(answer.response())));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

/// The bytes that every request is answered with; leaked, so that a copy costs no counter.
#[derive(Clone, Copy)]
struct Answer {
    headers: &'static HeaderMap,
    body: &'static str,
}

impl Answer {
    fn read(text: &str) -> Result<Answer, Box<dyn Error>> {
        let text: &'static str = text.to_owned().leak();
        let (head, body) = text.split_once("\n\n").ok_or("the file needs an empty line between headers and body")?;
        let mut headers = HeaderMap::new();
        for line in head.lines() {
            let (name, value) = line.split_once(": ").ok_or_else(|| format!("{line:?} is no header"))?;
            headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_static(value));
        }
        Ok(Answer { headers: Box::leak(Box::new(headers)), body })
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from_static(self.body.as_bytes())));
        self.headers.clone_into(response.headers_mut());
        response
    }
}
