//! The state of everything as JSON, for `chatcorn status`: read from the master's own mind, from the kernel and, for
//! display alone, from the board.

use super::Master;
use super::history::Reload;
use super::roster::{Child, Kind, Life};
use crate::board::EngineState;
use crate::chat::store::Place;
use crate::engine::counters;
use crate::limit::Shared;
use crate::log::tally;
use crate::sys::{clock, process};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Master {
    /// The answer to `status`. Its names are the contract of `--json`: add, never rename.
    pub(super) fn status(&self) -> Value {
        let now = clock::monotonic();
        let workers = self.state.roster.of(Kind::Worker);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": self.launcher.master,
            "phase": self.state.phase().to_string(),
            "age_s": seconds(now, self.started),
            "generation": self.state.generation,
            "workers_wanted": self.state.places.len(),
            "listeners": self.launcher.addresses.of(self.state.generation).iter().map(|l| l.address().to_string()).collect::<Vec<_>>(),
            "workers": workers.map(|child| self.worker(now, child)).collect::<Vec<_>>(),
            "engine": self.engine_status(now),
            "log": self.log_status(now),
            "limits": self.launcher.counts.memory().map(|limits| limiter(&limits, now)),
            "store": self.store_status(),
            "last_reload": outcome(self.history.reload.as_ref(), now),
            "last_upgrade": outcome(self.history.upgrade.as_ref(), now),
            "upgrade": self.state.upgrade_stage(),
            "restarts": json!({
                "causes": self.history.causes,
                "recent": self.history.recent.iter().map(|death| {
                    json!({ "pid": death.pid, "slot": death.slot, "text": death.text, "age_s": seconds(now, death.at) })
                }).collect::<Vec<_>>(),
            }),
        })
    }

    fn worker(&self, now: Duration, child: &Child) -> Value {
        let slot = self.launcher.board.slot(child.slot);
        let now_ms = now.as_millis() as u64;
        let sum = |word: fn(crate::board::Lane) -> u64| slot.lanes().map(word).fold(0, u64::saturating_add);
        let death = self.history.deaths.get(&child.slot);
        json!({
            "pid": child.pid,
            "slot": child.slot,
            "state": state(child),
            "generation": child.generation,
            "age_s": seconds(now, child.since),
            "connections": sum(|lane| lane.connections()),
            "in_flight": sum(|lane| lane.in_flight()),
            "requests": sum(|lane| lane.requests()),
            "rss_bytes": process::rss_bytes(child.pid),
            "heartbeat_ms": slot.lanes().map(|lane| lane.silent_ms(now_ms)).max(),
            "restarts": death.map_or(0, |death| death.count),
            "last_death": death.map(|death| death.last.as_str()),
        })
    }

    fn engine_status(&self, now: Duration) -> Value {
        let board = self.launcher.board;
        let state = match board.engine_state() {
            EngineState::Absent => return Value::Null,
            EngineState::Loading => "loading",
            EngineState::Ready => "ready",
            EngineState::Down => "down",
        };
        let words = board.engine();
        let word = |number: usize| words.get(number).map_or(0, |word| word.load(Relaxed));
        let mut status = self.helper(now, Kind::Engine);
        status["state"] = state.into();
        status["active"] = word(counters::ACTIVE).into();
        status["queued"] = word(counters::QUEUED).into();
        status["requests"] = word(counters::REQUESTS).into();
        status["completion_tokens"] = word(counters::COMPLETION_TOKENS).into();
        status
    }

    fn log_status(&self, now: Duration) -> Value {
        let count = tally::count(self.launcher.board);
        let mut status = self.helper(now, Kind::Log);
        status["written"] = count.written.into();
        status["dropped"] = count.dropped.into();
        status["lost"] = count.lost.into();
        status
    }

    fn helper(&self, now: Duration, kind: Kind) -> Value {
        let child = self.state.roster.of(kind).last();
        let death = self.history.helpers.get(kind.as_str());
        json!({
            "pid": child.map(|child| child.pid),
            "age_s": child.map(|child| seconds(now, child.since)),
            "rss_bytes": child.and_then(|child| process::rss_bytes(child.pid)),
            "restarts": death.map_or(0, |death| death.count),
            "last_death": death.map(|death| death.last.as_str()),
        })
    }

    fn store_status(&self) -> Value {
        let Some(plan) = self.plans.get(&self.state.generation) else { return Value::Null };
        let place = &plan.worker.store.place;
        let bytes = match place {
            Place::File(path) => std::fs::metadata(path).ok().map(|found| found.len()),
            Place::Server(_) => None,
        };
        json!({"path": place.to_string(), "bytes": bytes})
    }
}

fn outcome(last: Option<&Reload>, now: Duration) -> Value {
    last.map_or(Value::Null, |last| json!({"done": last.done, "text": last.text, "age_s": seconds(now, last.at)}))
}

fn state(child: &Child) -> &'static str {
    match child.life {
        Life::Booting(_) => "booting",
        Life::Ready => "ready",
        Life::Leaving(_) => "draining",
        Life::Examined(..) => "hung",
        Life::Killed(_) => "killed",
    }
}

fn limiter(limits: &Shared, now: Duration) -> Value {
    let pressure = limits.pressure();
    let (breaker, counts) = (limits.breaker(), limits.counts());
    json!({
        "clients": pressure.claimed,
        "evicted": pressure.evicted,
        "overflowed": pressure.overflowed,
        "redis_calls": counts.calls,
        "redis_failures": counts.failures,
        "standby": counts.standby,
        "redis_failing": breaker.is_open() || !breaker.is_quiet(now.as_millis() as u64),
    })
}

fn seconds(now: Duration, then: Duration) -> f64 {
    (now.saturating_sub(then).as_secs_f64() * 10.0).round() / 10.0
}
