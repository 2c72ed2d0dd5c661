//! What the master says in the log: one line an event, with stable names and fields.

use super::death::{self, Evidence};
use super::roster::{Child, Kind};
use super::state::Phase;
use crate::board::held::Held;
use crate::sys::wait::How;
use std::time::Duration;
use tracing::{error, info, warn};

/// One line.
#[derive(Clone, Debug)]
pub enum Report {
    /// The master's phase changed.
    Phase {
        /// Before.
        from: Phase,
        /// Now.
        to: Phase,
    },
    /// A child is ready.
    Ready {
        /// What it is.
        kind: Kind,
        /// Its process id.
        pid: i32,
        /// Its board slot.
        slot: usize,
        /// Time since its fork.
        after: Duration,
    },
    /// All workers are ready for the first time.
    Serving {
        /// How many.
        workers: usize,
    },
    /// A child ended.
    Ended {
        /// Who.
        child: Child,
        /// How.
        how: How,
        /// How long it lived.
        age: Duration,
        /// It was told to, or its work was done.
        expected: bool,
        /// What else is known.
        evidence: Evidence,
    },
    /// A process ended that we did not start; PID 1 reaps those.
    Stranger {
        /// Its process id.
        pid: i32,
        /// How it ended.
        how: How,
    },
    /// The kernel refused a fork.
    ForkFailed {
        /// What it would have been.
        kind: Kind,
        /// The kernel's reason.
        reason: String,
    },
    /// A worker's event loop does not turn.
    Hung {
        /// Who.
        child: Child,
        /// For how long.
        silence: Duration,
        /// What its threads do.
        seen: String,
        /// The requests that it holds.
        held: Vec<Held>,
    },
    /// No worker could boot.
    NoWorker {
        /// The last one's reason.
        reason: String,
    },
    /// The session store cannot be used.
    StoreRefused {
        /// Why.
        reason: String,
    },
    /// A reload changed nothing.
    ReloadRefused {
        /// Why.
        reason: String,
    },
    /// A reload is done.
    Reloaded {
        /// Workers of the new generation.
        workers: usize,
        /// Workers of the old one that finish what they have.
        draining: usize,
        /// How long it took.
        after: Duration,
    },
    /// An upgrade begins: the program is proven.
    Proving,
    /// The new program stands; the next is its own first line.
    Replacing,
    /// The new program took over and rolled everything.
    Upgraded,
    /// An upgrade changed nothing.
    UpgradeRefused {
        /// Why.
        reason: String,
    },
    /// A second upgrade was asked for while one is under way.
    UpgradeBusy,
    /// TTIN or TTOU.
    Resized {
        /// Workers wanted now.
        workers: usize,
    },
    /// The last line.
    Stopped {
        /// Exit code.
        code: i32,
    },
}

impl PartialEq for Report {
    fn eq(&self, other: &Report) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl Report {
    /// Writes the line.
    pub fn log(&self) {
        match self {
            Report::Phase { from, to } => info!(%from, %to, "phase"),
            Report::Ready { kind, pid, slot, after } => {
                info!(child_pid = pid, slot, after_ms = millis(*after), "{} ready", kind.as_str());
            }
            Report::Serving { workers } => info!(workers, "serving"),
            Report::Ended { child, how, age, expected, evidence } => ended(child, *how, *age, *expected, evidence),
            Report::Stranger { pid, how } => info!(child_pid = pid, how = %how, "reaped a process that is not ours"),
            Report::ForkFailed { kind, reason } => {
                error!(kind = kind.as_str(), %reason, "fork failed; trying again in 1 s")
            }
            Report::Hung { child, silence, seen, held } => {
                let (pid, slot, requests) = (child.pid, child.slot, death::requests_shown(held));
                let (silence_ms, held) = (millis(*silence), held.len());
                error!(child_pid = pid, slot, silence_ms, held, requests, threads = seen, "worker hung: killing it");
            }
            Report::NoWorker { reason } => error!(%reason, "no worker could boot: giving up"),
            Report::StoreRefused { reason } => error!(%reason, "the session store cannot be used"),
            Report::ReloadRefused { reason } => error!(%reason, "reload refused: everything stays as it was"),
            Report::Reloaded { workers, draining, after } => {
                info!(workers, draining, after_ms = millis(*after), "reloaded");
            }
            Report::Proving => info!("upgrade: proving the new program"),
            Report::Replacing => info!("upgrade: the new program stands; replacing this one in place"),
            Report::Upgraded => info!(version = env!("CARGO_PKG_VERSION"), "upgraded"),
            Report::UpgradeRefused { reason } => error!(%reason, "upgrade refused: everything stays as it was"),
            Report::UpgradeBusy => warn!("an upgrade is under way: a second one is refused"),
            Report::Resized { workers } => info!(workers, "number of workers changed"),
            Report::Stopped { code } => info!(code, "stopped"),
        }
    }
}

fn ended(child: &Child, how: How, age: Duration, expected: bool, evidence: &Evidence) {
    let (kind, pid, slot, age_ms) = (child.kind.as_str(), child.pid, child.slot, millis(age));
    let (by, why, in_flight) = (evidence.by.as_str(), evidence.why(child), evidence.in_flight);
    let reason = child.failed.as_deref().unwrap_or("");
    if expected && in_flight == 0 {
        return info!(child_pid = pid, slot, age_ms, %how, by, why, reason, "{kind} ended");
    }
    let (oom_kills, requests) = (evidence.oom_kills(), death::requests_shown(&evidence.held));
    match expected {
        true => warn!(child_pid = pid, slot, age_ms, %how, by, why, reason, in_flight, requests, "{kind} ended"),
        false => {
            warn!(child_pid = pid, slot, age_ms, %how, by, why, reason, oom_kills, in_flight, requests, "{kind} died");
        }
    }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
