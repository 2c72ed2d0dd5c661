//! An upgrade as the master decides it: prove, replace, roll, or stay. Pure.
//!
//! ```text
//!      USR2              proof ended well            taken over              rolled
//! ────▶ waits ─▶ Proving ────────▶ Proven ──execve──▶ Rolling ─────────────▶ done
//!                   │ did not                │ cannot    │ its canary failed
//!                   ▼                        ▼           ▼
//!                refused                  refused     Returning ──execve──▶ the former program, as it was
//! ```

use super::report::Report;
use super::roster::{ChildId, Kind};
use super::state::{Phase, State};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upgrade {
    /// This child is the new program, showing that it could take over.
    Proving(ChildId),
    /// It could; it replaces this one when nothing else is to be done.
    Proven,
    /// This is the new program: the first reload shows whether its workers stand.
    Rolling,
    /// They do not, for this reason: back.
    Returning(String),
}

/// Where the process shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// To the new program.
    Forward,
    /// To the former one.
    Back,
}

impl State {
    /// USR2: at once, or when the reload that is under way has ended; one at a time.
    pub(super) fn ask_upgrade(&mut self) {
        if self.upgrading() {
            self.report(Report::UpgradeBusy);
        } else if self.phase != Phase::Stopping {
            self.upgrade_waits = true;
        }
    }

    /// One is under way or waits.
    pub(super) fn upgrading(&self) -> bool {
        self.upgrade.is_some() || self.upgrade_waits
    }

    /// The upgrade that is under way, in one word.
    pub(super) fn upgrade_stage(&self) -> Option<&'static str> {
        match &self.upgrade {
            None => self.upgrade_waits.then_some("waiting"),
            Some(Upgrade::Proving(_)) => Some("proving"),
            Some(Upgrade::Proven) => Some("replacing"),
            Some(Upgrade::Rolling) => Some("rolling"),
            Some(Upgrade::Returning(_)) => Some("returning"),
        }
    }

    /// A reload would be cut short by the replacement, whichever way: it waits for it.
    pub(super) fn proves(&self) -> bool {
        let replaced = matches!(self.upgrade, Some(Upgrade::Proving(_) | Upgrade::Proven | Upgrade::Returning(_)));
        self.upgrade_waits || replaced
    }

    /// What the process shall be replaced by, as soon as nothing else is to be done.
    pub(super) fn way(&self) -> Option<Way> {
        match &self.upgrade {
            // A reload that was being read when the proof began goes on to its end first.
            _ if self.roll.is_some() => None,
            Some(Upgrade::Proven) => Some(Way::Forward),
            Some(Upgrade::Returning(_)) => Some(Way::Back),
            _ => None,
        }
    }

    pub(super) fn settle_upgrade(&mut self, now: Duration) {
        if self.upgrade_waits && self.upgrade.is_none() && self.phase == Phase::Running && self.may_roll() {
            self.upgrade_waits = false;
            self.report(Report::Proving);
            let id = self.launch(now, Kind::Proof, self.generation);
            self.upgrade = Some(Upgrade::Proving(id));
        }
    }

    pub(super) fn proof_ended(&mut self, id: ChildId, result: Result<(), String>) {
        if self.upgrade != Some(Upgrade::Proving(id)) {
            return;
        }
        match result {
            Ok(()) => {
                self.upgrade = Some(Upgrade::Proven);
                self.report(Report::Replacing);
            }
            Err(reason) => {
                self.upgrade = None;
                self.report(Report::UpgradeRefused { reason });
            }
        }
    }

    /// In the new program: everything is rolled, whoever waits for a reload included.
    pub(super) fn taken_over(&mut self) {
        match self.upgrade.take() {
            Some(Upgrade::Proven) => {
                self.upgrade = Some(Upgrade::Rolling);
                self.reload_waits = true;
            }
            Some(Upgrade::Returning(reason)) => self.report(Report::UpgradeRefused { reason }),
            _ => {}
        }
    }

    pub(super) fn replace_failed(&mut self, reason: &str) {
        if self.upgrade.take().is_some() {
            self.report(Report::UpgradeRefused { reason: reason.to_owned() });
        }
    }

    pub(super) fn upgrade_failed(&mut self, reason: &str) {
        if self.upgrade == Some(Upgrade::Rolling) {
            self.upgrade = Some(Upgrade::Returning(reason.to_owned()));
        }
    }

    /// This is the former program again: the new one could not even begin.
    pub(super) fn return_for(&mut self, reason: &str) {
        self.upgrade = Some(Upgrade::Returning(reason.to_owned()));
    }

    pub(super) fn upgrade_done(&mut self) {
        if self.upgrade == Some(Upgrade::Rolling) {
            self.upgrade = None;
            self.report(Report::Upgraded);
        }
    }

    /// The server stops, whichever program it is.
    pub(super) fn forget_upgrade(&mut self) {
        self.upgrade = None;
        self.upgrade_waits = false;
    }
}
