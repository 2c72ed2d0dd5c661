//! Stored turns a second, and what storing costs a chat: `sessions [PROGRAM]`.
//!
//! Four processes, as the workers are, begin and end turns as fast as the store takes them: SQLite, then a PostgreSQL
//! of its own with `fsync`. With a PROGRAM (chatcorn) also `/api/chat` at 1,000 requests/s to an instant upstream,
//! each request timed from the moment at which it should have been sent. Prints `name value unit` lines.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../tests/support/postgres.rs"]
#[allow(dead_code)]
mod postgres;

use chatcorn::chat::session::{Principal, SessionKey, SessionRef};
use chatcorn::chat::store::{Outcome, Place, Plan, Store, migrate};
use postgres::Postgres;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// As many as the workers of a default server.
const WORKERS: usize = 4;
/// Conversations under way in each.
const TALKS: usize = 32;
/// Turns of a session before the next one begins.
const TURNS: usize = 20;
const MEASURED: Duration = Duration::from_secs(6);
const RATE: u64 = 1_000;
const CONNECTIONS: u64 = 64;
const UPSTREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", url] => worker(url),
        [] => turns(),
        [program] => {
            turns();
            latencies(program);
        }
        _ => panic!("sessions [PROGRAM]"),
    }
}

/// For the PostgreSQL of the tests.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

struct Home(PathBuf);

impl Home {
    fn new() -> Home {
        let home = std::env::temp_dir().join(format!("chatcorn-bench-sessions-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        Home(home)
    }

    fn sqlite(&self) -> String {
        format!("sqlite:{}", self.0.join("c.db").display())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plan(url: &str) -> Plan {
    let place = match url.strip_prefix("sqlite:") {
        Some(path) => Place::File(path.into()),
        None => Place::Server(Box::new(url.parse().unwrap())),
    };
    Plan { place, ttl: Duration::from_secs(86_400) }
}

fn turns() {
    let home = Home::new();
    println!("sqlite_turns {:.0} turns/s", rate(&home.sqlite()));
    if let Some(server) = Postgres::start(&["fsync=on", "shared_buffers=128MB"]) {
        println!("postgres_turns {:.0} turns/s", rate(&server.url()));
    }
}

/// Turns a second of all workers together.
fn rate(url: &str) -> f64 {
    migrate(&plan(url)).unwrap();
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["worker", url]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let workers: Vec<Child> = (0..WORKERS).map(|_| start()).collect();
    let sum = workers.into_iter().map(|mut worker| {
        let mut line = String::new();
        BufReader::new(worker.stdout.take().unwrap()).read_line(&mut line).unwrap();
        worker.wait().unwrap();
        line.trim().parse::<f64>().unwrap()
    });
    sum.sum()
}

fn worker(url: &str) {
    let store = Store::open(&plan(url)).unwrap();
    let done = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = Instant::now();
    runtime.block_on(async {
        let talks: Vec<_> = (0..TALKS).map(|_| tokio::spawn(talk(store.clone(), begun, done.clone()))).collect();
        for talk in talks {
            talk.await.unwrap();
        }
    });
    println!("{}", done.load(Relaxed) as f64 / begun.elapsed().as_secs_f64());
    store.close();
}

async fn talk(store: Store, begun: Instant, done: Arc<AtomicU64>) {
    let visitor = || Principal::visitor(Some(std::net::Ipv4Addr::LOCALHOST.into()), None);
    let (message, reply) = ("What is the sea made of? ".repeat(4), "Mostly of water, and of some salt. ".repeat(8));
    while begun.elapsed() < MEASURED {
        let mut session = SessionRef::Issue;
        for _ in 0..TURNS {
            let key = SessionKey::new(session, visitor());
            let turn = store.begin(key, message.clone(), "anonymous".to_owned(), None).await.unwrap();
            store.finish(turn.turn, reply.clone(), Outcome::Complete).await.unwrap();
            session = SessionRef::Given(turn.session_id);
            done.fetch_add(1, Relaxed);
        }
    }
}

fn latencies(program: &str) {
    let home = Home::new();
    let mut places = vec![("sqlite", home.sqlite(), None)];
    if let Some(server) = Postgres::start(&["fsync=on", "shared_buffers=128MB"]) {
        places.push(("postgres", server.url(), Some(server)));
    }
    for (name, url, _server) in &places {
        let mut ms = latency(program, &home.0, url);
        ms.sort_by(f64::total_cmp);
        let at = |part: f64| ms[((ms.len() - 1) as f64 * part) as usize];
        println!("{name}_chat_p50 {:.2} ms", at(0.5));
        println!("{name}_chat_p99 {:.2} ms", at(0.99));
    }
}

/// Milliseconds of each request.
fn latency(program: &str, home: &Path, database: &str) -> Vec<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream_url = format!("http://{}/v1", upstream.local_addr().unwrap());
        tokio::spawn(serve(upstream));
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["serve", "--bind", &format!("127.0.0.1:{port}")]).current_dir(home).env_remove("CHATCORN_CACHE");
        command.env("CHAT_UPSTREAM", upstream_url).env("DATABASE_URL", database).env("RATE_LIMIT_ENABLED", "false");
        command.env("LOG_DIR", home.join("logs")).env("CONTROL_SOCKET", home.join("control.sock"));
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = tokio::time::Instant::now() + Duration::from_millis(100);
        let clients: Vec<_> = (0..CONNECTIONS).map(|client| tokio::spawn(ask(port, client, begun))).collect();
        let mut all = Vec::new();
        for client in clients {
            all.extend(client.await.unwrap());
        }
        let _ =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(server.id() as i32), nix::sys::signal::Signal::SIGTERM);
        server.wait().unwrap();
        all
    })
}

async fn ask(port: u16, client: u64, begun: tokio::time::Instant) -> Vec<f64> {
    let mut stream = tokio::io::BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    stream.get_ref().set_nodelay(true).unwrap();
    let mut ms = Vec::new();
    for number in 0.. {
        let due = begun + Duration::from_nanos((number * CONNECTIONS + client) * 1_000_000_000 / RATE);
        if due > begun + MEASURED {
            break;
        }
        tokio::time::sleep_until(due).await;
        let body = format!(r#"{{"message":"What is the sea made of?","session_id":"c{client}.{}"}}"#, number / 20);
        let head = "POST /api/chat HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length:";
        let sent = format!("{head} {}\r\n\r\n{body}", body.len());
        stream.get_mut().write_all(sent.as_bytes()).await.unwrap();
        let (head, _) = message(&mut stream).await.unwrap();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        ms.push(due.elapsed().as_secs_f64() * 1_000.0);
    }
    ms
}

/// Head in lower case and body of a message with a length.
async fn message(stream: &mut tokio::io::BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

async fn serve(listener: TcpListener) {
    let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
    let event = |choice: &str| {
        chunk(&format!(
            r#"{{"id":"x","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{choice}],"usage":null}}"#
        ))
    };
    let pieces = ["Mostly ", "of water, ", "and of salt."];
    let texts = pieces.map(|text| event(&format!(r#"{{"index":0,"delta":{{"content":"{text}"}}}}"#))).concat();
    let end = event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#);
    let answer = Arc::new(format!("{UPSTREAM}{texts}{end}{}0\r\n\r\n", chunk("[DONE]")));
    while let Ok((stream, _)) = listener.accept().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let mut stream = tokio::io::BufReader::new(stream);
            while message(&mut stream).await.is_some() {
                if stream.get_mut().write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}
