//! What systemd hears, and when: from what is reported, and once a turn from how everybody is.

use super::Master;
use super::report::Report;
use super::roster::{Kind, Life};
use super::state::Phase;
use std::time::Duration;

impl Master {
    /// What the log hears, systemd hears too.
    pub(super) fn tell_systemd(&mut self, report: &Report) {
        match report {
            Report::Serving { .. } | Report::Reloaded { .. } => {
                self.remark = "";
                let words = self.words();
                self.notify.ready(&words);
            }
            Report::ReloadRefused { .. } => {
                self.remark = "; the last reload was refused, see the log";
                let words = self.words();
                self.notify.ready_again(&words);
            }
            Report::Proving => self.remark = "; an upgrade proves itself",
            Report::Upgraded => self.remark = "",
            Report::UpgradeRefused { .. } => self.remark = "; the last upgrade was refused, see the log",
            Report::NoWorker { .. } => self.notify.status("no worker could boot, see the log"),
            Report::StoreRefused { .. } => self.notify.status("the session store cannot be used, see the log"),
            Report::Phase { to: Phase::Stopping, .. } => {
                let words = self.words();
                self.notify.stopping(&words);
            }
            _ => {}
        }
    }

    /// Once a turn, after the heartbeats were looked at.
    pub(super) fn tell_systemd_how_it_goes(&mut self, now: Duration) {
        let any = |kind| self.state.roster.of(kind).next().is_some();
        let takes_time = match self.state.phase() {
            Phase::Stopping => any(Kind::Worker),
            Phase::Booting => any(Kind::Migration),
            Phase::Running | Phase::Reloading => false,
        };
        let words = self.words();
        match takes_time {
            true => self.notify.goes_on(&words),
            false if self.state.roll.is_none() => self.notify.status(&words),
            false => {}
        }
        if self.state.phase() != Phase::Stopping {
            self.notify.alive(now);
        }
    }

    /// How everybody is, in words.
    fn words(&self) -> String {
        let workers = || self.state.roster.of(Kind::Worker).filter(|child| !child.life.is_killed());
        let wanted = self.state.places.len();
        let placed = self.state.places.iter().filter_map(|place| self.state.child(place.child?));
        let ready = placed.filter(|child| child.life == Life::Ready).count();
        let engine = self.state.roster.of(Kind::Engine).any(|child| child.life == Life::Ready);
        let engine = if engine || self.state.shape.engine.is_none() { "" } else { ", the model loads" };
        match self.state.phase() {
            Phase::Booting => format!("starting: {ready} of {wanted} workers are ready"),
            Phase::Stopping => {
                let lanes = workers().flat_map(|child| self.launcher.board.slot(child.slot).lanes());
                let in_flight: u64 = lanes.map(|lane| lane.in_flight()).fold(0, u64::saturating_add);
                format!("stopping: {} workers finish {in_flight} requests", workers().count())
            }
            Phase::Running | Phase::Reloading if ready == wanted => {
                format!("{wanted} workers serve{engine}{}", self.remark)
            }
            Phase::Running | Phase::Reloading => format!("{ready} of {wanted} workers serve{engine}{}", self.remark),
        }
    }
}
