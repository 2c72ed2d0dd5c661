//! What lies in `LOG_DIR`: ours, and closed to others.

use super::{Finding, text};
use crate::config::raw::Raw;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// More files than any rotation leaves; the first ones tell enough.
const FILES_MAX: usize = 1000;

/// Modes and owners of the directory and its files.
pub fn look(raw: &Raw) -> Vec<Finding> {
    let directory = PathBuf::from(text(raw, "log_dir"));
    let owner = owner(&text(raw, "user"));
    match std::fs::symlink_metadata(&directory) {
        Ok(seen) if seen.is_dir() => vec![folder(&directory, &seen, owner), files(&directory, owner)],
        Ok(_) => {
            let says = format!("{} is not a directory of its own", directory.display());
            vec![Finding::failure("LOG_DIR", says, "set LOG_DIR to a directory, not to a link or a file")]
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            vec![Finding::ok("LOG_DIR", format!("{} is not there yet; serve makes it 0700", directory.display()))]
        }
        Err(error) => {
            let says = format!("{} cannot be looked at: {error}", directory.display());
            vec![Finding::failure("LOG_DIR", says, "run the audit as the server's user")]
        }
    }
}

/// Who writes the logs: the configured user, else whoever runs this.
fn owner(user: &str) -> u32 {
    let named = nix::unistd::User::from_name(user).ok().flatten().map(|user| user.uid.as_raw());
    named.or_else(|| user.parse().ok()).unwrap_or_else(|| nix::unistd::geteuid().as_raw())
}

fn folder(path: &Path, seen: &Metadata, owner: u32) -> Finding {
    let shown = path.display();
    match wrong(seen, 0o700, owner) {
        Some(wrong) => Finding::failure("LOG_DIR", format!("{shown} {wrong}"), mend(path, "0700", owner)),
        None => Finding::ok("LOG_DIR", format!("{shown} is ours, with mode 0700")),
    }
}

fn files(directory: &Path, owner: u32) -> Finding {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            let says = format!("{} cannot be listed: {error}", directory.display());
            return Finding::failure("log files", says, "run the audit as the server's user");
        }
    };
    let mut count = 0;
    for entry in entries.filter_map(Result::ok).take(FILES_MAX) {
        let Ok(seen) = std::fs::symlink_metadata(entry.path()) else { continue };
        let wrong = if seen.is_file() { wrong(&seen, 0o600, owner) } else { Some("is not a plain file".to_owned()) };
        if let Some(wrong) = wrong {
            let says = format!("{} {wrong}", entry.path().display());
            return Finding::failure("log files", says, mend(&entry.path(), "0600", owner));
        }
        count += 1;
    }
    Finding::ok("log files", format!("{count} files, all ours, with mode 0600 or less"))
}

/// What is wrong with owner or mode; fewer rights than `allowed` are fine.
fn wrong(seen: &Metadata, allowed: u32, owner: u32) -> Option<String> {
    let mode = seen.mode() & 0o7777;
    if seen.uid() != owner {
        return Some(format!("belongs to user {}, not to {owner}", seen.uid()));
    }
    (mode & !allowed != 0).then(|| format!("has mode {mode:04o}"))
}

fn mend(path: &Path, mode: &str, owner: u32) -> String {
    format!("chown {owner} and chmod {mode} {}", path.display())
}
