//! One connection's life: requests one after the other until it is idle for too long, broken, or the worker leaves.
//!
//! No timer belongs to a connection: its ledger tells what it waits for, and the lane's [`Connections::sweep`] ends
//! those that are overdue.

use super::App;
use super::strict::{Ledger, Strict, Times};
use crate::limit::Peer;
use crate::listener::Purpose;
use crate::sys::clock;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
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

/// Serves one connection to its end.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(app: Arc<App>, peer: (Peer, Purpose), stream: S) {
    let (number, ledger) = app.connections.enter();
    let _entry = Entry { connections: &app.connections, number };
    let service = service_fn(|request| {
        let (app, ledger) = (app.clone(), ledger.clone());
        async move { app.serve(peer, ledger, request).await }
    });
    let limits = app.plan.head;
    let connection = http1::Builder::new()
        // The filter counts fields and bytes before hyper sees them, so hyper's own limits only have to be wider.
        .max_buf_size(limits.head_bytes_max * 2)
        .max_headers(limits.fields_max + 1)
        .serve_connection(Strict::new(stream, limits, ledger.clone()), service);
    let mut connection = std::pin::pin!(connection);
    let (mut known, mut shut) = (false, false);
    // An error here is the peer's doing (it left, or sent what is no HTTP) and has its access line where there was
    // a request.
    let _ = poll_fn(|cx| {
        if !known {
            // A task keeps its waker, so once is enough.
            known = true;
            app.connections.wake_by(number, cx.waker());
        }
        if app.leaving.shutting() && !shut {
            shut = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
}
