//! Talking to the master over its control socket.

use crate::master::control::words::{Answer, Request};
use crate::sys::process;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a packaged service has its socket; asked when nobody answers at the place of this directory and user.
const SERVICE_SOCKET: &str = "/run/chatcorn/control.sock";
/// A master answers at once; what takes its time (a schema, a boot, a drain) says so on the way or ends by then.
const SILENCE_MAX: Duration = Duration::from_secs(200);
/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Asks, hands each word on the way to `progress`, and returns the last one.
///
/// # Errors
/// A sentence: nobody answers, somebody else does, or the server ended in mid-answer.
pub fn ask(path: &Path, request: &Request, mut progress: impl FnMut(&str)) -> Result<Answer, String> {
    let (stream, path) = connect(path)?;
    let told = |error: io::Error| format!("{}: {error}", path.display());
    let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    line.push(b'\n');
    stream.set_read_timeout(Some(SILENCE_MAX)).and_then(|()| (&stream).write_all(&line)).map_err(told)?;
    let mut lines = BufReader::new(&stream);
    loop {
        let mut line = String::new();
        if lines.by_ref().take(ANSWER_BYTES_MAX).read_line(&mut line).map_err(told)? == 0 {
            return Err("the server ended before it answered".into());
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Progress(text)) => progress(&text),
            Ok(last) => return Ok(last),
            Err(error) => return Err(format!("an answer of another version: {error}")),
        }
    }
}

fn connect(path: &Path) -> Result<(UnixStream, PathBuf), String> {
    let places = [path.to_owned(), PathBuf::from(SERVICE_SOCKET)];
    let mut reason = String::new();
    for place in places {
        match UnixStream::connect(&place) {
            Ok(stream) => return trusted(stream, place),
            Err(error) if reason.is_empty() => reason = format!("no chatcorn answers at {}: {error}", place.display()),
            Err(_) => {}
        }
    }
    Err(format!("{reason}; is it running, and is this its directory, user or --control-socket?"))
}

fn trusted(stream: UnixStream, place: PathBuf) -> Result<(UnixStream, PathBuf), String> {
    match process::peer(&stream) {
        Ok(uid) if uid == 0 || uid == process::uid() || process::is_root() => Ok((stream, place)),
        _ => Err(format!("{} belongs to another user", place.display())),
    }
}
