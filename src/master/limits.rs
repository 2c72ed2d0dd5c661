//! What operators ask about a client's limits. A worker answers, for it has the connection to Redis; when none does in
//! time, the master reads (and resets) the shared memory itself and says so.

use super::Master;
use super::control::CallId;
use super::control::words::Answer;
use super::roster::{Kind, Life};
use super::state::Event;
use crate::limit::operator::Who;
use crate::limit::{Limiter, Peer};
use crate::log;
use crate::sys::clock;
use crate::worker::link::{self, ToWorker};
use serde_json::Value;
use std::time::Duration;

/// A worker has so long; Redis has a quarter of a second for each of the worker's questions.
const ANSWER_MAX: Duration = Duration::from_millis(1500);

/// One that a worker was asked.
pub struct Question {
    call: CallId,
    who: Who,
    reset: bool,
    until: Duration,
}

impl Master {
    /// Hands a question on to a worker.
    pub(super) fn ask_about_limits(&mut self, call: CallId, client: String, reset: bool) -> Option<Event> {
        let Some(who) = Who::parse(&client) else {
            let text = format!("{client:?} is neither an address, nor `unix`, nor the id of an API key");
            return self.answer(call, &Answer::Refused(text));
        };
        let now = clock::monotonic();
        if reset {
            let client = match &who {
                Who::Peer(Peer::Address(address)) => log::client_name(*address),
                Who::Peer(Peer::Unix) | Who::Key(_) => client.clone(),
            };
            tracing::info!(target: "security", event = "rate_limit_reset", client, "an operator resets a client's limits");
        }
        let message = ToWorker::Limits { call, reset, client }.encode();
        let silence = |slot: usize| self.launcher.board.slot(slot).lane(0).silent_ms(now.as_millis() as u64);
        let mut ready: Vec<_> = self.state.roster.of(Kind::Worker).filter(|child| child.life == Life::Ready).collect();
        ready.sort_by_key(|child| silence(child.slot));
        let mut links = ready.iter().filter_map(|child| self.inbox.link(child.id));
        let asked = links.any(|link| link::say(link, &message).is_ok());
        let until = if asked { now + ANSWER_MAX } else { now };
        self.waiting.limits.push(Question { call, who, reset, until });
        None
    }

    /// Passes on what workers said, and answers in place of those that did not.
    pub(super) fn tell_about_limits(&mut self) {
        for (call, told) in self.inbox.told() {
            if let Some(at) = self.waiting.limits.iter().position(|question| question.call == call) {
                self.waiting.limits.swap_remove(at);
                let told = serde_json::from_str(&told).unwrap_or(Value::Null);
                self.answer(call, &answer(told));
            }
        }
        let now = clock::monotonic();
        let (late, wait) = std::mem::take(&mut self.waiting.limits).into_iter().partition(|asked| asked.until <= now);
        self.waiting.limits = wait;
        for Question { call, who, reset, .. } in late {
            let answer = self.limits_here(&who, reset);
            self.answer(call, &answer);
        }
    }

    /// Until when a worker may answer.
    pub(super) fn limits_deadline(&self) -> Option<Duration> {
        self.waiting.limits.iter().map(|question| question.until).min()
    }

    fn limits_here(&self, who: &Who, reset: bool) -> Answer {
        let Some(memory) = self.launcher.counts.memory() else {
            return Answer::Refused("rate limiting is off".into());
        };
        let limiter = Limiter::of_memory(memory);
        let client = limiter.who(who, &[]);
        if reset {
            limiter.reset_here(&client);
        }
        let mut picture = limiter.picture_here(&client);
        picture["reached"] = memory.rules.confirmed.is_none().into();
        picture["store"] = "memory; no worker answered".into();
        Answer::Limits(picture)
    }
}

fn answer(told: Value) -> Answer {
    match told["error"].as_str() {
        Some(reason) => Answer::Refused(reason.to_owned()),
        None => Answer::Limits(told),
    }
}
