//! `chatcorn logs`: the log as someone wants to read it.
//!
//! ```text
//! app.log.5 … app.log.1, app.log ─▶ series ─┐
//! the access file and its backups ─▶ series ─┴─ by time ─▶ line: wanted? ─▶ as it is, or in colour
//!                     ▲ follows over rotations, looks every 250 ms
//! ```
//! Lines without a time of their own go with the line before. Deliberately absent: an index; a reader of the journal.

mod line;
mod series;

use crate::log::time::{self, Stamp};
use line::Line;
pub use line::{Filter, severity};
use series::Series;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// How long a follower waits between two looks.
const LOOK_MS: u64 = 250;

/// What is to be read, and how.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Files, each with its backups `.1` … `.5`.
    pub files: Vec<PathBuf>,
    /// Which lines.
    pub filter: Filter,
    /// Goes on with what is written later.
    pub follow: bool,
    /// For people, with colours; otherwise lines are printed as they are.
    pub colour: bool,
}

/// Prints what is wanted; with `follow`, until nobody reads any more.
///
/// # Errors
/// A sentence: no file could be read, or the output failed.
pub fn run(reading: &Reading, mut out: impl Write) -> Result<(), String> {
    let mut all = Vec::new();
    let mut problems = Vec::new();
    for path in &reading.files {
        match Series::open(path) {
            Ok(series) => all.push((series, Last::default())),
            Err(error) => problems.push(format!("{} cannot be read: {error}", path.display())),
        }
    }
    if all.is_empty() {
        return Err(problems.join("; "));
    }
    match print(reading, &mut all, &mut out) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// What lines without a time take over from the one before.
#[derive(Default)]
struct Last {
    time: String,
    shown: bool,
}

fn print(reading: &Reading, all: &mut [(Series, Last)], out: &mut impl Write) -> io::Result<()> {
    let mut heads: Vec<Option<Vec<u8>>> = Vec::new();
    loop {
        heads.resize(all.len(), None);
        for ((series, last), head) in all.iter_mut().zip(&mut heads) {
            if head.is_none() {
                *head = series.next_line(reading.follow)?;
                if let Some(time) = head.as_deref().and_then(line::time_of) {
                    last.time = time;
                }
            }
        }
        let next = (0..all.len()).filter(|at| heads[*at].is_some()).min_by(|a, b| all[*a].1.time.cmp(&all[*b].1.time));
        match next.and_then(|at| heads[at].take().map(|text| (at, text))) {
            Some((at, text)) => show(reading, &mut all[at].1, &text, out)?,
            None if reading.follow => {
                out.flush()?;
                std::thread::park_timeout(Duration::from_millis(LOOK_MS));
            }
            None => return out.flush(),
        }
    }
}

fn show(reading: &Reading, last: &mut Last, text: &[u8], out: &mut impl Write) -> io::Result<()> {
    let line = Line::read(text);
    last.shown = reading.filter.wants(&line, last.shown);
    if !last.shown {
        return Ok(());
    }
    if reading.colour {
        line.write_coloured(out)
    } else {
        out.write_all(text)?;
        out.write_all(b"\n")
    }
}

/// The beginning of `--since`: `90s`, `15m`, `2h`, `3d` ago, or a UTC date with as much of a time as is wanted.
///
/// # Errors
/// A sentence when it is neither.
pub fn since(text: &str) -> Result<String, String> {
    let wrong = || format!("--since {text:?}: write 15m, 2h, 3d, or 2026-01-02T03:04 (UTC)");
    if text.len() >= 10 && text.as_bytes()[4] == b'-' && text.is_ascii() {
        return Ok(text.replace(' ', "T"));
    }
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let ago_s = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s)).ok_or_else(wrong)?;
    let mut stamp = Vec::new();
    Stamp::default().write(time::now().saturating_sub(Duration::from_secs(ago_s)), &mut stamp);
    Ok(String::from_utf8_lossy(&stamp).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: Vec<PathBuf>, filter: Filter, colour: bool) -> String {
        let mut out = Vec::new();
        run(&Reading { files, filter, follow: false, colour }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn backups_and_the_access_file_are_one_story() {
        let dir = std::env::temp_dir().join(format!("chatcorn-logs-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (app, access) = (dir.join("app.log"), dir.join("access.log"));
        let json = |time: &str, rest: &str| format!("{{\"time\":\"2026-01-02T03:04:{time}Z\",{rest}}}\n");
        let old = json("01.000", r#""level":"warn","message":"old""#);
        std::fs::write(dir.join("app.log.1"), old).unwrap();
        let torn = "no time of its own\n";
        let new = json("03.000", r#""level":"error","message":"a\u001b[31mb","request_id":"x1""#);
        std::fs::write(&app, new + torn).unwrap();
        let line = json("02.000", r#""level":"info","target":"access","request_id":"x1""#);
        std::fs::write(&access, line).unwrap();
        let files = vec![app, access];
        let text = read(files.clone(), Filter::default(), false);
        let order: Vec<usize> =
            ["old", "access", "[31mb", "no time"].iter().map(|word| text.find(word).unwrap()).collect();
        assert!(order.is_sorted(), "{text}");
        let of_one = Filter { request: Some("x1".to_owned()), ..Filter::default() };
        assert_eq!(read(files.clone(), of_one, false).lines().count(), 3);
        let loud = Filter { level_max: 1, ..Filter::default() };
        assert!(!read(files.clone(), loud, false).contains("old"));
        let late = Filter { since: Some(since("2026-01-02 03:04:02").unwrap()), ..Filter::default() };
        assert!(!read(files.clone(), late, false).contains("old"));
        assert!(!read(files, Filter::default(), true).contains("\u{1b}[31mb"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn since_is_a_duration_or_a_date() {
        assert!(since("2h").unwrap() < since("1m").unwrap());
        assert_eq!(since("2026-01-02 03").unwrap(), "2026-01-02T03");
        assert!(since("soon").is_err() && since("").is_err() && since("99999999999999999999d").is_err());
    }
}
