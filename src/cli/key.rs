//! `chatcorn key new|list|revoke`: the file of API keys, changed by one command at a time. A running server sees the
//! change within a second.

use crate::http::keys::{self, Record};
use crate::limit::quota;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 86_400;
/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Makes a key and shows it, this once.
///
/// # Errors
/// A sentence: a bad quota or name, or the file cannot be read or written.
pub fn new(path: &Path, name: &str, expires_days: Option<u64>, quotas: Option<&str>) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters"));
    }
    quotas.map(quota::parse).transpose().map_err(|error| error.to_string())?;
    let _lock = lock(path)?;
    let mut records = if path.exists() { keys::records(path)? } else { Vec::new() };
    let (key, mut record) = keys::issue(name, now_s()).map_err(|error| error.to_string())?;
    record.expires = expires_days.map(|days| record.created + days * DAY_S);
    record.quota = quotas.map(str::to_owned);
    records.push(record);
    put(path, records)?;
    eprintln!("This key is shown once; {} holds its SHA-256.", path.display());
    if quotas.is_some() {
        eprintln!("A running server counts by its quotas after the next reload.");
    }
    println!("{key}");
    Ok(())
}

/// Shows every key.
///
/// # Errors
/// The file cannot be read.
pub fn list(path: &Path) -> Result<(), String> {
    println!(
        "{:<12}  {:<8}  {:<10}  {:<10}  {:<16}  {:<24}  QUOTAS",
        "ID", "STATE", "MADE", "EXPIRES", "LAST USED", "NAME"
    );
    for record in keys::records(path)? {
        let used = std::fs::metadata(keys::used_directory(path).join(&record.id)).and_then(|found| found.modified());
        let used = used.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
        println!(
            "{:<12}  {:<8}  {:<10}  {:<10}  {:<16}  {:<24}  {}",
            record.id,
            state(&record, now_s()),
            day(record.created),
            record.expires.map_or_else(|| "never".to_owned(), day),
            used.map_or_else(|| "never".to_owned(), minute),
            record.name,
            record.quota.as_deref().unwrap_or("as everyone"),
        );
    }
    Ok(())
}

/// Ends a key; its record stays, so that its use is told apart from a guess.
///
/// # Errors
/// There is no such key, or the file cannot be read or written.
pub fn revoke(path: &Path, id: &str) -> Result<(), String> {
    let _lock = lock(path)?;
    let mut records = keys::records(path)?;
    let found = records.iter_mut().find(|record| record.id == id);
    let record = found.ok_or_else(|| format!("no key has the id {id:?}: `chatcorn key list` shows them"))?;
    record.revoked.get_or_insert(now_s());
    put(path, records)?;
    println!("{id} is revoked");
    Ok(())
}

fn put(path: &Path, records: Vec<Record>) -> Result<(), String> {
    keys::write(path, records).map_err(|error| format!("{} cannot be written: {error}", path.display()))
}

/// Two commands at once would lose one's change.
fn lock(path: &Path) -> Result<Flock<File>, String> {
    let path = keys::beside(path, ".lock");
    let told = |error: std::io::Error| format!("{} cannot be locked: {error}", path.display());
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(told)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| told(error.into()))
}

fn state(record: &Record, now_s: u64) -> &'static str {
    match (record.revoked, record.expires) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now_s => "expired",
        _ => "good",
    }
}

fn day(seconds: u64) -> String {
    minute(seconds).chars().take(10).collect()
}

/// `2026-01-31T12:00`, in UTC.
fn minute(seconds: u64) -> String {
    let mut text = Vec::new();
    crate::log::time::Stamp::default().write(std::time::Duration::from_secs(seconds), &mut text);
    String::from_utf8_lossy(&text).chars().take(16).collect()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
