//! An OpenAI-compatible server that does as it is told.

use super::LIMIT;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Three pieces and the usage, at once.
    Instant,
    /// One piece, the rest when it is released.
    Held,
    /// Nothing at all.
    Silent,
    /// Nothing until it is released, then as `Instant`.
    Late,
    /// A 500 that holds a secret.
    Fails,
    /// One piece, then the end of the connection.
    Breaks,
    /// JSON that is no chunk.
    Junk,
    /// Bytes that are no HTTP.
    Noise,
    /// One piece, then an error event that holds a secret.
    ErrorEvent,
    /// One piece, then a line of 10 MiB.
    LongLine,
    /// Pieces without an end.
    Endless,
    /// A piece every 20 ms, without an end.
    Drips,
    /// One piece, then a reset of the connection.
    Resets,
    /// A 400 that names a field and holds a secret.
    Refuses,
    /// A 503 that asks for 7 s.
    Busy,
    /// The same for the first request of all, with 1 s; then as `Instant`.
    Mends,
    /// Instant; but it closes a connection when the second request comes on it, without a word.
    OnceEach,
    /// This text (escaped as in JSON) and nothing else.
    Says(&'static str),
    /// For [`super::Load`]: at once, but a message `drip` gets a piece every 20 ms for half a second.
    Load,
}

/// It listens until the test ends.
pub struct Upstream {
    /// For `CHAT_UPSTREAM`.
    pub url: String,
    /// Bodies of the requests that came.
    pub requests: Receiver<String>,
    /// Heads of the requests that came, in lower case.
    pub heads: Receiver<String>,
    /// A message whenever a client left before it was answered.
    pub left: Receiver<()>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Upstream {
    /// Starts it.
    pub fn start(way: Way) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (heard, requests) = channel();
        let (seen, heads) = channel();
        let (gone, left) = channel();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let inner = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heard, gone, gate) = ((seen.clone(), heard.clone()), gone.clone(), inner.clone());
                std::thread::spawn(move || serve(stream, way, &heard, &gone, &gate));
            }
        });
        Upstream { url, requests, heads, left, gate }
    }

    /// Lets what is held go on.
    pub fn release(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.release();
    }
}

type Heard = (Sender<String>, Sender<String>);

fn serve(stream: TcpStream, way: Way, heard: &Heard, gone: &Sender<()>, gate: &(Mutex<bool>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut served = false;
    while let Some((head, body)) = request(&mut reader) {
        let way = match way {
            Way::Load if body.contains(r#""drip""#) => Way::Load,
            Way::OnceEach if served => return,
            Way::Mends if std::mem::replace(&mut *gate.0.lock().unwrap(), true) => Way::Instant,
            Way::Load | Way::OnceEach => Way::Instant,
            way => way,
        };
        served = true;
        let models = head.starts_with("get /v1/models ");
        if heard.0.send(head).is_err() || heard.1.send(body.clone()).is_err() {
            return;
        }
        let way = match way {
            Way::Late if released_or_left(&stream, gone, gate) => Way::Instant,
            Way::Late => return,
            way => way,
        };
        let streams = body.replace(' ', "").contains(r#""stream":true"#);
        let answered = match way {
            Way::Instant if models => json(&stream, "200 OK", MODELS),
            Way::Instant if !streams => json(&stream, "200 OK", COMPLETION),
            Way::Held if !streams => {
                released_or_left(&stream, gone, gate).then(|| json(&stream, "200 OK", COMPLETION)).flatten()
            }
            way => answer(&stream, way, gone, gate),
        };
        if answered.is_none() {
            return;
        }
    }
}

/// The head in lower case, and the body.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let (mut length, mut head) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
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
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).ok()?))
}

const SECRET: &str =
    r#"{"error":{"message":"db 10.9.8.7 password=hunter2hunter2","type":"x","param":"top_k","code":"x"}}"#;
const MODELS: &str = r#"{"object":"list","data":[{"id":"fake","object":"model","created":1,"owned_by":"tests"}]}"#;
const COMPLETION: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"fake","choices":[{"index":0,"message":{"role":"assistant","content":"one two three"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10},"fingerprint":"kept"}"#;

fn json(mut stream: &TcpStream, status: &str, body: &str) -> Option<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).ok()
}

fn piece(text: &str) -> String {
    chunk(&format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#
    ))
}

fn answer(mut stream: &TcpStream, way: Way, gone: &Sender<()>, gate: &(Mutex<bool>, Condvar)) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let first = format!("{head}{}", piece("one "));
    let mut send = |text: &str| stream.write_all(text.as_bytes()).ok();
    match way {
        Way::Silent => return wait_for_leaving(stream, gone),
        Way::Fails => return json(stream, "500 X", SECRET),
        Way::Refuses => return json(stream, "400 X", SECRET),
        Way::Busy => return json(stream, "503 X", r#"{"error":{"message":"x","type":"x","code":"overloaded"}}"#),
        Way::Mends => {
            return send("HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n");
        }
        Way::Noise => return send("\u{1}\u{2} hello, this is no HTTP\r\n\r\n").and(None),
        Way::Junk => return send(&format!("{head}{}", chunk("[1,2]"))),
        Way::ErrorEvent => return send(&format!("{first}{}0\r\n\r\n", chunk(SECRET))),
        Way::LongLine => return send(&format!("{first}{}", chunk(&"x".repeat(10 << 20)))).and(None),
        Way::Breaks => return send(&first).and(None),
        Way::Resets => {
            send(&first)?;
            // Closing with a linger of nothing resets the connection.
            socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).ok()?;
            return None;
        }
        Way::Says(text) => {
            let text = format!("{head}{}{}0\r\n\r\n", piece(text), chunk("[DONE]"));
            return stream.write_all(text.as_bytes()).ok();
        }
        Way::Endless => {
            send(&first)?;
            let many = piece("more ").repeat(64);
            while stream.write_all(many.as_bytes()).is_ok() {}
            let _ = gone.send(());
            return None;
        }
        Way::Drips => {
            send(&first)?;
            while send(&piece("drop ")).is_some() {
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
            let _ = gone.send(());
            return None;
        }
        Way::Held => {
            send(&first)?;
            if !released_or_left(stream, gone, gate) {
                return None;
            }
        }
        Way::Load => {
            send(head)?;
            for _ in 0..25 {
                send(&piece("drop "))?;
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
        }
        Way::Instant | Way::OnceEach | Way::Late => send(&first)?,
    }
    let usage = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
    let finish = r#"{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"fake","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let rest =
        format!("{}{}{}{}{}0\r\n\r\n", piece("two "), piece("three"), chunk(finish), chunk(usage), chunk("[DONE]"));
    stream.write_all(rest.as_bytes()).ok()
}

fn chunk(data: &str) -> String {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

fn wait_for_leaving(mut stream: &TcpStream, gone: &Sender<()>) -> Option<()> {
    let mut byte = [0];
    stream.set_read_timeout(Some(LIMIT)).ok()?;
    if matches!(stream.read(&mut byte), Ok(0) | Err(_)) {
        let _ = gone.send(());
    }
    None
}

/// Watches both: the gate, and whether the other side has closed.
fn released_or_left(mut stream: &TcpStream, gone: &Sender<()>, gate: &(Mutex<bool>, Condvar)) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut open = gate.0.lock().unwrap();
    loop {
        if *open {
            stream.set_nonblocking(false).unwrap();
            return true;
        }
        if let Ok(0) = stream.read(&mut [0]) {
            let _ = gone.send(());
            return false;
        }
        open = gate.1.wait_timeout(open, std::time::Duration::from_millis(5)).unwrap().0;
    }
}
