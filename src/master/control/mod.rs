//! The operator's socket: requests and answers, one JSON object a line, beside the signals and through the same loop.
//!
//! ```text
//! chatcorn status ─▶ socket (0600) ─▶ inbox ─▶ Control.turn ─▶ Request ─▶ master ─▶ Answer … Answer ─▶ chatcorn status
//! ```
//! A caller is this user or root, as the kernel says it. Everything is bounded: callers, what one may say, what waits
//! for one that does not read; nobody is waited for. Deliberately absent: a thread, trust in what a caller sends, and
//! a way to make a server fail: where no socket can be made there is none, with a warning.

mod call;
pub mod words;

use super::operator::For;
use crate::listener::{self, Address, Listener};
use crate::sys::{clock, fd, process};
use call::Call;
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
use words::{Answer, Request};

/// Callers at once; beyond them the one that has been silent longest goes.
const CALLS_MAX: usize = 16;
/// A caller that asked nothing by then goes.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Callers that the kernel holds.
const BACKLOG: i32 = 16;

/// Names that a start looks at when it removes what killed masters left behind.
const TIDIED_MAX: usize = 256;
/// Who binds a name listens there at once: a younger one is not looked at.
const YOUNG: Duration = Duration::from_secs(60);

/// One caller; never used again.
pub type CallId = u64;

/// The socket and its callers.
pub struct Control {
    listener: Option<UnixListener>,
    path: PathBuf,
    calls: BTreeMap<CallId, Call>,
    last: CallId,
}

impl Control {
    /// Makes the socket; without one there are no callers, and a warning.
    pub fn open(path: &Path) -> Control {
        let listener = prepare(path).and_then(|()| bind(path));
        tidy(path);
        if let Err(reason) = &listener {
            tracing::warn!(path = %path.display(), %reason, "no control socket: `chatcorn status` will not work");
        }
        Control { listener: listener.ok(), path: path.to_owned(), calls: BTreeMap::new(), last: 0 }
    }

    /// The socket of a former program and its callers, numbered in their order; a socket is made when it had none.
    pub fn adopt(listener: Option<RawFd>, path: &Path, calls: &[(RawFd, For)]) -> Control {
        let Some(listener) = listener.and_then(|raw| fd::duplicate(raw).ok()) else { return Control::open(path) };
        let call = |raw: RawFd| Some(Call::waiting(UnixStream::from(fd::duplicate(raw).ok()?)));
        let calls: BTreeMap<CallId, Call> =
            (1..).zip(calls).filter_map(|(id, (raw, _))| Some((id, call(*raw)?))).collect();
        let last = calls.len() as CallId;
        Control { listener: Some(UnixListener::from(listener)), path: path.to_owned(), calls, last }
    }

    /// The socket's descriptor.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.listener.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// A caller's descriptor, unless he is gone or has not read everything.
    pub fn caller(&self, id: CallId) -> Option<RawFd> {
        self.calls.get(&id).filter(|call| !call.has_more()).map(|call| call.stream().as_raw_fd())
    }

    /// What to wait for: each descriptor, and whether to wait until it can be written to as well.
    pub fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let listener = self.listener.iter().map(|listener| (listener.as_fd(), false));
        listener.chain(self.calls.values().map(|call| (call.stream(), call.has_more())))
    }

    /// Takes new callers, what they ask, and hands on what waits for them. Never waits.
    pub fn turn(&mut self) -> Vec<(CallId, Request)> {
        self.accept();
        let mut asked = Vec::new();
        for (id, call) in &mut self.calls {
            call.read(|line| match words::request(line) {
                Ok(request) => {
                    asked.push((*id, request));
                    None
                }
                Err(reason) => Some(Answer::Refused(reason)),
            });
            call.write();
        }
        let now = clock::monotonic();
        self.calls.retain(|_, call| !call.is_over() && (call.asked() || now < call.since() + ASK_LIMIT));
        asked
    }

    /// Says something to a caller, who may be gone. What is final ends the call once it is written.
    pub fn say(&mut self, id: CallId, answer: &Answer) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.say(answer);
            call.write();
            if call.is_over() {
                self.calls.remove(&id);
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((stream, _)) = listener.accept() {
            match process::peer(&stream) {
                Ok(uid) if uid == 0 || uid == process::uid() => {}
                _ => continue,
            }
            if self.calls.len() >= CALLS_MAX
                && let Some(oldest) = self.calls.keys().next().copied()
            {
                self.calls.remove(&oldest);
            }
            if let Ok(call) = Call::new(stream) {
                self.last += 1;
                self.calls.insert(self.last, call);
            }
        }
    }

    /// Removes the socket's name: the server ends.
    pub fn close(&self) {
        if self.listener.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Makes the directory, and refuses one in which somebody else could put a socket of his own.
fn prepare(path: &Path) -> Result<(), String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let told = |error: io::Error| format!("{}: {error}", directory.display());
    if let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(directory)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(told(error));
    }
    let found = std::fs::metadata(directory).map_err(told)?;
    let (owned, mode) = (found.uid() == 0 || found.uid() == process::uid(), found.mode());
    // Sticky directories keep strangers from renaming what is ours.
    match owned && (mode & 0o022 == 0 || mode & 0o1000 != 0) {
        true => Ok(()),
        false => Err(format!("{} can be written by others", directory.display())),
    }
}

fn bind(path: &Path) -> Result<UnixListener, String> {
    let listener = Listener::bind(&Address::Unix(path.to_owned()), BACKLOG, None).map_err(|error| error.to_string())?;
    let socket = listener.socket().map_err(|error| error.to_string())?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// Removes the sockets of masters that were killed in other directories: those beside a socket whose name says that it
/// is the default's, in a directory of this user's. A master started again in its directory replaces its own.
fn tidy(path: &Path) {
    let ours = |path: &Path| is_default_name(path).then(|| path.symlink_metadata().ok()).flatten();
    let owned = |found: &Metadata| found.uid() == process::uid() && found.file_type().is_socket();
    let old = |found: &Metadata| found.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > YOUNG);
    let Some(directory) = path.parent().filter(|_| is_default_name(path)) else { return };
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten().take(TIDIED_MAX);
    for other in names.map(|entry| entry.path()).filter(|other| other != path) {
        if ours(&other).is_some_and(|found| owned(&found) && old(&found)) && listener::is_abandoned(&other) {
            let _ = std::fs::remove_file(other);
        }
    }
}

/// Sixteen hexadecimal digits, as the configuration makes it from the server's directory.
fn is_default_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".sock"));
    name.is_some_and(|name| name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::time::{SystemTime, UNIX_EPOCH};

    /// A socket's place; its directory ends with it.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let directory = std::env::temp_dir().join(format!("chatcorn-control-{}-{name}", std::process::id()));
            Place(directory.join("0123456789abcdef.sock"))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    fn turn_until(control: &mut Control, count: usize) -> Vec<(CallId, Request)> {
        let mut asked = Vec::new();
        while asked.len() < count {
            asked.extend(control.turn());
        }
        asked
    }

    #[test]
    fn a_request_is_answered_and_junk_is_refused() {
        let place = Place::new("a");
        let path = &place.0;
        let mut control = Control::open(path);
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut junk = UnixStream::connect(path).unwrap();
        junk.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"{\"do\":\"scale\",\"workers\":3}\n").unwrap();
        let asked = turn_until(&mut control, 1);
        assert_eq!(asked[0].1, Request::Scale { workers: 3 });
        control.say(asked[0].0, &Answer::Progress("one".into()));
        control.say(asked[0].0, &Answer::Done("two".into()));
        let lines: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
        assert_eq!(lines, [r#"{"progress":"one"}"#, r#"{"done":"two"}"#]);
        let mut line = String::new();
        BufReader::new(junk).read_line(&mut line).unwrap();
        assert!(line.contains("refused"), "{line}");
        control.close();
        assert!(!path.exists());
    }

    #[test]
    fn callers_that_say_too_much_or_are_too_many_go() {
        let place = Place::new("b");
        let mut control = Control::open(&place.0);
        let mut many: Vec<UnixStream> = (0..CALLS_MAX + 3)
            .map(|_| {
                let stream = UnixStream::connect(&place.0).unwrap();
                control.turn();
                stream
            })
            .collect();
        assert_eq!(control.calls.len(), CALLS_MAX);
        let talker = many.last_mut().unwrap();
        talker.write_all(&[b'x'; 10_000][..]).unwrap();
        control.turn();
        assert_eq!(control.calls.len(), CALLS_MAX - 1);
    }

    #[test]
    fn a_start_removes_what_killed_masters_left_and_nothing_else() {
        let place = Place::new("c");
        let beside = |name: &str| place.0.with_file_name(name);
        drop(Control::open(&place.0));
        let bound = |name: &str, age: Duration| {
            let listener = UnixListener::bind(beside(name)).unwrap();
            let made = (SystemTime::now() - age).duration_since(UNIX_EPOCH).unwrap().into();
            utimensat(AT_FDCWD, &beside(name), &made, &made, UtimensatFlags::FollowSymlink).unwrap();
            listener
        };
        drop(bound("00000000000000aa.sock", YOUNG * 2));
        drop(bound("00000000000000bb.sock", Duration::ZERO));
        drop(bound("other.sock", YOUNG * 2));
        let _lives = bound("00000000000000cc.sock", YOUNG * 2);
        let _control = Control::open(&place.0);
        let mut left: Vec<_> = std::fs::read_dir(place.0.parent().unwrap()).unwrap().flatten().collect();
        left.sort_by_key(std::fs::DirEntry::file_name);
        let left: Vec<_> = left.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
        let kept = ["00000000000000bb.sock", "00000000000000cc.sock", "0123456789abcdef.sock", "other.sock"];
        assert_eq!(left, kept);
    }
}
