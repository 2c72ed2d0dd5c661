//! What happened so far, for whoever asks: restarts and why, the last reload and upgrade. Pure.

use super::report::Report;
use super::roster::Kind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Deaths of workers that are remembered one by one.
const RECENT_MAX: usize = 8;

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// By board slot: workers that died or were recycled there, and how the last one ended.
    pub deaths: BTreeMap<usize, Death>,
    /// By kind: deaths of the others.
    pub helpers: BTreeMap<String, Death>,
    /// Workers that had to be replaced, by who ended them.
    #[serde(default)]
    pub causes: BTreeMap<String, u64>,
    /// The last of them, oldest first.
    #[serde(default)]
    pub recent: VecDeque<Recent>,
    /// How the last reload went.
    pub reload: Option<Reload>,
    /// How the last upgrade went.
    pub upgrade: Option<Reload>,
}

/// Deaths in one place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Death {
    /// How many.
    pub count: u64,
    /// How the last one ended, and why.
    pub last: String,
}

/// One worker's end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recent {
    /// When (monotonic).
    pub at: Duration,
    /// Who.
    pub pid: i32,
    /// Where it stood on the board.
    pub slot: usize,
    /// How, and why.
    pub text: String,
}

/// One reload, or one upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reload {
    /// It was done, and not refused.
    pub done: bool,
    /// What was said of it.
    pub text: String,
    /// When it ended (monotonic).
    pub at: Duration,
}

impl History {
    /// Remembers what is worth it.
    pub fn note(&mut self, now: Duration, report: &Report) {
        match report {
            // A recycled worker left as it was to, and had to be replaced all the same.
            Report::Ended { child, how, expected, evidence, .. } if !expected || child.worn.is_some() => {
                let death = match child.kind {
                    Kind::Worker => self.deaths.entry(child.slot).or_default(),
                    kind => self.helpers.entry(kind.as_str().to_owned()).or_default(),
                };
                death.count += 1;
                death.last = format!("{how}: {}", evidence.why(child));
                if child.kind == Kind::Worker {
                    let by = if *expected { "recycled" } else { evidence.by.as_str() };
                    *self.causes.entry(by.to_owned()).or_default() += 1;
                    let text = death.last.clone();
                    self.recent.push_back(Recent { at: now, pid: child.pid, slot: child.slot, text });
                    if self.recent.len() > RECENT_MAX {
                        self.recent.pop_front();
                    }
                }
            }
            Report::Reloaded { workers, after, .. } => {
                let text = format!("{workers} workers after {} ms", after.as_millis());
                self.reload = Some(Reload { done: true, text, at: now });
            }
            Report::ReloadRefused { reason } => {
                self.reload = Some(Reload { done: false, text: reason.clone(), at: now });
            }
            Report::Upgraded => {
                let text = format!("version {}", env!("CARGO_PKG_VERSION"));
                self.upgrade = Some(Reload { done: true, text, at: now });
            }
            Report::UpgradeRefused { reason } => {
                self.upgrade = Some(Reload { done: false, text: reason.clone(), at: now });
            }
            _ => {}
        }
    }
}
