//! A client that never retries: what it gets is what happened.

use super::LIMIT;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// One connection.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: String,
}

impl Answer {
    /// An answer as curl shows it with `-i`; `None` when it is none.
    pub fn parse(shown: &[u8]) -> Option<Answer> {
        let text = std::str::from_utf8(shown).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let field =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Some(Answer { status, headers: lines.filter_map(field).collect(), body: body.to_owned() })
    }

    /// The header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

impl Connection {
    /// Connects.
    pub fn open(address: &str) -> Connection {
        Connection::try_open(address).unwrap()
    }

    /// Connects, or says why not.
    pub fn try_open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// A GET and its answer.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n"))?;
        self.answer()
    }

    /// A POST with a JSON body and its answer.
    pub fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.send(post(path, body))?;
        self.answer()
    }

    /// Reads one answer whole; a stream is read to its end.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        if matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let body = match length {
            Some(length) => {
                let mut body = vec![0; length];
                self.stream.read_exact(&mut body)?;
                body
            }
            None => self.chunks()?,
        };
        answer.body = String::from_utf8(body).unwrap();
        Ok(answer)
    }

    /// Reads the head alone.
    pub fn head(&mut self) -> io::Result<Answer> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        Ok(Answer { status, headers, body: String::new() })
    }

    /// The next non-empty line of a stream's data, whatever its chunk.
    pub fn event_line(&mut self) -> io::Result<String> {
        loop {
            let line = self.line()?;
            if line.starts_with("data:") || line.starts_with("event:") || line.starts_with(':') {
                return Ok(line);
            }
        }
    }

    /// True when the server has closed.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.fill_buf(), Ok([]) | Err(_))
    }

    /// Waits for the connection's end: an error when it was a reset, or when something else came.
    pub fn end(&mut self) -> io::Result<()> {
        match self.stream.fill_buf()? {
            [] => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            self.stream.read_exact(&mut chunk)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
}

/// A POST as it goes over the wire.
pub fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
