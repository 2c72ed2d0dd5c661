//! What operators ask over the control socket: who waits for what, and what each hears on the way.

use super::Master;
use super::control::CallId;
use super::control::words::{Answer, Request};
use super::report::Report;
use super::roster::Kind;
use super::state::{Event, Phase, WORKERS_MAX};
use crate::http::metrics;
use crate::sys::clock;
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;
use std::time::Duration;

/// How often one who waits for a stop hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Operators who wait.
#[derive(Default)]
pub struct Waiting {
    pub(super) limits: Vec<super::limits::Question>,
    calls: Vec<(CallId, For)>,
    next_word: Duration,
}

/// What one waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum For {
    /// A reload that begins after he asked.
    NextReload,
    /// The reload that is under way.
    Reload,
    /// The upgrade that is under way.
    Upgrade,
    /// The end of everything.
    Stop,
}

impl Waiting {
    /// Those who wait since a former program; their calls are numbered from 1 on.
    pub fn adopt(wants: impl Iterator<Item = For>) -> Waiting {
        Waiting { calls: (1..).zip(wants).collect(), ..Waiting::default() }
    }
}

impl Master {
    /// Who waits, for a successor.
    pub(super) fn waiting_calls(&self) -> Vec<(RawFd, For)> {
        let calls = self.waiting.calls.iter();
        calls.filter_map(|(call, wants)| Some((self.inbox.control.caller(*call)?, *wants))).collect()
    }

    /// Takes what operators ask; what the state machine has to decide comes back as events.
    pub(super) fn hear_operators(&mut self) -> Vec<Event> {
        let asked = self.inbox.asked();
        let events = asked.into_iter().filter_map(|(call, request)| self.hear(call, request)).collect();
        self.tell_about_limits();
        self.tell_progress();
        events
    }

    fn hear(&mut self, call: CallId, request: Request) -> Option<Event> {
        let stopping = self.state.phase() == Phase::Stopping;
        match request {
            Request::Status => {
                let status = Answer::Status(self.status());
                self.answer(call, &status)
            }
            Request::Metrics => {
                let text =
                    metrics::text(self.launcher.board, self.launcher.counts.memory().map(|limits| limits.counts()));
                self.answer(call, &Answer::Metrics(text))
            }
            Request::Stop { now } => {
                self.waiting.calls.push((call, For::Stop));
                Some(if now { Event::StopNow } else { Event::Stop })
            }
            _ if stopping => self.answer(call, &Answer::Refused("the server stops".into())),
            Request::Reload => {
                self.waiting.calls.push((call, For::NextReload));
                Some(Event::Reload)
            }
            Request::Upgrade if self.state.upgrading() => {
                self.answer(call, &Answer::Refused("an upgrade is under way".into()))
            }
            Request::Upgrade => {
                self.waiting.calls.push((call, For::Upgrade));
                Some(Event::Upgrade)
            }
            Request::Reopen => {
                self.answer(call, &Answer::Done("log files are opened anew".into()));
                Some(Event::Reopen)
            }
            Request::Scale { workers } if (1..=WORKERS_MAX).contains(&workers) => {
                self.answer(call, &Answer::Done(format!("{workers} workers from now on")));
                Some(Event::Scale(workers))
            }
            Request::Scale { .. } => {
                self.answer(call, &Answer::Refused(format!("a number of workers is 1 to {WORKERS_MAX}")))
            }
            Request::Limits { client, reset } => self.ask_about_limits(call, client, reset),
        }
    }

    pub(super) fn answer(&mut self, call: CallId, answer: &Answer) -> Option<Event> {
        self.inbox.control.say(call, answer);
        None
    }

    /// The configuration is read now: who asked for a reload before this waits for this one.
    pub(super) fn reload_begins(&mut self) {
        for (_, wants) in &mut self.waiting.calls {
            if *wants == For::NextReload {
                *wants = For::Reload;
            }
        }
        self.say_to(|wants| wants == For::Reload, &Answer::Progress("reading the configuration".into()));
    }

    /// What the log hears, those who wait for it hear too.
    pub(super) fn tell_operators(&mut self, report: &Report) {
        let reload = |wants| wants == For::Reload;
        let upgrade = |wants| wants == For::Upgrade;
        match report {
            Report::ReloadRefused { reason } => self.say_to(reload, &Answer::Refused(reason.clone())),
            Report::Reloaded { workers, draining, after } => {
                let text =
                    format!("{workers} workers serve after {} ms; {draining} old ones finish", after.as_millis());
                self.say_to(reload, &Answer::Done(text));
            }
            Report::Proving => self.say_to(upgrade, &Answer::Progress("proving the new program".into())),
            Report::Replacing => self.say_to(upgrade, &Answer::Progress("it stands: replacing this one".into())),
            Report::Upgraded => self.say_to(upgrade, &Answer::Done("upgraded; the old workers finish".into())),
            Report::UpgradeRefused { reason } => self.say_to(upgrade, &Answer::Refused(reason.clone())),
            Report::Phase { to: Phase::Stopping, .. } => {
                self.say_to(|wants| wants != For::Stop, &Answer::Refused("the server stops".into()));
                self.tell_progress();
            }
            Report::Ready { kind, pid, after, .. } => {
                let of = match (kind, self.state.rolled()) {
                    (Kind::Worker, Some((ready, wanted))) => format!(" ({ready} of {wanted})"),
                    _ => String::new(),
                };
                let text = format!("{} {pid} is ready after {} ms{of}", kind.as_str(), after.as_millis());
                self.say_to(|wants| reload(wants) || upgrade(wants), &Answer::Progress(text));
            }
            Report::Ended { child, how, .. } => {
                let text = format!("{} {} ended: {how}", child.kind.as_str(), child.pid);
                self.say_to(|wants| wants == For::Stop, &Answer::Progress(text));
            }
            _ => {}
        }
    }

    /// The last word, when every child is gone: who hears it may start the next server at once.
    pub(super) fn tell_operators_the_end(&mut self, code: i32) {
        self.inbox.control.close();
        self.say_to(|wants| wants == For::Stop, &Answer::Done(format!("stopped, exit code {code}")));
    }

    /// While a stop takes its time: what is still under way.
    fn tell_progress(&mut self) {
        let now = clock::monotonic();
        if self.state.phase() != Phase::Stopping || now < self.waiting.next_word {
            return;
        }
        self.waiting.next_word = now + TELL_EVERY;
        let workers: Vec<_> = self.state.roster.of(Kind::Worker).filter(|child| !child.life.is_killed()).collect();
        if !workers.is_empty() {
            let lanes = || workers.iter().flat_map(|child| self.launcher.board.slot(child.slot).lanes());
            let in_flight: u64 = lanes().map(|lane| lane.in_flight()).fold(0, u64::saturating_add);
            let connections: u64 = lanes().map(|lane| lane.connections()).fold(0, u64::saturating_add);
            let text = format!(
                "workers that drain: {}, requests in flight: {in_flight}, connections left: {connections}",
                workers.len()
            );
            self.say_to(|wants| wants == For::Stop, &Answer::Progress(text));
        }
    }

    fn say_to(&mut self, who: impl Fn(For) -> bool, answer: &Answer) {
        for (call, _) in self.waiting.calls.iter().filter(|(_, wants)| who(*wants)) {
            self.inbox.control.say(*call, answer);
        }
        if answer.is_final() {
            self.waiting.calls.retain(|(_, wants)| !who(*wants));
        }
    }
}
