//! Descriptors that an event loop watches for reading.

use super::signal::SelfPipe;
use socket2::Socket;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Values that own one descriptor, always the same, until they are dropped.
pub trait OwnsDescriptor: AsRawFd + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! owns_descriptor {
    ($($owner:ty),*) => { $(impl sealed::Sealed for $owner {} impl OwnsDescriptor for $owner {})* };
}

owns_descriptor!(OwnedFd, Socket, SelfPipe);

/// Watches a descriptor on the runtime that calls.
///
/// # Errors
/// It is watched already, or cannot be (a plain file).
pub fn watch<T: OwnsDescriptor>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: each OwnsDescriptor owns its descriptor, gives the same number each time and closes it only when it is
    // dropped, which AsyncFd does after deregistering it.
    Ok(unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }?)
}
