//! One line of the log, JSON or text: what it says of itself, whether it is wanted, how it looks to people.

use serde_json::{Map, Value};
use std::io::{self, Write};

/// Bytes of `2026-01-02T03:04:05.678Z`.
const TIME_BYTES: usize = 24;
/// Severity of a line that does not say: access lines in text.
const INFO: u8 = 3;
const NAMES: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const COLOURS: [&str; 5] = ["\x1b[31;1m", "\x1b[33m", "\x1b[32m", "\x1b[2m", "\x1b[2m"];
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";
/// Fields that are shown in a place of their own, or not at all.
const HEAD: [&str; 7] = ["time", "level", "message", "process", "target", "pid", "worker"];

/// Which lines are wanted.
#[derive(Clone, Debug)]
pub struct Filter {
    /// From this time on: the beginning of an RFC 3339 time in UTC.
    pub since: Option<String>,
    /// The least severe that is shown, 1 (error) to 5 (trace).
    pub level_max: u8,
    /// One request alone.
    pub request: Option<String>,
}

impl Default for Filter {
    fn default() -> Filter {
        Filter { since: None, level_max: NAMES.len() as u8, request: None }
    }
}

impl Filter {
    /// Whether a line is wanted; one without a time shares the fate of the line before.
    pub(super) fn wants(&self, line: &Line<'_>, before: bool) -> bool {
        let Some(time) = &line.time else { return before || self.takes_all() };
        self.since.as_deref().is_none_or(|since| time.as_str() >= since)
            && line.level <= self.level_max
            && self.request.as_deref().is_none_or(|id| line.is_of(id))
    }

    fn takes_all(&self) -> bool {
        self.since.is_none() && self.request.is_none() && self.level_max >= INFO
    }
}

/// The severity with this name, 1 (error) to 5 (trace).
pub fn severity(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase();
    let name = match name.as_str() {
        "warning" => "warn",
        "critical" => "error",
        other => other,
    };
    NAMES.iter().position(|known| *known == name).map(|at| at as u8 + 1)
}

/// A line taken apart.
pub(super) struct Line<'a> {
    text: &'a [u8],
    time: Option<String>,
    level: u8,
    fields: Option<Map<String, Value>>,
}

/// The time of a line, without reading all of it.
pub(super) fn time_of(text: &[u8]) -> Option<String> {
    let from = text.strip_prefix(br#"{"time":""#).unwrap_or(text);
    let time = from.get(..TIME_BYTES).filter(|time| time[4] == b'-' && time[10] == b'T' && time[23] == b'Z')?;
    String::from_utf8(time.to_vec()).ok()
}

impl<'a> Line<'a> {
    pub(super) fn read(text: &'a [u8]) -> Line<'a> {
        let fields = match serde_json::from_slice(text) {
            Ok(Value::Object(fields)) => Some(fields),
            _ => None,
        };
        let named = match &fields {
            Some(fields) => fields.get("level").and_then(Value::as_str).and_then(severity),
            None => text.split(|byte| *byte == b' ').nth(1).and_then(|word| severity(&String::from_utf8_lossy(word))),
        };
        Line { text, time: time_of(text), level: named.unwrap_or(INFO), fields }
    }

    fn is_of(&self, id: &str) -> bool {
        match &self.fields {
            Some(fields) => fields.get("request_id").and_then(Value::as_str) == Some(id),
            None => {
                let text = String::from_utf8_lossy(self.text);
                text.split([' ', '"']).any(|word| {
                    word.strip_prefix("request_id=")
                        .or_else(|| word.strip_prefix("id="))
                        .is_some_and(|value| value == id)
                })
            }
        }
    }

    /// Writes it for people. Nothing that it holds can steer the terminal.
    pub(super) fn write_coloured(&self, out: &mut impl Write) -> io::Result<()> {
        let at = usize::from(self.level.clamp(1, 5)) - 1;
        let Some(fields) = &self.fields else {
            let colour = if self.level < INFO { COLOURS[at] } else { "" };
            return writeln!(out, "{colour}{}{PLAIN}", harmless(&String::from_utf8_lossy(self.text)));
        };
        let text = |name: &str| fields.get(name).map(shown).unwrap_or_default();
        let process =
            fields.get("worker").map_or_else(|| text("process"), |worker| format!("worker {}", shown(worker)));
        let (time, name) = (text("time").replace('T', " "), NAMES[at].to_ascii_uppercase());
        write!(out, "{DIM}{}{PLAIN} {}{name:<5}{PLAIN} {process} ", time.trim_end_matches('Z'), COLOURS[at])?;
        if text("target") == "access" {
            return self.write_access(fields, out);
        }
        write!(out, "{}", text("message"))?;
        let rest = fields.iter().filter(|(name, _)| !HEAD.contains(&name.as_str()));
        rest.into_iter()
            .try_for_each(|(name, value)| write!(out, " {DIM}{}={PLAIN}{}", harmless(name), shown(value)))?;
        writeln!(out)
    }

    fn write_access(&self, fields: &Map<String, Value>, out: &mut impl Write) -> io::Result<()> {
        let text = |name: &str| fields.get(name).map(shown).unwrap_or_default();
        let status = fields.get("status").and_then(Value::as_u64).unwrap_or_default();
        let colour = COLOURS[if status >= 500 { 0 } else { usize::from(status < 400) + 1 }];
        write!(out, "{} {} {colour}{status}{PLAIN} {} ms", text("method"), text("path"), text("duration_ms"))?;
        for name in ["client", "bytes_out", "verdict", "request_id", "user_agent"] {
            write!(out, " {DIM}{name}={PLAIN}{}", text(name))?;
        }
        writeln!(out)
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| harmless(&value.to_string()), harmless)
}

fn harmless(text: &str) -> String {
    let steers =
        |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars()
        .map(|letter| if steers(letter) { letter.escape_unicode().to_string() } else { letter.into() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lines_know_their_level_and_their_request() {
        let line = Line::read(b"2026-01-02T03:04:05.678Z WARN  worker 2[7] chat: slow request_id=ab12");
        assert_eq!((line.level, line.time.as_deref()), (2, Some("2026-01-02T03:04:05.678Z")));
        assert!(line.is_of("ab12") && !line.is_of("ab1"));
        let access =
            Line::read(b"2026-01-02T03:04:05.678Z h:01 \"GET / HTTP/1.1\" 200 worker=1 verdict=- id=ab12 \"-\"");
        assert!(access.is_of("ab12") && access.level == INFO);
    }
}
