//! A server's status as people read it. Pure.

use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "SLOT      PID  STATE        AGE   CONN  BUSY   REQUESTS       RSS    BEAT  RESTARTS";

/// The whole picture.
pub fn status(status: &Value) -> String {
    let mut text = String::new();
    let age = age(&status["age_s"]);
    let (version, pid, phase) = (word(&status["version"]), number(&status["pid"]), word(&status["phase"]));
    let _ = writeln!(text, "chatcorn {version}  pid {pid}  {phase} for {age}, configuration {}", status["generation"]);
    for listener in status["listeners"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "listens   {}", word(listener));
    }
    if let Some(stage) = status["upgrade"].as_str() {
        let _ = writeln!(text, "upgrade   under way: {stage}");
    }
    for (name, last) in [("reload ", &status["last_reload"]), ("upgrade", &status["last_upgrade"])] {
        if last.is_object() {
            let how = if last["done"] == true { "done" } else { "refused" };
            let _ = writeln!(text, "{name}   {how} {} ago: {}", self::age(&last["age_s"]), word(&last["text"]));
        }
    }
    text.push_str(&helpers(status));
    text.push_str(&replaced(&status["restarts"]));
    let _ = writeln!(text, "\n{HEAD}");
    for worker in status["workers"].as_array().into_iter().flatten() {
        text.push_str(&worker_line(worker));
    }
    text
}

/// Workers that had to be replaced: how many by whom, and the last one.
fn replaced(restarts: &Value) -> String {
    let causes = restarts["causes"].as_object().into_iter().flatten();
    let causes: Vec<String> = causes.map(|(by, count)| format!("{} by {by}", number(count))).collect();
    let Some(last) = restarts["recent"].as_array().and_then(|recent| recent.last()) else { return String::new() };
    let (pid, ago, how) = (number(&last["pid"]), age(&last["age_s"]), word(&last["text"]));
    format!("replaced  {}; the last {ago} ago: worker {pid}, {how}\n", causes.join(", "))
}

/// Requests of all workers so far.
pub fn requests(status: &Value) -> f64 {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers.filter_map(|worker| worker["requests"].as_f64()).sum()
}

fn helpers(status: &Value) -> String {
    let mut text = String::new();
    let (log, store) = (&status["log"], &status["store"]);
    match &status["engine"] {
        Value::Null => text.push_str("engine    none: an upstream answers\n"),
        engine => {
            let (state, pid) = (word(&engine["state"]), number(&engine["pid"]));
            let (active, queued) = (number(&engine["active"]), number(&engine["queued"]));
            let _ =
                writeln!(text, "engine    {state}  pid {pid}  {active} under way, {queued} wait{}", restarts(engine));
        }
    }
    let (written, dropped, lost) = (number(&log["written"]), number(&log["dropped"]), number(&log["lost"]));
    let pid = number(&log["pid"]);
    let _ = writeln!(text, "log       pid {pid}  {written} lines, {dropped} dropped, {lost} lost{}", restarts(log));
    match &status["limits"] {
        Value::Null => text.push_str("limits    off\n"),
        limits => {
            let redis = if limits["redis_failing"] == true { ", Redis fails" } else { "" };
            let _ = writeln!(text, "limits    {} clients{redis}", number(&limits["clients"]));
        }
    }
    let _ = writeln!(text, "store     {}  {}", word(&store["path"]), bytes(&store["bytes"]));
    text
}

fn worker_line(worker: &Value) -> String {
    format!(
        "{:>4} {:>8}  {:<9} {:>7} {:>6} {:>5} {:>10} {:>9} {:>4} ms  {}\n",
        number(&worker["slot"]),
        number(&worker["pid"]),
        word(&worker["state"]),
        age(&worker["age_s"]),
        number(&worker["connections"]),
        number(&worker["in_flight"]),
        number(&worker["requests"]),
        bytes(&worker["rss_bytes"]),
        number(&worker["heartbeat_ms"]),
        deaths(worker),
    )
}

fn deaths(value: &Value) -> String {
    match value["last_death"].as_str() {
        Some(last) => format!("{} ({last})", number(&value["restarts"])),
        None => number(&value["restarts"]),
    }
}

fn restarts(value: &Value) -> String {
    if value["last_death"].is_null() { String::new() } else { format!(", restarts {}", deaths(value)) }
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

fn number(value: &Value) -> String {
    value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn bytes(value: &Value) -> String {
    match value.as_u64() {
        None => "-".to_owned(),
        Some(bytes) if bytes < 1 << 20 => format!("{} KiB", bytes >> 10),
        Some(bytes) => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
    }
}

fn age(value: &Value) -> String {
    let seconds = value.as_f64().unwrap_or_default() as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_readable_and_gaps_do_not_break_it() {
        let full = json!({
            "version": "1", "pid": 5, "phase": "running", "age_s": 3700.2, "generation": 2,
            "listeners": ["http://0.0.0.0:1"], "engine": null, "limits": null, "log": {"pid": 6, "written": 3},
            "last_reload": {"done": false, "text": "no", "age_s": 61},
            "restarts": {"causes": {"oom": 1, "us": 2}, "recent": [{"pid": 7, "age_s": 3, "text": "signal 9: hung"}]},
            "workers": [{"pid": 9, "slot": 0, "state": "ready", "age_s": 1, "rss_bytes": 3 << 20, "restarts": 1,
                "last_death": "signal 9"}],
        });
        let text = status(&full);
        for part in [
            "running for 1h01m",
            "refused 1m01s ago: no",
            "3.0 MiB",
            "1 (signal 9)",
            "1 by oom, 2 by us; the last 3s ago: worker 7, signal 9: hung",
            "limits    off",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(status(&json!({})).contains("chatcorn -"));
    }
}
