//! What stands before and behind the chat API when `bin/bench` measures it: an upstream that answers at once, and clients.
//!
//! ```text
//! instant serve ADDRESS                       an OpenAI-compatible upstream; the model's name says how it answers
//! instant rate ADDRESS CONNECTIONS SECONDS    closed loop, one request a connection at a time: requests/s
//! instant pace ADDRESS RATE SECONDS [PATH]    open loop at RATE requests/s: p50, p99 in milliseconds, failures
//! instant chunks ADDRESS MODEL CONNECTIONS SECONDS    streams without a pause: chunks/s
//! instant hold ADDRESS STREAMS                opens streams and holds them until its stdin ends
//! ```
//! Models: `burst` sends 2,000 chunks as fast as they are taken, `paced` writes each by itself, `held` one and then
//! nothing, anything else one answer. Bytes are compared, nothing is parsed: neither end may be the bottleneck.

use memchr::memmem;
use std::error::Error;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Failed = Box<dyn Error + Send + Sync>;

const CHUNKS: usize = 2_000;
/// Chunks of a burst that go in one write.
const BATCH: usize = 50;
const CHUNK: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"fake\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n";
const LAST: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"fake\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const WHOLE: &str = "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"fake\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"one two three\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"total_tokens\":10}}";
const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match words.as_slice() {
            ["serve", address] => serve(address).await,
            ["rate", address, connections, seconds] => rate(address, connections.parse()?, seconds.parse()?).await,
            ["pace", address, rate, seconds] => {
                pace(address, rate.parse()?, seconds.parse()?, "/v1/chat/completions").await
            }
            ["pace", address, rate, seconds, path] => pace(address, rate.parse()?, seconds.parse()?, path).await,
            ["chunks", address, model, connections, seconds] => {
                chunks(address, model, connections.parse()?, seconds.parse()?).await
            }
            ["hold", address, streams] => hold(address, streams.parse()?).await,
            _ => Err("usage: see the top of benches/instant.rs".into()),
        }
    })
}

async fn serve(address: &str) -> Result<(), Failed> {
    let listener = TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(converse(stream));
    }
}

async fn converse(mut stream: TcpStream) -> Result<(), Failed> {
    let whole =
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{WHOLE}", WHOLE.len());
    let mut held = Vec::with_capacity(8 << 10);
    loop {
        let Some(request) = message(&mut stream, &mut held).await? else { return Ok(()) };
        let has = |text: &str| memmem::find(&request, text.as_bytes()).is_some();
        if has("\"burst\"") {
            burst(&mut stream).await?;
        } else if has("\"paced\"") {
            paced(&mut stream).await?;
        } else if has("\"held\"") {
            stream.write_all(format!("{STREAM_HEAD}{}", framed(CHUNK)).as_bytes()).await?;
        } else if has("\"stream\":true") {
            let text = format!("{STREAM_HEAD}{}{}0\r\n\r\n", framed(CHUNK), framed(LAST));
            stream.write_all(text.as_bytes()).await?;
        } else {
            stream.write_all(whole.as_bytes()).await?;
        }
    }
}

async fn burst(stream: &mut TcpStream) -> Result<(), Failed> {
    let batch = framed(CHUNK).repeat(BATCH);
    stream.write_all(STREAM_HEAD.as_bytes()).await?;
    for _ in 0..CHUNKS / BATCH {
        stream.write_all(batch.as_bytes()).await?;
    }
    Ok(stream.write_all(format!("{}0\r\n\r\n", framed(LAST)).as_bytes()).await?)
}

/// Others run between two chunks, so each arrives by itself when the reader keeps up.
async fn paced(stream: &mut TcpStream) -> Result<(), Failed> {
    let chunk = framed(CHUNK);
    stream.write_all(STREAM_HEAD.as_bytes()).await?;
    for _ in 0..CHUNKS {
        stream.write_all(chunk.as_bytes()).await?;
        tokio::task::yield_now().await;
    }
    Ok(stream.write_all(format!("{}0\r\n\r\n", framed(LAST)).as_bytes()).await?)
}

fn framed(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// The next request or answer with a length, whole; `None` at the end of the connection.
async fn message(stream: &mut TcpStream, held: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Failed> {
    loop {
        if let Some(end) = memmem::find(held, b"\r\n\r\n") {
            let total = end + 4 + length(&held[..end]);
            if held.len() >= total {
                let rest = held.split_off(total);
                return Ok(Some(std::mem::replace(held, rest)));
            }
        }
        if stream.read_buf(held).await? == 0 {
            return Ok(None);
        }
    }
}

fn length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length: ";
    let lower = head.to_ascii_lowercase();
    let digits = memmem::find(&lower, NAME).map_or(&[][..], |at| &lower[at + NAME.len()..]);
    digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, byte| sum * 10 + usize::from(byte - b'0'))
}

fn request(path: &str, model: &str, stream: bool) -> String {
    let body = match path {
        "/api/chat" => r#"{"message":"Write one sentence about the sea.","context_mode":"fresh"}"#.to_owned(),
        _ => format!(
            r#"{{"model":"{model}","stream":{stream},"messages":[{{"role":"user","content":"Write one sentence about the sea."}}]}}"#
        ),
    };
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

async fn ask(stream: &mut TcpStream, held: &mut Vec<u8>, request: &str) -> Result<(), Failed> {
    stream.write_all(request.as_bytes()).await?;
    let answer = message(stream, held).await?.ok_or("the connection was closed")?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&answer).into_owned().into()),
    }
}

async fn connect(address: &str) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn rate(address: &str, connections: usize, seconds: f64) -> Result<(), Failed> {
    let (asked, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs_f64(seconds));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (mut stream, asked) = (connect(address).await?, asked.clone());
        clients.spawn(async move {
            let (request, mut held) = (request("/v1/chat/completions", "any", false), Vec::with_capacity(8 << 10));
            while Instant::now() < end {
                ask(&mut stream, &mut held, &request).await?;
                asked.fetch_add(1, Relaxed);
            }
            Ok::<_, Failed>(())
        });
    }
    let began = Instant::now();
    while let Some(done) = clients.join_next().await {
        done??;
    }
    println!("{:.0}", asked.load(Relaxed) as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

/// Each request has its time, and its latency counts from there.
async fn pace(address: &str, rate: u64, seconds: u64, path: &str) -> Result<(), Failed> {
    const CONNECTIONS: u64 = 50;
    let began = tokio::time::Instant::now() + Duration::from_millis(200);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CONNECTIONS {
        let (mut stream, request) = (connect(address).await?, request(path, "any", false));
        let address = address.to_owned();
        clients.spawn(async move {
            let (mut held, mut times, mut failed) = (Vec::with_capacity(8 << 10), Vec::new(), 0u64);
            for turn in 0..rate * seconds / CONNECTIONS {
                let due = began + Duration::from_nanos((turn * CONNECTIONS + number) * 1_000_000_000 / rate);
                tokio::time::sleep_until(due).await;
                // The runtime's timer counts whole milliseconds; that is not the server's.
                let sent = tokio::time::Instant::now();
                if ask(&mut stream, &mut held, &request).await.is_err() {
                    failed += 1;
                    stream = connect(&address).await?;
                    held.clear();
                }
                times.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            Ok::<_, Failed>((times, failed))
        });
    }
    let (mut times, mut failed) = (Vec::new(), 0);
    while let Some(done) = clients.join_next().await {
        let (more, some) = done??;
        times.extend(more);
        failed += some;
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{:.3} {:.3} {failed}", at(0.5), at(0.99));
    Ok(())
}

async fn chunks(address: &str, model: &str, connections: usize, seconds: f64) -> Result<(), Failed> {
    let (seen, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs_f64(seconds));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let (mut stream, seen) = (connect(address).await?, seen.clone());
        let request = request("/v1/chat/completions", model, true);
        clients.spawn(async move {
            let mut bytes = Vec::with_capacity(256 << 10);
            while Instant::now() < end {
                stream.write_all(request.as_bytes()).await?;
                loop {
                    // What is cut at the end of a read is looked for again in the next.
                    let kept = bytes.len().min(16);
                    bytes.drain(..bytes.len() - kept);
                    let before = memmem::find_iter(&bytes, b"\" word\"").count();
                    if stream.read_buf(&mut bytes).await? == 0 {
                        return Err("the connection was closed".into());
                    }
                    let now = memmem::find_iter(&bytes, b"\" word\"").count();
                    seen.fetch_add((now - before) as u64, Relaxed);
                    if bytes.ends_with(b"0\r\n\r\n") {
                        bytes.clear();
                        break;
                    }
                }
            }
            Ok::<_, Failed>(())
        });
    }
    let began = Instant::now();
    while let Some(done) = clients.join_next().await {
        done??;
    }
    println!("{:.0}", seen.load(Relaxed) as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

async fn hold(address: &str, streams: usize) -> Result<(), Failed> {
    let mut held = Vec::new();
    for _ in 0..streams {
        let mut stream = connect(address).await?;
        stream.write_all(request("/v1/chat/completions", "held", true).as_bytes()).await?;
        let mut bytes = Vec::with_capacity(1 << 10);
        while memmem::find(&bytes, b" word").is_none() {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err("the connection was closed".into());
            }
        }
        held.push(stream);
    }
    println!("{}", held.len());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
