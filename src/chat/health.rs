//! Whether the model answers, as far as a worker knows without asking it.

use super::Plan;
use super::admission::Admission;
use super::error::Error;
use super::upstream::TARGETS_MAX;
use super::upstream::rest::Rest;
use crate::board::{Board, EngineState};
use crate::sys::clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// A look at an upstream is good for so long.
const LOOK_MS: u64 = 5_000;

/// The model's state, in the words of `GET /api/health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Healthy = 0,
    /// It loads, or was not looked at yet.
    Initializing = 1,
    /// It cannot be reached.
    Degraded = 2,
}

/// What was last seen, and what is under way; the runtime threads of a worker share it.
pub struct Watch {
    /// Which upstreams rest.
    pub(super) rests: Arc<[Rest]>,
    /// Who has how many chats under way.
    pub(super) admission: Arc<Admission>,
    board: Board,
    engine: bool,
    seen: AtomicU8,
    looked_ms: AtomicU64,
}

impl Watch {
    /// Nothing is seen yet.
    pub fn new(board: Board, plan: &Plan) -> Watch {
        Watch {
            rests: plan.targets.iter().take(TARGETS_MAX).map(|_| Rest::default()).collect(),
            admission: Arc::new(Admission::new(plan.chats_max)),
            board,
            engine: plan.engine,
            seen: AtomicU8::new(Health::Initializing as u8),
            looked_ms: AtomicU64::new(0),
        }
    }

    pub(super) fn now(&self) -> Health {
        match (self.engine, self.board.engine_state()) {
            (true, EngineState::Ready) => Health::Healthy,
            (true, EngineState::Down) => Health::Degraded,
            (true, EngineState::Loading | EngineState::Absent) => Health::Initializing,
            (false, _) => match self.seen.load(Relaxed) {
                0 => Health::Healthy,
                1 => Health::Initializing,
                _ => Health::Degraded,
            },
        }
    }

    /// A chat need not knock at an engine that the master knows to be away.
    pub(super) fn check_engine(&self) -> Result<(), Error> {
        match (self.engine, self.board.engine_state()) {
            (false, _) | (true, EngineState::Ready) => Ok(()),
            (true, EngineState::Down) => Err(Error::NotReady("the engine died and is not back yet".to_owned())),
            (true, _) => Err(Error::NotReady("the engine loads the model".to_owned())),
        }
    }

    /// A call's outcome says as much as a look.
    pub(super) fn saw(&self, failure: Option<&Error>) {
        self.looked(!matches!(failure, Some(Error::NotReady(_))));
    }

    pub(super) fn looked(&self, reachable: bool) {
        let seen = if reachable { Health::Healthy } else { Health::Degraded };
        self.seen.store(seen as u8, Relaxed);
        self.looked_ms.store(clock::coarse_ms(), Relaxed);
    }

    pub(super) fn wants_look(&self) -> bool {
        let looked_ms = self.looked_ms.load(Relaxed);
        !self.engine && (looked_ms == 0 || clock::coarse_ms().saturating_sub(looked_ms) >= LOOK_MS)
    }
}
