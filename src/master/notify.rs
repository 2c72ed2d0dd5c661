//! Telling systemd how it goes: one datagram a message to `$NOTIFY_SOCKET`, without which nothing is said.
//!
//! Source of the messages: sd_notify(3). Nothing is said that is not so: `READY=1` after the workers answered, and after
//! a reload only where it had been said before.

use crate::sys::clock;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What is asked for with each word of a stop that takes its time: ten of them may be late.
const EXTENSION: Duration = Duration::from_secs(10);

/// The way to systemd, if there is one.
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    next_watchdog: Duration,
    /// `READY=1` was said once.
    ready: bool,
    status: String,
    /// What was said last did not arrive.
    unheard: bool,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; `ready`: a former program said `READY=1`.
    pub fn from_environment(environment: &[(OsString, OsString)], ready: bool) -> Notify {
        let value = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let number = |name: &str| value(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        let socket = value("NOTIFY_SOCKET").and_then(|path| open(path.as_bytes()).ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && ours);
        // Half of what systemd waits for, as sd_watchdog_enabled(3) recommends.
        let watchdog = micros.map(|micros| Duration::from_micros(micros) / 2).filter(|_| socket.is_some());
        Notify { socket, watchdog, next_watchdog: Duration::ZERO, ready, status: String::new(), unheard: false }
    }

    /// How often the loop has to turn at least.
    pub fn every(&self) -> Option<Duration> {
        self.watchdog
    }

    /// All workers answered.
    pub fn ready(&mut self, status: &str) {
        self.ready = true;
        self.say_with("READY=1", status);
    }

    /// A reload changed nothing: whoever was ready is.
    pub fn ready_again(&mut self, status: &str) {
        self.say_with(if self.ready { "READY=1" } else { "" }, status);
    }

    /// A reload begins; `READY=1` ends it.
    pub fn reloading(&mut self) {
        if self.ready {
            self.say_with(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic().as_micros()), "reloading");
        }
    }

    /// The server stops.
    pub fn stopping(&mut self, status: &str) {
        self.say_with(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()), status);
    }

    /// What is under way takes its time, within the server's own limits.
    pub fn goes_on(&mut self, status: &str) {
        self.say_with(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()), status);
    }

    /// How it goes, in words; said when they change.
    pub fn status(&mut self, status: &str) {
        if status != self.status {
            self.say_with("", status);
        }
    }

    /// The loop turned and the heartbeats were looked at.
    pub fn alive(&mut self, now: Duration) {
        if let Some(every) = self.watchdog.filter(|_| now >= self.next_watchdog) {
            self.next_watchdog = now + every;
            self.say("WATCHDOG=1");
        }
    }

    fn say_with(&mut self, message: &str, status: &str) {
        self.status = status.replace('\n', " ");
        let line = format!("{message}\nSTATUS={}", self.status);
        self.say(line.trim_start());
    }

    fn say(&mut self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        match socket.send_to_addr(message.as_bytes(), address) {
            Ok(_) => self.unheard = false,
            // Once, not at every beat.
            Err(error) if !self.unheard => {
                self.unheard = true;
                tracing::warn!(%error, "systemd does not listen");
            }
            Err(_) => {}
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

    fn listener(name: &str) -> (UnixDatagram, [(OsString, OsString); 2]) {
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let environment =
            [("NOTIFY_SOCKET".into(), format!("@{name}").into()), ("WATCHDOG_USEC".into(), "4000000".into())];
        (UnixDatagram::bind_addr(&address).unwrap(), environment)
    }

    fn heard(listener: &UnixDatagram) -> String {
        let mut bytes = [0; 200];
        let length = listener.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_arrive_and_silence_is_fine() {
        let (listener, environment) = listener("chatcorn-notify-test");
        let mut notify = Notify::from_environment(&environment, false);
        notify.ready("4 workers");
        assert_eq!(heard(&listener), "READY=1\nSTATUS=4 workers");
        notify.alive(Duration::from_secs(10));
        assert_eq!(heard(&listener), "WATCHDOG=1");
        notify.alive(Duration::from_secs(11));
        notify.status("4 workers");
        notify.status("3 of 4 workers");
        assert_eq!(heard(&listener), "STATUS=3 of 4 workers");
        notify.reloading();
        assert!(heard(&listener).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        notify.ready_again("refused");
        assert_eq!(heard(&listener), "READY=1\nSTATUS=refused");
        notify.stopping("draining");
        assert_eq!(heard(&listener), "STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000\nSTATUS=draining");
        Notify::from_environment(&[], false).ready("nobody");
    }

    #[test]
    fn who_was_never_ready_is_not_ready_again_and_a_watchdog_of_another_process_is_not_ours() {
        let (listener, environment) = listener("chatcorn-notify-test-2");
        let other = [&environment[..], &[("WATCHDOG_PID".into(), "1".into())]].concat();
        let mut notify = Notify::from_environment(&other, false);
        notify.reloading();
        notify.alive(Duration::from_secs(10));
        notify.ready_again("refused");
        assert_eq!(heard(&listener), "STATUS=refused");
        assert_eq!(Notify::from_environment(&other, false).every(), None);
        assert_eq!(Notify::from_environment(&environment, false).every(), Some(Duration::from_secs(2)));
    }
}
