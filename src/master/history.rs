//! What happened so far, for whoever asks: restarts and why, the last reload and upgrade. Pure.

use super::report::Report;
use super::roster::Kind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is remembered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// By board slot: workers that died there, and how the last one did.
    pub deaths: BTreeMap<usize, Death>,
    /// By kind: deaths of the others.
    pub helpers: BTreeMap<String, Death>,
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
            Report::Ended { child, how, expected: false, .. } => {
                let death = match child.kind {
                    Kind::Worker => self.deaths.entry(child.slot).or_default(),
                    kind => self.helpers.entry(kind.as_str().to_owned()).or_default(),
                };
                death.count += 1;
                death.last = format!("{how}: {}", child.ended_for.as_deref().unwrap_or("it was not told to"));
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
