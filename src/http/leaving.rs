//! How far a worker is on its way out, as every request sees it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Notify;

/// Shared by the runtime threads of one worker.
#[derive(Debug, Default)]
pub struct Leaving {
    not_ready: AtomicBool,
    closing: AtomicBool,
    shutting: AtomicBool,
    shut: Notify,
}

impl Leaving {
    /// `/readyz` is 503 from now on.
    pub fn announce(&self) {
        self.not_ready.store(true, Relaxed);
    }

    /// Every answer ends its connection from now on.
    pub fn close_after_answers(&self) {
        self.announce();
        self.closing.store(true, Relaxed);
    }

    /// Idle connections are closed now, the others after their answer.
    pub fn shut_idle(&self) {
        self.shutting.store(true, Relaxed);
        self.shut.notify_waiters();
    }

    /// True from [`Leaving::announce`] on.
    pub fn announced(&self) -> bool {
        self.not_ready.load(Relaxed)
    }

    /// True from [`Leaving::close_after_answers`] on.
    pub fn closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Returns when [`Leaving::shut_idle`] has been called.
    pub async fn until_shut(&self) {
        let mut notified = std::pin::pin!(self.shut.notified());
        notified.as_mut().enable();
        if !self.shutting.load(Relaxed) {
            notified.await;
        }
    }
}
