//! How far a worker is on its way out, as every request sees it.

use super::connection::Connections;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the runtime threads of one worker. Read with every request, written three times in a life.
#[derive(Default)]
pub struct Leaving {
    not_ready: AtomicBool,
    closing: AtomicBool,
    shutting: AtomicBool,
    lanes: Mutex<Vec<Arc<Connections>>>,
}

impl Leaving {
    /// These connections are to be woken when idle ones shall close.
    pub fn concerns(&self, connections: Arc<Connections>) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(connections);
    }

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
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|lane| lane.wake());
    }

    /// True from [`Leaving::announce`] on.
    pub fn announced(&self) -> bool {
        self.not_ready.load(Relaxed)
    }

    /// True from [`Leaving::close_after_answers`] on.
    pub fn closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// True from [`Leaving::shut_idle`] on.
    pub fn shutting(&self) -> bool {
        self.shutting.load(Relaxed)
    }
}
