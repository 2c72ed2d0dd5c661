//! The whole fleet as Prometheus text and as JSON, read from the board: any worker, or the master, can tell it.

use crate::board::ends::{CAUSES, PROCESSES, RESULTS};
use crate::board::tally::{BOUNDS_US, CLASSES, GROUPS, HISTOGRAM_WORDS, ROUTES, TOKEN_GROUPS, Tally, VERDICTS};
use crate::board::{Board, Lane, Slot, State};
use crate::limit::shared::Counts;
use crate::log::{Security, tally as log_tally};
use crate::sys::clock;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

/// The engine's words on the board that are told: name, help, type, word.
const ENGINE: [(&str, &str, &str, usize); 9] = [
    ("engine_requests_total", "Requests that got a slot of the engine.", "counter", 0),
    ("engine_active_requests", "Requests in slots of the engine.", "gauge", 1),
    ("engine_queued_requests", "Requests that wait for a slot of the engine.", "gauge", 2),
    ("engine_prompt_tokens_total", "Tokens of the conversations.", "counter", 3),
    ("engine_cached_tokens_total", "Tokens of the conversations that the prefix cache held.", "counter", 4),
    ("engine_completion_tokens_total", "Tokens generated.", "counter", 5),
    ("engine_cancelled_requests_total", "Requests whose reader left before the end.", "counter", 6),
    ("engine_refused_requests_total", "Requests refused because too many wait.", "counter", 7),
    ("engine_steps_total", "Batches evaluated.", "counter", 8),
];

/// A word of a group's histogram.
type Read = fn(&Tally, usize, usize) -> u64;

/// `GET /metrics`: Prometheus text format 0.0.4. `counts` are the limiter's, where there is one.
pub fn text(board: Board, counts: Option<Counts>) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let tallies: Vec<Tally> = lanes(board).map(|lane| lane.tally()).collect();
    head(&mut out, "build_info", "The version of the program.", "gauge");
    let _ = writeln!(out, "chatcorn_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    requests(&mut out, &tallies);
    durations(&mut out, &tallies);
    fleet(&mut out, board);
    ends(&mut out, board);
    security(&mut out, board);
    logs(&mut out, board);
    if let Some(counts) = counts {
        limits(&mut out, counts);
    }
    for (name, help, kind, word) in ENGINE {
        single(&mut out, name, help, kind, board.engine()[word].load(Relaxed));
    }
    out
}

/// `GET /status`: each worker as it is now, and the counters that a reader takes differences of.
pub fn status(board: Board, counts: Option<Counts>) -> Value {
    let now_ms = clock::monotonic_ms();
    let workers = board.opened().filter(|(_, slot)| slot.state() != State::Empty);
    let log = log_tally::count(board);
    let tallies: Vec<Tally> = lanes(board).map(|lane| lane.tally()).collect();
    let classes = |(class, name): (usize, &&str)| {
        let routes = 0..ROUTES.len();
        let count = |tally: &Tally| routes.clone().map(|route| tally.requests(route, class)).fold(0, u64::wrapping_add);
        ((*name).to_owned(), json!(tallies.iter().map(count).fold(0, u64::wrapping_add)))
    };
    let engine = |(name, _, _, word): (&str, &str, &str, usize)| {
        let name = name.trim_start_matches("engine_").trim_end_matches("_total");
        (name.to_owned(), json!(board.engine()[word].load(Relaxed)))
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "now_ms": now_ms,
        "workers": workers.map(|(number, slot)| worker(number, slot, now_ms)).collect::<Vec<_>>(),
        "requests": CLASSES.iter().enumerate().map(classes).collect::<Map<_, _>>(),
        "bounds_us": BOUNDS_US,
        "durations": histograms(&tallies, GROUPS.len(), Tally::durations),
        "first_tokens": histograms(&tallies, TOKEN_GROUPS, Tally::first_tokens),
        "verdicts": verdicts(&tallies),
        "restarts": restarts(board),
        "engine": format!("{:?}", board.engine_state()).to_lowercase(),
        "engine_counters": ENGINE.into_iter().map(engine).collect::<Map<_, _>>(),
        "limits": counts.map(|Counts { pressure, breaker_open, .. }| {
            json!({"claimed": pressure.claimed, "evicted": pressure.evicted, "overflowed": pressure.overflowed,
                "redis_failing": breaker_open})
        }),
        "security": Security::ALL.iter().map(|what| (what.name().to_owned(), json!(events(board, *what))))
            .collect::<Map<_, _>>(),
        "log": {"emitted": log.emitted, "written": log.written, "dropped": log.dropped, "lost": log.lost},
    })
}

fn worker(number: usize, slot: Slot, now_ms: u64) -> Value {
    let sum = |word: fn(&Lane) -> u64| slot.lanes().map(|lane| word(&lane)).fold(0, u64::wrapping_add);
    json!({
        "slot": number,
        "pid": slot.pid(),
        "state": format!("{:?}", slot.state()).to_lowercase(),
        "age_ms": now_ms.saturating_sub(slot.since_ms()),
        "connections": sum(Lane::connections),
        "in_flight": sum(Lane::in_flight),
        "requests": sum(Lane::requests),
        "silent_ms": slot.lanes().map(|lane| lane.silent_ms(now_ms)).max(),
    })
}

/// By group: the buckets' own counts, the last without a bound.
fn histograms(tallies: &[Tally], groups: usize, read: Read) -> Value {
    let group = |group: usize| {
        let words = total(tallies, |tally, word| read(tally, group, word));
        (GROUPS[group].to_owned(), json!(words[..=BOUNDS_US.len()]))
    };
    Value::Object((0..groups).map(group).collect())
}

fn verdicts(tallies: &[Tally]) -> Value {
    let count = |verdict| tallies.iter().map(|tally| tally.verdicts(verdict)).fold(0, u64::wrapping_add);
    Value::Object(VERDICTS.iter().enumerate().map(|(at, name)| ((*name).to_owned(), json!(count(at)))).collect())
}

/// By process and cause, those that happened.
fn restarts(board: Board) -> Value {
    let of = |process: usize| {
        let causes = CAUSES.iter().enumerate().map(|(cause, name)| (*name, board.ends().of(process, cause)));
        causes
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect::<Map<_, _>>()
    };
    Value::Object(PROCESSES.iter().enumerate().map(|(at, name)| ((*name).to_owned(), of(at).into())).collect())
}

fn events(board: Board, what: Security) -> u64 {
    board.log()[what.word()].load(Relaxed)
}

fn total(tallies: &[Tally], read: impl Fn(&Tally, usize) -> u64) -> [u64; HISTOGRAM_WORDS] {
    std::array::from_fn(|word| tallies.iter().map(|tally| read(tally, word)).fold(0, u64::wrapping_add))
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
            let count = tallies.iter().map(|tally| tally.requests(route, class)).fold(0, u64::wrapping_add);
            let _ = writeln!(out, "chatcorn_requests_total{{route=\"{name}\",status=\"{status}\"}} {count}");
        }
    }
    head(out, "limit_verdicts_total", "Verdicts of the rate limiter.", "counter");
    for (verdict, name) in VERDICTS.iter().enumerate() {
        let count = tallies.iter().map(|tally| tally.verdicts(verdict)).fold(0, u64::wrapping_add);
        let _ = writeln!(out, "chatcorn_limit_verdicts_total{{verdict=\"{name}\"}} {count}");
    }
}

fn durations(out: &mut String, tallies: &[Tally]) {
    let timed: [(&str, &str, usize, Read); 2] = [
        (
            "request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            GROUPS.len(),
            Tally::durations,
        ),
        (
            "time_to_first_token_seconds",
            "Time from a request's head to the first piece of text that its model wrote.",
            TOKEN_GROUPS,
            Tally::first_tokens,
        ),
    ];
    for (name, help, groups, read) in timed {
        head(out, name, help, "histogram");
        for (group, route) in GROUPS.iter().enumerate().take(groups) {
            histogram(out, name, route, &total(tallies, |tally, word| read(tally, group, word)));
        }
    }
}

fn histogram(out: &mut String, name: &str, route: &str, words: &[u64; HISTOGRAM_WORDS]) {
    let mut count = 0u64;
    for (bound, bucket) in BOUNDS_US.iter().zip(words) {
        count = count.wrapping_add(*bucket);
        let bound = *bound as f64 / 1e6;
        let _ = writeln!(out, "chatcorn_{name}_bucket{{route=\"{route}\",le=\"{bound}\"}} {count}");
    }
    count = count.wrapping_add(words[BOUNDS_US.len()]);
    let sum = words[BOUNDS_US.len() + 1] as f64 / 1e6;
    let _ = writeln!(out, "chatcorn_{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {count}");
    let _ = writeln!(out, "chatcorn_{name}_sum{{route=\"{route}\"}} {sum}");
    let _ = writeln!(out, "chatcorn_{name}_count{{route=\"{route}\"}} {count}");
}

fn fleet(out: &mut String, board: Board) {
    head(out, "workers", "Workers by state.", "gauge");
    for state in [State::Booting, State::Ready, State::Draining] {
        let count = board.opened().filter(|(_, slot)| slot.state() == state).count();
        let name = format!("{state:?}").to_lowercase();
        let _ = writeln!(out, "chatcorn_workers{{state=\"{name}\"}} {count}");
    }
    let open = board.opened().map(|(_, slot)| slot).filter(|slot| slot.state() != State::Empty);
    let (mut connections, mut in_flight) = (0u64, 0u64);
    // A worker may write anything into its own words.
    for lane in open.flat_map(|slot| slot.lanes()) {
        connections = connections.wrapping_add(lane.connections());
        in_flight = in_flight.wrapping_add(lane.in_flight());
    }
    single(out, "connections", "Connections that are open.", "gauge", connections);
    single(out, "requests_in_flight", "Requests that have begun and not ended.", "gauge", in_flight);
}

fn ends(out: &mut String, board: Board) {
    let ends = board.ends();
    head(out, "restarts_total", "Processes that ended while the server went on, by cause.", "counter");
    for (process, name) in PROCESSES.iter().enumerate() {
        for (at, cause) in CAUSES.iter().enumerate() {
            let count = ends.of(process, at);
            let _ = writeln!(out, "chatcorn_restarts_total{{process=\"{name}\",cause=\"{cause}\"}} {count}");
        }
    }
    head(out, "reloads_total", "Reloads by their result.", "counter");
    for (at, result) in RESULTS.iter().enumerate() {
        let _ = writeln!(out, "chatcorn_reloads_total{{result=\"{result}\"}} {}", ends.reloads(at));
    }
    head(out, "upgrades_total", "Upgrades by their result.", "counter");
    for (at, result) in RESULTS.iter().enumerate() {
        let _ = writeln!(out, "chatcorn_upgrades_total{{result=\"{result}\"}} {}", ends.upgrades(at));
    }
}

fn security(out: &mut String, board: Board) {
    head(out, "security_events_total", "Security events, those that the log only sums up included.", "counter");
    for what in Security::ALL {
        let count = events(board, what);
        let _ = writeln!(out, "chatcorn_security_events_total{{event=\"{}\"}} {count}", what.name());
    }
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
            counters::CACHED_TOKENS,
            counters::COMPLETION_TOKENS,
            counters::CANCELLED,
            counters::REFUSED,
            counters::STEPS,
        ];
        assert_eq!(ENGINE.map(|(_, _, _, word)| word), words);
    }
}
