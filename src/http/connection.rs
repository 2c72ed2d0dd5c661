//! One connection's life: requests one after the other until it is idle for too long, broken, or the worker leaves.
//!
//! ```text
//! accepted ─▶ hyper answers ──(idle for a second)──▶ rests: the filter alone waits for more ──▶ hyper answers …
//! ```
//! No timer belongs to a connection: its ledger tells what it waits for, and the lane's [`Connections::sweep`] ends
//! those that are overdue and lays to rest those that are idle. hyper holds two buffers of 8 KiB for each connection.

use super::App;
use super::strict::{Ledger, Strict, Times};
use crate::limit::Peer;
use crate::listener::Purpose;
use crate::sys::clock;
use hyper::rt::Write;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite};

/// The connections of one lane, so that one sweep a second can look at all of them.
#[derive(Default)]
pub struct Connections {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    last: u64,
    here: BTreeMap<u64, (Arc<Ledger>, Option<Waker>)>,
}

impl Connections {
    /// Orders every overdue connection to end.
    pub fn sweep(&self, times: &Times) {
        let now_ms = clock::monotonic_ms();
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (ledger, _) in open.here.values() {
            ledger.sweep(now_ms, times);
        }
    }

    /// Wakes every connection, so that it sees that the worker leaves.
    pub fn wake(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.here.values().filter_map(|(_, waker)| waker.as_ref()).for_each(Waker::wake_by_ref);
    }

    fn wake_by(&self, number: u64, waker: &Waker) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = open.here.get_mut(&number) {
            *known = Some(waker.clone());
        }
    }

    fn enter(&self) -> (u64, Arc<Ledger>) {
        let ledger = Arc::new(Ledger::new(clock::monotonic_ms()));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.last += 1;
        let number = open.last;
        open.here.insert(number, (ledger.clone(), None));
        (number, ledger)
    }

    fn leave(&self, number: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).here.remove(&number);
    }
}

/// Takes the connection out of the sweep however it ends.
struct Entry<'a> {
    connections: &'a Connections,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.connections.leave(self.number);
    }
}

/// Serves one connection to its end. While it is idle for longer than a moment, nothing of hyper's is held for it.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(app: Arc<App>, peer: (Peer, Purpose), stream: S) {
    let (number, ledger) = app.connections.enter();
    let _entry = Entry { connections: &app.connections, number };
    let mut stream = Strict::new(stream, app.plan.head, ledger.clone());
    // A task keeps its waker, so once is enough.
    poll_fn(|cx| {
        app.connections.wake_by(number, cx.waker());
        Poll::Ready(())
    })
    .await;
    while let Some(resting) = answer(&app, peer, &ledger, stream).await {
        stream = resting;
        let more = poll_fn(|cx| match app.leaving.shutting() {
            true => Poll::Ready(Ok(false)),
            false => stream.poll_more(cx),
        });
        let more = more.await;
        ledger.rest_ends();
        match more {
            Ok(true) => {}
            Ok(false) => {
                let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
                return;
            }
            Err(_) => return,
        }
    }
}

/// Answers requests until the connection rests (then it is given back) or has ended.
async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send>(
    app: &Arc<App>,
    peer: (Peer, Purpose),
    ledger: &Arc<Ledger>,
    stream: Strict<S>,
) -> Option<Strict<S>> {
    let service = service_fn(|request| {
        let (app, ledger) = (app.clone(), ledger.clone());
        async move { app.serve(peer, ledger, request).await }
    });
    let limits = app.plan.head;
    let connection = http1::Builder::new()
        // The filter counts fields and bytes before hyper sees them, so hyper's own limits only have to be wider.
        .max_buf_size(limits.head_bytes_max * 2)
        // Up to 100 of them are read without an allocation.
        .max_headers(limits.fields_max)
        // Head and body in one buffer: a copy of a short answer costs less than a second piece for the kernel.
        .writev(false)
        .serve_connection(stream, service);
    // Of its own, so that it is gone while the connection rests.
    let mut connection = Box::new(connection);
    let mut shut = false;
    // An error here is the peer's doing (it left, or sent what is no HTTP) and has its access line where there was
    // a request.
    let ended = poll_fn(|cx| {
        let rests = !shut && ledger.rests();
        if (rests || app.leaving.shutting()) && !shut {
            shut = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        let ended = Pin::new(&mut *connection).poll(cx);
        if rests && ended.is_pending() {
            // It was not idle after all: it ends with its next answer, and then really.
            ledger.rest_ends();
        }
        ended
    })
    .await;
    let parts = ended.is_ok().then(|| connection.into_parts())?;
    if ledger.at_rest() {
        return parts.read_buf.is_empty().then_some(parts.io);
    }
    // After a request that would have liked an upgrade hyper gives the stream back as it is.
    let mut stream = parts.io;
    if !stream.is_shut() {
        let _ = poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await;
    }
    None
}
