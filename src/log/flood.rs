//! Security events, counted one by one and logged without flooding: the same event of the same client is one line in
//! ten seconds, and then one with how many there were.

use super::event::{self, Fields, SECURITY_TARGET};
use super::record::Kind;
use super::tally::word;
use super::{access, sink};
use crate::sys::clock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, PoisonError};

/// One line of each event and client in so many milliseconds.
const WINDOW_MS: u64 = 10_000;
/// Clients remembered at once; beyond them all further ones count together.
const CLIENTS_MAX: usize = 1024;
const WARN: u8 = 2;

static FLOODS: LazyLock<Mutex<Floods>> = LazyLock::new(Mutex::default);
/// When the oldest window ends; nobody looks before.
static DUE_MS: AtomicU64 = AtomicU64::new(u64::MAX);

/// What may have to be looked into. The names are stable: alerts hang on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// A client ran into a limit.
    RateLimited = 0,
    /// A wrong or missing key.
    AuthFailed = 1,
    /// A setting that was mended, such as `OMP_NUM_THREADS`.
    InvalidSetting = 2,
    /// A malformed or smuggling-like head.
    RequestRejected = 3,
    /// A burst of 404, 405, 400 from one client.
    Probe = 4,
    /// A head or body beyond its limit.
    Oversize = 5,
    /// A log file or directory changed under us.
    LogTampering = 6,
}

impl Security {
    /// All of them.
    pub const ALL: [Security; 7] = [
        Security::RateLimited,
        Security::AuthFailed,
        Security::InvalidSetting,
        Security::RequestRejected,
        Security::Probe,
        Security::Oversize,
        Security::LogTampering,
    ];

    /// The name in lines and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Security::RateLimited => "rate_limited",
            Security::AuthFailed => "auth_failed",
            Security::InvalidSetting => "invalid_setting",
            Security::RequestRejected => "request_rejected",
            Security::Probe => "probe",
            Security::Oversize => "oversize",
            Security::LogTampering => "log_tampering",
        }
    }

    /// Its word of [`crate::board::Board::log`], where all processes count it.
    pub fn word(self) -> usize {
        word::SECURITY + self as usize
    }
}

/// A security event with its fields. Counted always; a line at most once in ten seconds for a client.
pub fn security(what: Security, client: Option<IpAddr>, fields: &[(&str, &str)]) {
    let Some(sink) = sink::current() else { return };
    sink.board.log()[what.word()].fetch_add(1, Relaxed);
    let (passed, ended) = {
        let mut floods = FLOODS.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = floods.take(what, client, clock::coarse_ms());
        DUE_MS.store(floods.due_ms, Relaxed);
        answer
    };
    ended.into_iter().for_each(summary);
    if passed {
        line(what, client, |visitor| fields.iter().for_each(|(name, value)| visitor.text(name, value)));
    }
}

/// How the log names a client, by its setting: whole, hashed, or not at all.
pub fn client_name(client: IpAddr) -> String {
    let mut name = Vec::new();
    if let Some(sink) = sink::current() {
        access::write_client(sink.client, Some(client), &mut name);
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// Logs the sums of floods whose time has come.
pub(super) fn tick() {
    let due = DUE_MS.load(Relaxed);
    if due == u64::MAX || clock::monotonic_ms() < due {
        return;
    }
    let ended = {
        let mut floods = FLOODS.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = floods.end(clock::monotonic_ms());
        DUE_MS.store(floods.due_ms, Relaxed);
        ended
    };
    ended.into_iter().for_each(summary);
}

fn summary(flood: Ended) {
    line(flood.what, flood.client, |visitor| {
        visitor.bare("count", flood.suppressed);
        visitor.bare("seconds", WINDOW_MS / 1000);
    });
}

fn line(what: Security, client: Option<IpAddr>, more: impl FnOnce(&mut Fields<'_>)) {
    // None inside a formatter: the event is counted all the same.
    let _ = event::write(Kind::Security, WARN, SECURITY_TARGET, |visitor| {
        visitor.text("message", what.name());
        visitor.text("event", what.name());
        if let Some(client) = client {
            let mut name = Vec::new();
            access::write_client(visitor.client(), Some(client), &mut name);
            visitor.text("client", &String::from_utf8_lossy(&name));
        }
        more(visitor);
    });
}

/// Open windows.
struct Floods {
    open: HashMap<(Security, Option<IpAddr>), Window>,
    /// When the oldest window ends: every event asks.
    due_ms: u64,
}

impl Default for Floods {
    fn default() -> Floods {
        Floods { open: HashMap::new(), due_ms: u64::MAX }
    }
}

struct Window {
    since_ms: u64,
    suppressed: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct Ended {
    what: Security,
    client: Option<IpAddr>,
    suppressed: u64,
}

impl Floods {
    /// True when the event is to be logged, and the floods that have ended meanwhile.
    fn take(&mut self, what: Security, client: Option<IpAddr>, now_ms: u64) -> (bool, Vec<Ended>) {
        let ended = if now_ms >= self.due_ms { self.end(now_ms) } else { Vec::new() };
        if let Some(window) = self.open.get_mut(&(what, client)) {
            window.suppressed += 1;
            return (false, ended);
        }
        let known = self.open.len() < CLIENTS_MAX;
        let mut passed = false;
        let window = self.open.entry((what, if known { client } else { None })).or_insert_with(|| {
            passed = true;
            self.due_ms = self.due_ms.min(now_ms + WINDOW_MS);
            Window { since_ms: now_ms, suppressed: 0 }
        });
        window.suppressed += u64::from(!passed);
        (passed, ended)
    }

    /// Closes the windows that are over; those that held something back are told.
    fn end(&mut self, now_ms: u64) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.open.retain(|(what, client), window| {
            let over = now_ms.saturating_sub(window.since_ms) >= WINDOW_MS;
            if over && window.suppressed > 0 {
                ended.push(Ended { what: *what, client: *client, suppressed: window.suppressed });
            }
            !over
        });
        self.due_ms = self.open.values().map(|window| window.since_ms + WINDOW_MS).min().unwrap_or(u64::MAX);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_then_one_sum() {
        let (mut floods, client) = (Floods::default(), "10.0.0.1".parse().ok());
        let lines: Vec<bool> = (0..1000)
            .map(|at| floods.take(Security::AuthFailed, client, 100 + at).0)
            .filter(|passed| *passed)
            .collect();
        assert_eq!(lines.len(), 1);
        assert!(floods.take(Security::RateLimited, client, 200).0);
        assert!(floods.take(Security::AuthFailed, None, 200).0);
        let (passed, ended) = floods.take(Security::AuthFailed, client, 100 + WINDOW_MS);
        assert!(passed);
        assert_eq!(ended, [Ended { what: Security::AuthFailed, client, suppressed: 999 }]);
    }

    #[test]
    fn many_clients_do_not_grow_the_table() {
        let mut floods = Floods::default();
        let passed =
            (0..50_000u32).filter(|n| floods.take(Security::Probe, Some(IpAddr::V4((*n).into())), 1).0).count();
        assert_eq!(passed, CLIENTS_MAX + 1);
        let sum: u64 = floods.end(1 + WINDOW_MS).iter().map(|ended| ended.suppressed).sum();
        assert_eq!(sum + passed as u64, 50_000);
        assert!(floods.open.is_empty());
    }
}
