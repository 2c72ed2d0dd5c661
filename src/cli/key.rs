//! `chatcorn key new|list|revoke`: the file of API keys, changed by one command at a time. A running server sees the
//! change within a second.

use crate::http::auth;
use crate::http::keys::{self, Record};
use crate::limit::quota;
use crate::sys::process::{self, Identity};
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: u64 = 86_400;
/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Makes a key and shows it, this once. `service`: who the server is configured to run as; a file that root makes is theirs.
///
/// # Errors
/// A sentence: a bad quota or name, or the file cannot be read or written.
pub fn new(
    path: &Path,
    name: &str,
    expires_days: Option<u64>,
    quotas: Option<&str>,
    service: Option<Identity>,
) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("--name: a name has at most {NAME_BYTES_MAX} bytes and no control characters"));
    }
    quotas.map(quota::parse).transpose().map_err(|error| format!("--quota: {error}"))?;
    let is_new = !path.exists();
    let reader = if is_new { reader(path, service) } else { None };
    let _lock = lock(path, reader)?;
    let mut records = if is_new { Vec::new() } else { keys::records(path)? };
    let (key, mut record) = keys::issue(name, now_s()).map_err(|error| error.to_string())?;
    record.expires = expires_days.map(|days| record.created + days * DAY_S);
    record.quota = quotas.map(str::to_owned);
    records.push(record);
    put(path, records, reader)?;
    if is_new {
        tell_reader(path, reader);
        if let Some(Err(error)) = reader.map(|reader| uses_for(path, reader)) {
            eprintln!("The keys' last uses will not be noted: {error}");
        }
    }
    eprintln!("This key is shown once; {} holds its SHA-256.", path.display());
    if quotas.is_some() {
        eprintln!("A running server counts by its quotas after the next reload.");
    }
    println!("{key}");
    Ok(())
}

/// Who has to read a file that root makes, when that is somebody else: the configured user, else the owner of its directory.
fn reader(path: &Path, service: Option<Identity>) -> Option<(u32, u32)> {
    if process::uid() != 0 {
        return None;
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = || std::fs::metadata(directory).ok().map(|found| (found.uid(), found.gid()));
    service.map(|service| (service.uid, service.gid)).or_else(owner).filter(|(user, _)| *user != 0)
}

/// The place for the times of last use: in a directory of root's the service could not make it.
fn uses_for(path: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    let place = keys::used_directory(path);
    auth::make_directory(&place)?;
    let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
    let place = OpenOptions::new().read(true).custom_flags(flags.bits()).open(place)?;
    // What another user has put there stays theirs.
    if place.metadata()?.uid() == 0 { fchown(&place, Some(user), Some(group)) } else { Ok(()) }
}

/// Root made the file: the operator has to know who can read it now.
fn tell_reader(path: &Path, reader: Option<(u32, u32)>) {
    let path = path.display();
    match reader {
        Some((user, _)) => {
            eprintln!("{path} is new and belongs to {}, who alone can read it.", process::user_name(user))
        }
        None if process::uid() == 0 => eprintln!(
            "{path} is new and root's alone. A server that runs as another user cannot read it: chown it to that user, or name \
             the user with --user (CHATCORN_USER) here, too."
        ),
        None => {}
    }
}

/// Shows every key.
///
/// # Errors
/// The file cannot be read.
pub fn list(path: &Path) -> Result<(), String> {
    existing(path)?;
    let records = keys::records(path)?;
    println!(
        "{:<12}  {:<8}  {:<10}  {:<10}  {:<16}  {:<24}  QUOTAS",
        "ID", "STATE", "MADE", "EXPIRES", "LAST USED", "NAME"
    );
    for record in records {
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
    existing(path)?;
    let _lock = lock(path, None)?;
    let mut records = keys::records(path)?;
    let found = records.iter_mut().find(|record| record.id == id);
    let record = found.ok_or_else(|| format!("no key has the id {id:?}: `chatcorn key list` shows them"))?;
    record.revoked.get_or_insert(now_s());
    put(path, records, None)?;
    println!("{id} is revoked");
    Ok(())
}

/// A file that is not there yet is no accident but a beginning.
fn existing(path: &Path) -> Result<(), String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(format!("{} is not there: `chatcorn key new` makes it and its first key", path.display()))
        }
        _ => Ok(()),
    }
}

fn put(path: &Path, records: Vec<Record>, owner: Option<(u32, u32)>) -> Result<(), String> {
    let told = |error| format!("{} cannot be written: {}", path.display(), reason(path, &error));
    keys::write(path, records, owner).map_err(told)
}

/// Two commands at once would lose one's change. Root follows no link here and gives away only what it has just made.
fn lock(path: &Path, owner: Option<(u32, u32)>) -> Result<Flock<File>, String> {
    let place = keys::beside(path, ".lock");
    let told = |error: io::Error| format!("{} cannot be locked: {}", path.display(), reason(path, &error));
    let open = |new: bool| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(new).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&place)
    };
    let file = match open(true) {
        Ok(file) => owner.map_or(Ok(()), |(user, group)| fchown(&file, Some(user), Some(group))).map(|()| file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open(false),
        Err(error) => Err(error),
    };
    Flock::lock(file.map_err(told)?, FlockArg::LockExclusive).map_err(|(_, error)| told(error.into()))
}

/// The kernel's reason, and what to do about it.
fn reason(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match error.kind() {
        ErrorKind::NotFound => format!("{} is not there: make it first (mkdir)", directory.display()),
        ErrorKind::PermissionDenied => {
            format!("{error}; files are made in {}: run this as who may write there", directory.display())
        }
        _ => error.to_string(),
    }
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
