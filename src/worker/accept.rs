//! Accepting: the least busy loop takes the connection that waits, and holds its permit until it is closed.
//!
//! The kernel wakes every loop that watches a listening socket, so a loop that is not needed yet (the second one of a
//! worker) does not watch: it sleeps until the first has its lead, or stands still.

use super::balance::Balance;
use crate::board::Lane;
use crate::http::{App, front};
use crate::limit::Peer;
use crate::listener::{Gate, Purpose};
use crate::sys::{clock, readiness};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, watch};

/// Who declined looks again after so long, or when one of its own connections has ended.
const RECHECK: Duration = Duration::from_millis(1);
/// A loop that is not needed looks so often whether the first one of its worker still turns.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a refusal of the kernel (out of descriptors, out of memory).
const RETRY: Duration = Duration::from_millis(100);

/// The loops of one worker, as they call each other to the door.
#[derive(Clone)]
pub struct Crew {
    /// One bell a loop.
    pub bells: Arc<[Notify]>,
    /// Whose copy this is.
    pub own: usize,
}

impl Crew {
    fn call_the_others(&self) {
        self.bells.iter().enumerate().filter(|(number, _)| *number != self.own).for_each(|(_, bell)| bell.notify_one());
    }

    /// Returns when this loop is called, or after so long.
    async fn called(&self, longest: Duration) {
        let _ = tokio::time::timeout(longest, self.bells[self.own].notified()).await;
    }
}

/// Accepts from one listening socket until `stop` turns true.
///
/// # Errors
/// The socket cannot be watched.
pub async fn run(
    door: Gate,
    app: Arc<App>,
    (lane, crew): (Lane, Crew),
    mut balance: Balance,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let Gate { mut socket, purpose } = door;
    let accepting = async {
        loop {
            while !balance.needed(clock::monotonic_ms()) {
                crew.called(LOOK_EVERY).await;
            }
            let listener = readiness::watch(socket)?;
            accept(&listener, purpose, &app, (lane, &crew), &mut balance).await;
            socket = listener.into_inner();
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        failed = accepting => failed,
    }
}

/// Accepts for as long as this loop is needed.
async fn accept(
    listener: &AsyncFd<Socket>,
    purpose: Purpose,
    app: &Arc<App>,
    (lane, crew): (Lane, &Crew),
    balance: &mut Balance,
) {
    while let Ok(mut ready) = listener.readable().await {
        let now = clock::monotonic();
        if balance.superfluous(now.as_millis() as u64) {
            return;
        }
        if !balance.takes(now) {
            match waiting(listener) {
                true => crew.called(RECHECK).await,
                false => {
                    balance.calm();
                    ready.clear_ready();
                }
            }
            continue;
        }
        match ready.try_io(|listener| listener.get_ref().accept()) {
            Ok(Ok((stream, peer))) => {
                open((stream, purpose), peer.as_socket().map(|address| address.ip()), app, (lane, crew));
                if balance.has_lead() {
                    crew.call_the_others();
                }
            }
            Ok(Err(error)) if passing(&error) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "accept failed");
                tokio::time::sleep(RETRY).await;
            }
            Err(_) => balance.calm(),
        }
    }
}

/// True while a connection waits that nobody took: the readiness that tokio remembers says less.
fn waiting(listener: &AsyncFd<Socket>) -> bool {
    let mut asked = [PollFd::new(listener.get_ref().as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Failures that concern one connection and not the listener.
fn passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset
    )
}

fn open((stream, purpose): (Socket, Purpose), peer: Option<IpAddr>, app: &Arc<App>, (lane, crew): (Lane, &Crew)) {
    let permit = Permit::new(lane, crew.clone());
    if stream.set_nonblocking(true).is_err() {
        return;
    }
    let app = app.clone();
    match peer {
        Some(client) => {
            let Ok(stream) = tokio::net::TcpStream::from_std(stream.into()) else { return };
            tokio::spawn(async move {
                let _permit = permit;
                front::serve(app, (Peer::Address(client), purpose), stream).await;
            });
        }
        None => {
            let Ok(stream) = tokio::net::UnixStream::from_std(stream.into()) else { return };
            tokio::spawn(async move {
                let _permit = permit;
                front::serve(app, (Peer::Unix, purpose), stream).await;
            });
        }
    }
}

/// One connection on the board, for as long as it lives.
struct Permit {
    lane: Lane,
    crew: Crew,
}

impl Permit {
    fn new(lane: Lane, crew: Crew) -> Permit {
        lane.connected();
        Permit { lane, crew }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.lane.disconnected();
        self.crew.bells[self.crew.own].notify_one();
    }
}
