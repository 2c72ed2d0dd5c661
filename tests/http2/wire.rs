//! A client that sends the frames it is told to, and tells frames that come apart.

use crate::support::LIMIT;
use std::io::{Read, Write};
use std::net::TcpStream;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET http t /healthz` by HPACK's static table and literals that nobody remembers.
pub const GET: &[u8] = b"\x82\x86\x04\x08/healthz\x01\x01t";
/// `POST http t /api/chat`, of JSON.
pub const POST: &[u8] = b"\x83\x86\x04\x09/api/chat\x01\x01t\x0f\x10\x10application/json";

pub const PROTOCOL: u32 = 1;
pub const FLOW_CONTROL: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE: u32 = 6;
pub const COMPRESSION: u32 = 9;

/// What must come.
#[derive(Clone, Copy, Debug)]
pub enum Expect {
    /// A GOAWAY with one of these codes, or the connection's end.
    Connection(&'static [u32]),
    /// A RST_STREAM or a GOAWAY with one of these codes, or the connection's end.
    Stream(&'static [u32]),
    /// One of the above, or an answer that is a 4xx.
    Refused,
    /// A 2xx of this stream.
    Served(u32),
    /// The answer to a PING: all before it was borne.
    Pong,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Status(u32, u16),
    /// Bytes of a stream, and whether they are its last.
    Data(u32, usize, bool),
    Reset(u32),
    Goaway(u32),
    Pong,
    Other(u8),
    Closed,
}

impl Expect {
    pub fn is_met(self, said: &Said) -> bool {
        match (self, said) {
            (Expect::Connection(codes), Said::Goaway(code)) => codes.contains(code),
            (Expect::Stream(codes), Said::Goaway(code) | Said::Reset(code)) => codes.contains(code),
            (Expect::Refused, Said::Goaway(code) | Said::Reset(code)) => *code != 0,
            (Expect::Refused, Said::Status(_, status)) => (400..500).contains(status),
            (Expect::Connection(_) | Expect::Stream(_) | Expect::Refused, Said::Closed) => true,
            (Expect::Served(wanted), Said::Status(stream, status)) => wanted == *stream && (200..300).contains(status),
            (Expect::Pong, Said::Pong) => true,
            _ => false,
        }
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One connection, and every payload that came.
pub struct Client {
    stream: TcpStream,
    pub seen: Vec<u8>,
}

impl Client {
    pub fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, seen: Vec::new() }
    }

    /// Connects and sends the preface with empty SETTINGS.
    pub fn open(address: &str) -> Client {
        let mut client = Client::connect(address);
        client.send(&[PREFACE, &frame(4, 0, 0, b"")].concat());
        client
    }

    /// The server may have closed before all is sent.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Everything that comes, up to what is waited for.
    pub fn until(&mut self, enough: impl Fn(&Said) -> bool) -> Vec<Said> {
        let mut all = Vec::new();
        loop {
            let said = self.next();
            let done = enough(&said) || said == Said::Closed;
            all.push(said);
            if done {
                return all;
            }
        }
    }

    fn next(&mut self) -> Said {
        let mut head = [0; 9];
        if self.stream.read_exact(&mut head).is_err() {
            return Said::Closed;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        if self.stream.read_exact(&mut payload).is_err() {
            return Said::Closed;
        }
        self.seen.extend_from_slice(&payload);
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match (head[3], head[4]) {
            (0, flags) => Said::Data(stream, length, flags & 1 == 1),
            (1, _) => Said::Status(stream, status(&payload)),
            (3, _) => Said::Reset(code(0)),
            (6, 1) => Said::Pong,
            (7, _) => Said::Goaway(code(4)),
            (kind, _) => Said::Other(kind),
        }
    }
}

/// The status of a connection's first answer: no table holds one yet.
fn status(block: &[u8]) -> u16 {
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        [0x48 | 0x08 | 0x18, length, text @ ..] if length & 0x80 == 0 => {
            digits(text[..3].iter().map(|byte| byte - b'0'))
        }
        [0x48 | 0x08 | 0x18, _, text @ ..] => digits(huffman(text)),
        _ => 0,
    }
}

fn digits(digits: impl IntoIterator<Item = u8>) -> u16 {
    digits.into_iter().take(3).fold(0, |number, digit| number * 10 + u16::from(digit))
}

/// Digits in Huffman's code: 0 to 2 have five bits, 3 to 9 have six, from 0x19 on.
fn huffman(bytes: &[u8]) -> Vec<u8> {
    let bits: u64 =
        bytes.iter().take(4).fold(0, |bits, byte| bits << 8 | u64::from(*byte)) << (32 - 8 * bytes.len().min(4));
    let (mut at, mut digits) = (32, Vec::new());
    while digits.len() < 3 {
        match bits >> (at - 5) & 31 {
            five @ 0..=2 => {
                digits.push(five as u8);
                at -= 5;
            }
            _ => {
                digits.push((bits >> (at - 6) & 63) as u8 - 0x19 + 3);
                at -= 6;
            }
        }
    }
    digits
}
