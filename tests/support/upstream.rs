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
    /// A 500 that holds a secret.
    Fails,
    /// One piece, then the end of the connection.
    Breaks,
    /// JSON that is no chunk.
    Junk,
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
        let (gone, left) = channel();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let inner = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heard, gone, gate) = (heard.clone(), gone.clone(), inner.clone());
                std::thread::spawn(move || serve(stream, way, &heard, &gone, &gate));
            }
        });
        Upstream { url, requests, left, gate }
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

fn serve(stream: TcpStream, way: Way, heard: &Sender<String>, gone: &Sender<()>, gate: &(Mutex<bool>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(body) = request(&mut reader) {
        let way = match way {
            Way::Load if body.contains(r#""drip""#) => Way::Load,
            Way::Load => Way::Instant,
            way => way,
        };
        if heard.send(body).is_err() || answer(&stream, way, gone, gate).is_none() {
            return;
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn answer(mut stream: &TcpStream, way: Way, gone: &Sender<()>, gate: &(Mutex<bool>, Condvar)) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let piece =
        |text: &str| chunk(&format!(r#"{{"model":"fake","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#));
    match way {
        Way::Silent => return wait_for_leaving(stream, gone),
        Way::Fails => {
            let body = r#"{"error":{"message":"db 10.9.8.7 password=hunter2hunter2","type":"x","code":"x"}}"#;
            let length = body.len();
            let text =
                format!("HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
            return stream.write_all(text.as_bytes()).ok();
        }
        Way::Says(text) => {
            let text = format!("{head}{}{}0\r\n\r\n", piece(text), chunk("[DONE]"));
            return stream.write_all(text.as_bytes()).ok();
        }
        Way::Junk => return stream.write_all(format!("{head}{}", chunk("[1,2]")).as_bytes()).ok(),
        Way::Breaks => {
            stream.write_all(format!("{head}{}", piece("half")).as_bytes()).ok()?;
            return None;
        }
        Way::Held => {
            stream.write_all(format!("{head}{}", piece("one ")).as_bytes()).ok()?;
            if !released_or_left(stream, gone, gate) {
                return None;
            }
        }
        Way::Load => {
            stream.write_all(head.as_bytes()).ok()?;
            for _ in 0..25 {
                stream.write_all(piece("drop ").as_bytes()).ok()?;
                std::thread::park_timeout(std::time::Duration::from_millis(20));
            }
        }
        Way::Instant => stream.write_all(format!("{head}{}", piece("one ")).as_bytes()).ok()?,
    }
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
    let finish = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
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
