//! One writer a directory: a lock file below `LOG_DIR`, held for the life of the log process.

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::PollTimeout;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// The lock's name.
const NAME: &str = ".lock";
/// A predecessor of the same master may write out what it has for so many milliseconds.
const WAIT_MS_MAX: u32 = 10_000;
const STEP_MS: u8 = 10;

/// Held until it is dropped or the process is gone.
pub(super) type Lock = Flock<File>;

/// Takes the directory's lock. A stranger who holds it keeps the directory: then there is none for us, and a sentence.
pub(super) fn take(dir: Option<PathBuf>) -> (Option<Lock>, Option<PathBuf>, Option<String>) {
    let Some(dir) = dir else { return (None, None, None) };
    let opened = super::rotate::open_dir(&dir, None).and_then(|fd| super::rotate::open_file(fd.as_fd(), NAME));
    // A directory that cannot be used now is tried again by its file's own retries.
    let Ok(opened) = opened else { return (None, Some(dir), None) };
    match acquire(opened.file) {
        Ok(lock) => (Some(lock), Some(dir), None),
        Err(holder) => {
            let text = format!(
                "{} is in use by another chatcorn (master {holder}); give each its own LOG_DIR; logging to stderr alone",
                dir.display()
            );
            (None, None, Some(text))
        }
    }
}

fn acquire(mut file: File) -> Result<Flock<File>, String> {
    let master = std::os::unix::process::parent_id().to_string();
    for _ in 0..WAIT_MS_MAX / u32::from(STEP_MS) {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(master.as_bytes()));
                return Ok(lock);
            }
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
            Err((_, error)) => return Err(error.desc().to_owned()),
        }
        let holder = holder(&mut file);
        if holder != master {
            return Err(holder);
        }
        let _ = nix::poll::poll(&mut [], PollTimeout::from(STEP_MS));
    }
    Err(master)
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| Read::by_ref(file).take(32).read_to_string(&mut text));
    text
}
