//! Commands for the operator that talk to a running server or filter text; beside `config` at the top of the ladder.

mod ask;
pub mod audit;
pub mod chat;
pub mod key;
pub mod limits;
pub mod logs;
pub mod order;
pub mod server;
pub mod sessions;
mod table;

use crate::listener::Address;
use server::reachable;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A server that does not answer by then is not alive.
const LIMIT: Duration = Duration::from_secs(3);
/// The status line and more.
const ANSWER_BYTES_MAX: u64 = 512;

/// `chatcorn healthcheck`: asks `/healthz` at the first address that the configuration binds.
///
/// # Errors
/// A sentence: nobody listens, no answer in time, another status than 200.
pub fn healthcheck(address: &Address) -> Result<(), String> {
    let told = |error: io::Error| format!("{address} does not answer: {error}");
    let status = match address.plain() {
        Address::Admin(_) => return Err(format!("{address} is not for the public")),
        Address::Tcp(tcp) => {
            let stream = TcpStream::connect_timeout(&reachable(*tcp), LIMIT).map_err(told)?;
            stream.set_read_timeout(Some(LIMIT)).and_then(|()| ask(stream)).map_err(told)?
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).map_err(told)?;
            stream.set_read_timeout(Some(LIMIT)).and_then(|()| ask(stream)).map_err(told)?
        }
    };
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{address} answered {status}")) }
}

fn ask(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or("nothing").to_owned())
}
