//! The whole fleet as Prometheus text and as JSON, read from the board: any worker, or the master, can tell it.

use crate::board::tally::{BOUNDS_US, CLASSES, HISTOGRAM_WORDS, ROUTES, Tally, VERDICTS};
use crate::board::{Board, Lane, SLOTS_MAX, State};
use crate::limit::Limiter;
use crate::limit::shared::Counts;
use crate::log::tally as log_tally;
use crate::sys::clock;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

/// The engine's words on the board that are told: name, help, type, word.
const ENGINE: [(&str, &str, &str, usize); 5] = [
    ("engine_requests_total", "Requests that got a slot of the engine.", "counter", 0),
    ("engine_active_requests", "Requests in slots of the engine.", "gauge", 1),
    ("engine_queued_requests", "Requests that wait for a slot of the engine.", "gauge", 2),
    ("engine_prompt_tokens_total", "Tokens of the conversations.", "counter", 3),
    ("engine_completion_tokens_total", "Tokens generated.", "counter", 5),
];

/// `GET /metrics`: Prometheus text format 0.0.4.
pub fn text(board: Board, limiter: Option<&Limiter>) -> String {
    let mut out = String::with_capacity(8 * 1024);
    let tallies: Vec<Tally> = lanes(board).map(|lane| lane.tally()).collect();
    requests(&mut out, &tallies);
    durations(&mut out, &tallies);
    fleet(&mut out, board);
    logs(&mut out, board);
    if let Some(limiter) = limiter {
        limits(&mut out, limiter.counts());
    }
    for (name, help, kind, word) in ENGINE {
        single(&mut out, name, help, kind, board.engine()[word].load(Relaxed));
    }
    out
}

/// `GET /status`: each worker as it is now.
pub fn status(board: Board) -> Value {
    let now_ms = clock::monotonic_ms();
    let workers = board.opened().filter(|(_, slot)| slot.state() != State::Empty).map(|(number, slot)| {
        json!({
            "slot": number,
            "pid": slot.pid(),
            "state": format!("{:?}", slot.state()).to_lowercase(),
            "age_ms": now_ms.saturating_sub(slot.since_ms()),
            "connections": slot.lanes().map(|lane| lane.connections()).sum::<u64>(),
            "in_flight": slot.lanes().map(|lane| lane.in_flight()).sum::<u64>(),
            "requests": slot.lanes().map(|lane| lane.requests()).sum::<u64>(),
            "silent_ms": slot.lanes().map(|lane| lane.silent_ms(now_ms)).max(),
        })
    });
    let log = log_tally::count(board);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "workers": workers.collect::<Vec<_>>(),
        "engine": format!("{:?}", board.engine_state()).to_lowercase(),
        "log": {"emitted": log.emitted, "written": log.written, "dropped": log.dropped, "lost": log.lost},
    })
}

/// Every lane of every slot that was ever opened, dead ones too: what they counted stays counted.
fn lanes(board: Board) -> impl Iterator<Item = Lane> {
    board.opened().flat_map(|(_, slot)| slot.all_lanes())
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = write!(out, "# HELP chatcorn_{name} {help}\n# TYPE chatcorn_{name} {kind}\n");
}

fn single(out: &mut String, name: &str, help: &str, kind: &str, value: u64) {
    head(out, name, help, kind);
    let _ = writeln!(out, "chatcorn_{name} {value}");
}

fn requests(out: &mut String, tallies: &[Tally]) {
    head(out, "requests_total", "Requests that ended, by route and status class.", "counter");
    for (route, name) in ROUTES.iter().enumerate() {
        for (class, status) in CLASSES.iter().enumerate() {
            let count: u64 = tallies.iter().map(|tally| tally.requests(route, class)).sum();
            let _ = writeln!(out, "chatcorn_requests_total{{route=\"{name}\",status=\"{status}\"}} {count}");
        }
    }
    head(out, "limit_verdicts_total", "Verdicts of the rate limiter.", "counter");
    for (verdict, name) in VERDICTS.iter().enumerate() {
        let count: u64 = tallies.iter().map(|tally| tally.verdicts(verdict)).sum();
        let _ = writeln!(out, "chatcorn_limit_verdicts_total{{verdict=\"{name}\"}} {count}");
    }
}

fn durations(out: &mut String, tallies: &[Tally]) {
    let total = |read: &dyn Fn(&Tally, usize) -> u64| -> [u64; HISTOGRAM_WORDS] {
        std::array::from_fn(|word| tallies.iter().map(|tally| read(tally, word)).sum())
    };
    head(out, "request_duration_seconds", "Time from a request's head to the end of its answer.", "histogram");
    for (chat, label) in [(true, "route=\"chat\""), (false, "route=\"other\"")] {
        let words = total(&|tally, word| tally.durations(chat, word));
        histogram(out, "request_duration_seconds", label, &words);
    }
    head(out, "chat_first_byte_seconds", "Time to the first byte of a chat's answer.", "histogram");
    histogram(out, "chat_first_byte_seconds", "", &total(&Tally::first_bytes));
}

fn histogram(out: &mut String, name: &str, label: &str, words: &[u64; HISTOGRAM_WORDS]) {
    let comma = if label.is_empty() { "" } else { "," };
    let mut count = 0;
    for (bound, bucket) in BOUNDS_US.iter().zip(words) {
        count += bucket;
        let bound = *bound as f64 / 1e6;
        let _ = writeln!(out, "chatcorn_{name}_bucket{{{label}{comma}le=\"{bound}\"}} {count}");
    }
    count += words[BOUNDS_US.len()];
    let labels = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
    let sum = words[BOUNDS_US.len() + 1] as f64 / 1e6;
    let _ = writeln!(out, "chatcorn_{name}_bucket{{{label}{comma}le=\"+Inf\"}} {count}");
    let _ = write!(out, "chatcorn_{name}_sum{labels} {sum}\nchatcorn_{name}_count{labels} {count}\n");
}

fn fleet(out: &mut String, board: Board) {
    head(out, "workers", "Workers by state.", "gauge");
    for state in [State::Booting, State::Ready, State::Draining] {
        let count = board.opened().filter(|(_, slot)| slot.state() == state).count();
        let name = format!("{state:?}").to_lowercase();
        let _ = writeln!(out, "chatcorn_workers{{state=\"{name}\"}} {count}");
    }
    let open = (0..SLOTS_MAX).map(|number| board.slot(number)).filter(|slot| slot.state() != State::Empty);
    let (mut connections, mut in_flight) = (0, 0);
    for lane in open.flat_map(|slot| slot.lanes()) {
        connections += lane.connections();
        in_flight += lane.in_flight();
    }
    single(out, "connections", "Connections that are open.", "gauge", connections);
    single(out, "requests_in_flight", "Requests that have begun and not ended.", "gauge", in_flight);
}

fn limits(out: &mut String, counts: Counts) {
    let Counts { pressure, breaker_open, calls, failures, standby, opened, closed } = counts;
    let rows = [
        ("limit_clients_total", "Places of the limits' table that were given to a client.", pressure.claimed),
        ("limit_evicted_total", "Of those, taken from a client whose windows were under way.", pressure.evicted),
        ("limit_overflowed_total", "Requests that were counted in a place that clients share.", pressure.overflowed),
        ("limit_redis_calls_total", "Decisions that Redis was asked for.", calls),
        ("limit_redis_failures_total", "Calls and connections to Redis that failed.", failures),
        ("limit_standby_total", "Decisions of the shared memory in place of Redis.", standby),
        ("limit_breaker_opened_total", "How often Redis was given up.", opened),
        ("limit_breaker_closed_total", "How often Redis was back.", closed),
    ];
    for (name, help, count) in rows {
        single(out, name, help, "counter", count);
    }
    single(out, "limit_breaker_open", "1 while Redis is not asked.", "gauge", breaker_open.into());
}

fn logs(out: &mut String, board: Board) {
    let log = log_tally::count(board);
    single(out, "log_emitted_total", "Log records that were formed.", "counter", log.emitted);
    single(out, "log_written_total", "Log records that were written.", "counter", log.written);
    single(out, "log_dropped_total", "Log records that were given up.", "counter", log.dropped);
    single(out, "log_lost_total", "Log records that died with a killed process.", "counter", log.lost);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::counters;

    #[test]
    fn the_engines_words_are_those_that_it_writes() {
        let words = [
            counters::REQUESTS,
            counters::ACTIVE,
            counters::QUEUED,
            counters::PROMPT_TOKENS,
            counters::COMPLETION_TOKENS,
        ];
        assert_eq!(ENGINE.map(|(_, _, _, word)| word), words);
    }
}
