//! Commands for the operator that talk to a running server or filter text; beside `config` at the top of the ladder.

mod ask;
pub mod audit;
pub mod chat;
pub mod key;
mod keyboard;
pub mod limits;
pub mod logs;
pub mod order;
pub mod server;
pub mod sessions;
mod table;

mod wire;

use server::Server;
use std::io;
use std::path::Path;
use std::time::Duration;
use wire::{Most, Trust};

/// A server that does not answer by then is not alive; the status line and more.
const ANSWER_MOST: Most = Most { bytes: 512, time: Duration::from_secs(3) };
/// What a balancer says of itself (haproxy's `proxy-protocol.txt`).
const PROXY_UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// `chatcorn healthcheck`: asks `/healthz`, of our own server by the certificate that it is configured with.
///
/// # Errors
/// A sentence: nobody listens, no answer in time, another status than 200.
pub fn healthcheck(server: &Server, certfile: Option<&Path>, proxy_protocol: bool) -> Result<(), String> {
    let trust = certfile.map(Trust::own).transpose()?;
    let trust = trust.or_else(|| server.is_tls().then_some(Trust::System));
    let status = match ask(server, trust.as_ref(), proxy_protocol) {
        Err(error) if matches!(trust, Some(Trust::Own(_))) && error.kind() == io::ErrorKind::InvalidData => {
            // Alive is alive: nothing secret was asked, and the file may be newer than what is served.
            eprintln!(
                "chatcorn: {server} shows another certificate than its file holds: chatcorn reload takes that over"
            );
            ask(server, Some(&Trust::Any), proxy_protocol)
        }
        answered => answered,
    };
    let status = status.map_err(|error| format!("{server} does not answer: {error}"))?;
    if status.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("{server} answered {status}")) }
}

fn ask(server: &Server, trust: Option<&Trust>, proxy_protocol: bool) -> io::Result<String> {
    let (host, base) = (&server.authority, &server.base);
    let request = format!("GET {base}/healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let before = if proxy_protocol { PROXY_UNKNOWN } else { b"" };
    let answer = wire::exchange_after(before, server, trust, request.as_bytes(), ANSWER_MOST)?;
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or("nothing").to_owned())
}
