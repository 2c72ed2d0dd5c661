//! Telling systemd how it goes: one datagram a message to `$NOTIFY_SOCKET`, without which nothing is said.
//!
//! Source of the messages: sd_notify(3).

use crate::sys::clock;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd, if there is one.
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    next_watchdog: Duration,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub fn from_environment(environment: &[(OsString, OsString)]) -> Notify {
        let value = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let socket = value("NOTIFY_SOCKET").and_then(|path| open(path.as_bytes()).ok());
        let micros = value("WATCHDOG_USEC").and_then(|text| text.to_str()?.parse().ok()).filter(|micros| *micros > 0);
        // Half of what systemd waits for, as sd_watchdog_enabled(3) recommends.
        let watchdog = micros.map(|micros| Duration::from_micros(micros) / 2).filter(|_| socket.is_some());
        Notify { socket, watchdog, next_watchdog: Duration::ZERO }
    }

    /// All workers answered.
    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// A reload begins; `READY=1` ends it.
    pub fn reloading(&self) {
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", clock::monotonic().as_micros()));
    }

    /// The server stops; it may take as long as its drain.
    pub fn stopping(&self, limit: Duration) {
        self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS=draining", limit.as_micros()));
    }

    /// The loop turned and the heartbeats were looked at.
    pub fn alive(&mut self, now: Duration) {
        if let Some(every) = self.watchdog.filter(|_| now >= self.next_watchdog) {
            self.next_watchdog = now + every;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::warn!(%error, "systemd does not listen");
        }
    }
}

fn open(path: &[u8]) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_and_silence_is_fine() {
        let listener =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(b"chatcorn-notify-test").unwrap()).unwrap();
        let environment =
            [("NOTIFY_SOCKET".into(), "@chatcorn-notify-test".into()), ("WATCHDOG_USEC".into(), "4000000".into())];
        let mut notify = Notify::from_environment(&environment);
        let heard = || {
            let mut bytes = [0; 200];
            let length = listener.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        notify.ready("4 workers");
        assert_eq!(heard(), "READY=1\nSTATUS=4 workers");
        notify.alive(Duration::from_secs(10));
        assert_eq!(heard(), "WATCHDOG=1");
        notify.alive(Duration::from_secs(11));
        notify.stopping(Duration::from_secs(1));
        assert!(heard().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=1000000"));
        Notify::from_environment(&[]).ready("nobody");
    }
}
