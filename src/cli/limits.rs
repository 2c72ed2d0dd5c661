//! `chatcorn limits show|reset CLIENT`: how a client of the running server stands.

use super::ask::ask;
use crate::master::control::words::{Answer, Request};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// Asks the server at `socket`, and prints what it says; `client` is an address, `unix`, or a key's id.
///
/// # Errors
/// Nobody answers, there is no such client, or Redis could not be reached for a reset.
pub fn run(socket: &Path, client: &str, reset: bool, as_json: bool) -> Result<(), String> {
    let request = Request::Limits { client: client.to_owned(), reset };
    let mut told = match ask(socket, &request, |_| {})? {
        Answer::Limits(told) => told,
        Answer::Refused(reason) => return Err(reason),
        other => return Err(format!("an answer of another version: {other:?}")),
    };
    let reached = told["reached"] != false;
    if let Some(told) = told.as_object_mut() {
        told.remove("reached");
        told.insert("client".into(), client.into());
        if reset {
            told.insert("reset".into(), json!({"memory": true, "redis_reached": reached}));
        }
    }
    match as_json {
        true => println!("{told:#}"),
        false => print!("{}", table(&told)),
    }
    match reset && !reached {
        true => Err("Redis could not be reached: it still has its counts".into()),
        false => Ok(()),
    }
}

fn table(told: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string());
    let exempt = if told["exempt"] == true { ", exempt: no limit applies" } else { "" };
    let done = if told["reset"].is_object() { " was reset" } else { "" };
    let mut text = String::new();
    let _ = writeln!(text, "{}{done}, counted in {}{exempt}", word(&told["client"]), word(&told["store"]));
    let _ = writeln!(text, "{:<20} {:>10} {:>10} {:>10}  ENDS IN", "LIMIT", "USED", "OF", "LEFT");
    for limit in told["limits"].as_array().into_iter().flatten() {
        let (used, of, left) = (number(&limit["count"]), number(&limit["limit"]), number(&limit["remaining"]));
        let ends = if limit["count"] == 0 { "-".to_owned() } else { format!("{}s", number(&limit["reset_s"])) };
        let owed = match limit["owed_to_redis"].as_u64() {
            Some(owed @ 1..) => format!("  ({owed} that Redis has not heard of)"),
            _ => String::new(),
        };
        let _ = writeln!(text, "{:<20} {used:>10} {of:>10} {left:>10}  {ends}{owed}", word(&limit["name"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_a_table_and_gaps_do_not_break_it() {
        let told = json!({"client": "::1", "store": "redis", "limits": [
            {"name": "minute", "limit": 10, "count": 3, "remaining": 7, "reset_s": 41, "owed_to_redis": 2},
            {"name": "day", "limit": 200, "count": 0, "remaining": 200, "reset_s": 0}, {}]});
        let text = table(&told);
        for part in ["::1, counted in redis", "41s  (2 that Redis has not heard of)", "200  -"] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}
