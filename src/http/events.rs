//! A turn as Server-Sent Events, pumped by a task of its own.

use super::body::Body;
use super::fault::{Fault, Shape};
use super::ids::Id;
use super::spend::Spend;
use crate::chat::error::Error;
use crate::chat::upstream::KEEP_ALIVE;
use crate::chat::{Delta, Turn};
use bytes::Bytes;
use serde::Serialize;
use std::pin::Pin;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout, timeout_at};

/// Shows proxies that the connection lives.
pub const COMMENT: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// A reply that begins later.
pub type Opening<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// A stream whose head can go out.
pub enum Opened<T> {
    /// The reply has begun.
    Now(T),
    /// It has not, but proxies want to see something.
    Later(Opening<T>),
}

/// Waits for the first token, so that a failure before it has its own status and another upstream can be asked; but not
/// longer than a silence may last: then the head goes out, and what fails after that is an event.
///
/// # Errors
/// What fails until then.
pub async fn open<T>(opening: impl Future<Output = Result<T, Error>> + Send + 'static) -> Result<Opened<T>, Error> {
    let mut opening: Opening<T> = Box::pin(opening);
    match timeout(KEEP_ALIVE, opening.as_mut()).await {
        Ok(opened) => opened.map(Opened::Now),
        Err(_) => Ok(Opened::Later(opening)),
    }
}

/// Starts the pump; what it sends is the body. A reader that is slower than `until` allows is given up.
pub fn start(opened: Opened<Turn>, id: Id, until: Instant, spend: Spend) -> Body {
    let (sender, body) = Body::stream();
    tokio::spawn(async move {
        let pumping = async {
            match opened {
                Opened::Now(turn) => pump(turn, &sender, id.text(), spend).await,
                Opened::Later(opening) => match late(opening, &sender).await {
                    Some(Ok(turn)) => pump(turn, &sender, id.text(), spend).await,
                    Some(Err(error)) => drop(sender.send(failure(error, id.text())).await),
                    None => {}
                },
            }
        };
        // Either limit drops the turn, which cancels the upstream's call and stores what there is.
        let _ = timeout_at(until + KEEP_ALIVE, pumping).await;
    });
    body
}

/// Comments until the reply begins; `None` when nobody reads any more.
async fn late(mut opening: Opening<Turn>, sender: &Sender<Bytes>) -> Option<Result<Turn, Error>> {
    loop {
        sender.send(COMMENT).await.ok()?;
        tokio::select! {
            biased;
            () = sender.closed() => return None,
            opened = timeout(KEEP_ALIVE, opening.as_mut()) => if let Ok(opened) = opened {
                return Some(opened);
            },
        }
    }
}

/// Ends when the reply does, or when nobody reads any more.
async fn pump(mut turn: Turn, sender: &Sender<Bytes>, id: &str, mut spend: Spend) {
    loop {
        let next = tokio::select! {
            biased;
            () = sender.closed() => return,
            next = timeout(KEEP_ALIVE, turn.next(id)) => next.map(|next| next.map(|delta| spend.passes(delta))),
        };
        let (event, last) = match next {
            Err(_) => (COMMENT, false),
            Ok(Ok(Delta::Text(delta))) => (event("", &DeltaEvent { delta: &delta }), false),
            Ok(Ok(Delta::Done(reply))) => (event("done", &reply), true),
            Ok(Err(error)) => (failure(error, id), true),
        };
        if sender.send(event).await.is_err() || last {
            return;
        }
    }
}

#[derive(Serialize)]
struct DeltaEvent<'a> {
    delta: &'a str,
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let mut bytes = Vec::with_capacity(64);
    if !name.is_empty() {
        bytes.extend_from_slice(b"event: ");
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(b"data: ");
    // JSON has no raw newline, so the data is one line.
    let written = serde_json::to_writer(&mut bytes, data);
    debug_assert!(written.is_ok());
    bytes.extend_from_slice(b"\n\n");
    Bytes::from(bytes)
}

fn failure(error: Error, id: &str) -> Bytes {
    ended(b"event: error\ndata: ", error, id, Shape::Own)
}

/// The last chunk of a `/v1` stream that failed: the libraries raise on it.
pub fn error_chunk(error: Error, id: &str) -> Bytes {
    ended(b"data: ", error, id, Shape::OpenAi)
}

fn ended(start: &[u8], error: Error, id: &str, shape: Shape) -> Bytes {
    let fault = Fault::from(error);
    log_fault(&fault, id);
    let mut bytes = start.to_vec();
    bytes.extend_from_slice(&fault.body(id, shape));
    bytes.extend_from_slice(b"\n\n");
    Bytes::from(bytes)
}

/// What of a failure is for the log.
pub fn log_fault(fault: &Fault, id: &str) {
    let code = fault.code.as_str();
    match (&fault.inside, fault.code.status().is_server_error()) {
        (Some(inside), true) => tracing::warn!(request_id = id, code, inside = inside.as_str(), "request failed"),
        (Some(inside), false) => tracing::debug!(request_id = id, code, inside = inside.as_str(), "request refused"),
        (None, _) => {}
    }
}
