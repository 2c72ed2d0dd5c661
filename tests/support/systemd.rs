//! A systemd for one server: it binds sockets, hands them over, and hears what the server says of itself.

use super::{LIMIT, Server};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

/// The receiver of `sd_notify`.
pub struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
    /// Everything that it heard.
    heard: Mutex<Vec<String>>,
}

impl Systemd {
    /// Listens at a place of its own.
    pub fn start() -> Systemd {
        let name = format!("chatcorn-systemd-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        Systemd { socket, path, heard: Mutex::default() }
    }

    /// For `NOTIFY_SOCKET`.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// The next message that holds `line`, as its lines; those before it are passed over.
    pub fn expect(&self, line: &str) -> Vec<String> {
        let end = Instant::now() + LIMIT;
        loop {
            let message = self.next(end).unwrap_or_else(|| panic!("no {line:?} in {:#?}", self.heard.lock().unwrap()));
            let lines: Vec<String> = message.lines().map(str::to_owned).collect();
            if lines.iter().any(|found| found.starts_with(line)) {
                return lines;
            }
        }
    }

    /// The next message until then.
    pub fn next(&self, end: Instant) -> Option<String> {
        let left = end.saturating_duration_since(Instant::now());
        self.socket.set_read_timeout(Some(left.max(std::time::Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).ok()?;
        let message = String::from_utf8(bytes[..length].to_vec()).unwrap();
        self.heard.lock().unwrap().push(message.clone());
        Some(message)
    }

    /// Everything that was heard so far.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Gives one socket (as stdin) or two (stdout) the numbers that a server expects them at, and becomes the server.
const HAND_OVER: &str = "export LISTEN_PID=$$; ln \"$0\" ./chatcorn 2>/dev/null || cp \"$0\" ./chatcorn; \
                         if [ \"$LISTEN_FDS\" = 2 ]; then exec 3<&0 4<&1 </dev/null >&2; else exec 3<&0 </dev/null; fi; \
                         exec ./chatcorn";

/// Starts a server with sockets that were bound before it; the program stands as `chatcorn` in its directory.
pub fn activate(sockets: Vec<OwnedFd>, variables: &[(&str, &str)]) -> Server {
    let count = sockets.len().to_string();
    let given = [("LISTEN_FDS", count.as_str()), ("RATE_LIMIT_ENABLED", "false")];
    let without_bind = |name: &str| name != "BIND" || variables.iter().any(|(other, _)| *other == "BIND");
    Server::spawn_given(&["sh", "-c", HAND_OVER], &[&given, variables].concat(), &[], sockets, without_bind)
}
