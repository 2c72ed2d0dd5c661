//! What is known of one connection: written by the adapter and the service, read by the sweeper. Atomics only, one allocation.

use super::super::head::Refusal;
use super::again::{Again, Stand};
use crate::sys::clock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// The path of the one request that stands in a refused head's place. It is no secret: [`Ledger::arrived`] goes by the request's
/// number on its connection, and a client that asks for this path gets what any unknown path gets.
pub const MARKER_PATH: &str = "/.refused";

/// The marker as hyper reads it.
pub const MARKER: &[u8] = b"GET /.refused HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";

/// The same in place of a HEAD, whose answer has no body.
pub const MARKER_OF_HEAD: &[u8] = b"HEAD /.refused HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";

/// Idle for so long by the sweeper's looks, a connection gives hyper's buffers back.
pub const REST_AFTER_MS: u64 = 1_000;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// The next request, or the answer to the last one.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// Everything is answered and our side is shut; what the client still sends is thrown away, so that a reset does not eat the answer.
    Linger,
    /// The client has ended its side while answers are owed: it left, or it only said that it has no more to ask.
    Leaving,
}

/// How long a connection may wait, in milliseconds. The defaults are those of the flags.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `--header-timeout`, from a head's first bytes; also from accept to the first byte.
    pub head_ms_max: u64,
    /// `--body-timeout`, from the moment a body is waited for; also for a client that does not take its answer.
    pub body_ms_max: u64,
    /// What each KiB that came (or went) adds to `body_ms_max`.
    pub per_kib_ms: u64,
    /// What `body_ms_max` with its additions may reach: `--timeout`.
    pub whole_ms_max: u64,
    /// `--keep-alive`.
    pub idle_ms_max: u64,
    /// How long a client that got its last answer may still send.
    pub linger_ms_max: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            head_ms_max: 10_000,
            body_ms_max: 30_000,
            per_kib_ms: 1_000,
            whole_ms_max: 120_000,
            idle_ms_max: 75_000,
            linger_ms_max: 2_000,
        }
    }
}

/// Whether hyper serves a connection, or nothing of hyper is held until the client says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Rest {
    Not,
    /// The sweeper wants it.
    Wanted,
    /// hyper's end is not the connection's.
    Begun,
}

/// Which limit a connection has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Overdue {
    /// No request came, or none at all since accept: closed without a word.
    Idle = 1,
    /// A head is too slow: answered with 408.
    Head,
    /// A body is too slow: its reader gets an error, [`Ledger::refusal`] says 408.
    Body,
    /// The client does not take its answer: closed.
    Stall,
    /// The client goes on sending after its last answer: closed.
    Linger,
    /// The client left, and the answers that it is owed were not there by the sweeper's next look: they are cancelled.
    Leaving,
}

/// The facts of one connection. All times are [`clock::monotonic_ms`].
pub struct Ledger {
    opened_ms: u64,
    streams: Option<Times>,
    phase: AtomicU8,
    since_ms: AtomicU64,
    refusal: AtomicU8,
    marker: AtomicU64,
    broken: AtomicU64,
    below_v1: AtomicBool,
    arrived: AtomicU64,
    answered: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    body_bytes: AtomicU64,
    uploading: AtomicU64,
    stalled_since_ms: AtomicU64,
    stalled_at_bytes: AtomicU64,
    order: AtomicU8,
    rest: AtomicU8,
    again: AtomicU8,
    kept: AtomicU64,
    offer: Mutex<Option<Box<dyn Again>>>,
    swept_activity: AtomicU64,
    swept_ms: AtomicU64,
    waker: Mutex<Option<Waker>>,
}

impl Ledger {
    /// The ledger of a connection accepted at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            opened_ms: now_ms,
            streams: None,
            phase: AtomicU8::new(Phase::Idle as u8),
            since_ms: AtomicU64::new(now_ms),
            refusal: AtomicU8::new(0),
            marker: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            below_v1: AtomicBool::new(false),
            arrived: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            uploading: AtomicU64::new(0),
            stalled_since_ms: AtomicU64::new(0),
            stalled_at_bytes: AtomicU64::new(0),
            order: AtomicU8::new(0),
            rest: AtomicU8::new(Rest::Not as u8),
            again: AtomicU8::new(Stand::Nothing as u8),
            kept: AtomicU64::new(0),
            offer: Mutex::new(None),
            swept_activity: AtomicU64::new(0),
            swept_ms: AtomicU64::new(now_ms),
            waker: Mutex::new(None),
        }
    }

    /// The ledger of a connection that carries many requests at once: no sweeper times their bodies, so readers do.
    pub fn of_streams(now_ms: u64, times: Times) -> Self {
        Self { streams: Some(times), ..Self::new(now_ms) }
    }

    /// The limits that readers keep themselves; `None`: the sweeper keeps them.
    pub fn reader_times(&self) -> Option<&Times> {
        self.streams.as_ref()
    }

    /// The service's first word on every request, in hyper's order. `Some`: this is the marker, and the refusal is the answer.
    #[inline]
    pub fn arrived(&self, path: &str) -> Option<Refusal> {
        let number = self.arrived.fetch_add(1, Relaxed) + 1;
        if self.marker.load(Acquire) != number || path != MARKER_PATH {
            return None;
        }
        self.refusal()
    }

    /// Why the body of the newest request that has arrived is refused, when that is known before anybody has read it; for HTTP/1,
    /// where one follows the other.
    pub fn broken_body(&self) -> Option<Refusal> {
        let broken = self.broken.load(Acquire) == self.arrived.load(Relaxed);
        self.refusal().filter(|_| broken)
    }

    /// True when the refused head asked for something below `/v1/`, whose errors have a shape of their own.
    pub fn below_v1(&self) -> bool {
        self.below_v1.load(Relaxed)
    }

    /// The service's last word on every request: its answer has ended, or was dropped.
    #[inline]
    pub fn answered(&self) {
        self.answered.fetch_add(1, Relaxed);
        if self.phase() == Phase::Head {
            self.since_ms.store(clock::monotonic_ms(), Relaxed);
        }
    }

    /// Answers that have ended, or were dropped.
    pub fn answers(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Requests that have arrived and are not answered yet.
    pub fn in_flight(&self) -> u64 {
        let answered = self.answered.load(Relaxed);
        self.arrived.load(Relaxed).saturating_sub(answered)
    }

    /// The service could answer the last request that arrived again: `offer` makes the answer of an equal one, and is asked
    /// only once the request's bytes are at hand.
    pub fn repeats(&self, offer: impl FnOnce() -> Option<Box<dyn Again>>) {
        let again = self.again.load(Relaxed);
        if again == Stand::Nothing as u8 {
            self.again.store(Stand::Wanted as u8, Relaxed);
        } else if again == Stand::Kept as u8 && self.kept.load(Relaxed) == self.arrived.load(Relaxed) {
            *self.offer.lock().unwrap_or_else(PoisonError::into_inner) = offer();
            self.again.store(Stand::Offered as u8, Relaxed);
        }
    }

    /// True while the body of the newest request that has arrived has not come whole; for HTTP/1, where one follows the other.
    pub fn uploads(&self) -> bool {
        self.uploading.load(Relaxed) == self.arrived.load(Relaxed)
    }

    /// Why this connection ends, once that is so; a body that could not be read for this reason is answered with it.
    pub fn refusal(&self) -> Option<Refusal> {
        Refusal::from_number(self.refusal.load(Acquire))
    }

    /// What the connection waits for.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            1 => Phase::Head,
            2 => Phase::Body,
            3 => Phase::Linger,
            4 => Phase::Leaving,
            _ => Phase::Idle,
        }
    }

    /// Since when, in milliseconds; exact for every phase but [`Phase::Idle`], whose beginning the sweeper sees.
    pub fn since_ms(&self) -> u64 {
        self.since_ms.load(Relaxed)
    }

    /// Bytes that came from the client.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Relaxed)
    }

    /// Bytes that went to the client.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Relaxed)
    }

    /// The sweeper's look, about once a second and from one thread at a time: what is overdue is ordered to end and named.
    pub fn sweep(&self, now_ms: u64, times: &Times) -> Option<Overdue> {
        let overdue = self.overdue(now_ms, times);
        match overdue {
            Some(overdue) => self.order.store(overdue as u8, Release),
            None if self.may_rest(now_ms) => self.rest.store(Rest::Wanted as u8, Release),
            None => return None,
        }
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
        overdue
    }

    /// Everything was answered and taken a while ago, and no body is under way.
    fn may_rest(&self, now_ms: u64) -> bool {
        let quiet_ms = now_ms.saturating_sub(self.swept_ms.load(Relaxed));
        let served = self.phase() == Phase::Idle && self.answers() > 0 && self.in_flight() == 0;
        served && quiet_ms >= REST_AFTER_MS && self.rest.load(Relaxed) == Rest::Not as u8
    }

    /// True once for each time that the sweeper wants this connection to rest and it still may.
    pub fn rests(&self) -> bool {
        let wanted = self.rest.load(Acquire) == Rest::Wanted as u8;
        let may =
            wanted && self.phase() == Phase::Idle && self.in_flight() == 0 && self.stalled_since_ms.load(Relaxed) == 0;
        if wanted {
            self.rest.store(if may { Rest::Begun } else { Rest::Not } as u8, Relaxed);
        }
        may
    }

    /// hyper serves it again, or ends it.
    pub fn rest_ends(&self) {
        self.rest.store(Rest::Not as u8, Relaxed);
    }

    fn overdue(&self, now_ms: u64, times: &Times) -> Option<Overdue> {
        let idle_ms = self.idle_ms(now_ms);
        let waited_ms = now_ms.saturating_sub(self.since_ms());
        let stalled_since_ms = self.stalled_since_ms.load(Relaxed);
        if stalled_since_ms > 0 {
            let taken = self.bytes_out().saturating_sub(self.stalled_at_bytes.load(Relaxed));
            return (now_ms.saturating_sub(stalled_since_ms) >= times.allowed_ms(taken)).then_some(Overdue::Stall);
        }
        let (overdue, late) = match self.phase() {
            Phase::Leaving => (Overdue::Leaving, true),
            Phase::Linger => (Overdue::Linger, waited_ms >= times.linger_ms_max),
            Phase::Body => (Overdue::Body, waited_ms >= times.allowed_ms(self.body_bytes.load(Relaxed))),
            Phase::Head => (Overdue::Head, self.in_flight() == 0 && waited_ms >= times.head_ms_max),
            Phase::Idle if self.bytes_in() == 0 => {
                (Overdue::Idle, now_ms.saturating_sub(self.opened_ms) >= times.head_ms_max)
            }
            Phase::Idle => (Overdue::Idle, self.in_flight() == 0 && idle_ms >= times.idle_ms_max),
        };
        late.then_some(overdue)
    }

    /// How long nothing has moved, by the sweeper's own observation: so a request costs no clock.
    fn idle_ms(&self, now_ms: u64) -> u64 {
        let activity = self.bytes_in() + self.bytes_out() + self.arrived.load(Relaxed) + self.answered.load(Relaxed);
        if self.swept_activity.swap(activity, Relaxed) != activity {
            self.swept_ms.store(now_ms, Relaxed);
        }
        now_ms.saturating_sub(self.swept_ms.load(Relaxed))
    }
}

/// The adapter's side.
impl Ledger {
    pub(super) fn enter(&self, phase: Phase, now_ms: u64) {
        self.since_ms.store(now_ms, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    pub(super) fn idle(&self) {
        self.phase.store(Phase::Idle as u8, Relaxed);
    }

    /// Whether the next request's bytes are to be kept.
    #[inline]
    pub(super) fn wants_kept(&self) -> bool {
        self.again.load(Relaxed) == Stand::Wanted as u8
    }

    /// They are those of this request, which has not arrived yet.
    pub(super) fn kept(&self, number: u64) {
        self.kept.store(number, Relaxed);
        self.again.store(Stand::Kept as u8, Relaxed);
    }

    pub(super) fn forgotten(&self) {
        self.again.store(Stand::Nothing as u8, Relaxed);
    }

    /// What the service offered for what was kept.
    pub(super) fn take_offer(&self) -> Option<Box<dyn Again>> {
        self.offer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is known of a refused head's target.
    pub(super) fn refused_head(&self, bytes: &[u8]) {
        let target = bytes.iter().position(|byte| *byte == b' ').map_or(&[][..], |space| &bytes[space + 1..]);
        self.below_v1.store(target.starts_with(b"/v1/"), Relaxed);
    }

    /// `marker` is the number that the marker request will have.
    pub(super) fn refuse(&self, refusal: Refusal, marker: u64) {
        self.refusal.store(refusal as u8, Release);
        self.marker.store(marker, Release);
    }

    /// The same of a body, that of the request with this number.
    pub(super) fn refuse_body(&self, refusal: Refusal, request: u64) {
        self.refusal.store(refusal as u8, Release);
        self.broken.store(request, Release);
    }

    #[inline]
    pub(super) fn set_bytes_in(&self, bytes: u64) {
        self.bytes_in.store(bytes, Relaxed);
    }

    #[inline]
    pub(super) fn set_bytes_out(&self, bytes: u64) {
        self.bytes_out.store(bytes, Relaxed);
    }

    pub(super) fn set_uploading(&self, request: u64) {
        self.uploading.store(request, Relaxed);
    }

    pub(super) fn set_body_bytes(&self, bytes: u64) {
        self.body_bytes.store(bytes, Relaxed);
    }

    /// From now on the client owes us room; `None` when it has taken everything.
    pub(super) fn stalled(&self, since_ms: Option<u64>) {
        self.stalled_at_bytes.store(self.bytes_out(), Relaxed);
        self.stalled_since_ms.store(since_ms.map_or(0, |ms| ms.max(1)), Relaxed);
    }

    #[inline]
    pub(super) fn order(&self) -> Option<Overdue> {
        match self.order.load(Acquire) {
            0 => None,
            1 => Some(Overdue::Idle),
            2 => Some(Overdue::Head),
            3 => Some(Overdue::Body),
            4 => Some(Overdue::Stall),
            5 => Some(Overdue::Linger),
            _ => Some(Overdue::Leaving),
        }
    }

    /// Whether all of the first `requests` requests are answered.
    pub(super) fn answered_all(&self, requests: u64) -> bool {
        self.answered.load(Relaxed) >= requests
    }

    /// True while hyper's end is not the connection's.
    pub fn at_rest(&self) -> bool {
        self.rest.load(Relaxed) == Rest::Begun as u8
    }

    pub(super) fn clear_order(&self) {
        self.order.store(0, Relaxed);
    }

    pub(super) fn wake_by(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger of {:?} since {} ms, {} in flight", self.phase(), self.since_ms(), self.in_flight())
    }
}

impl Times {
    fn allowed_ms(&self, bytes: u64) -> u64 {
        (bytes / 1024).saturating_mul(self.per_kib_ms).saturating_add(self.body_ms_max).min(self.whole_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times =
        Times { head_ms_max: 10, body_ms_max: 30, per_kib_ms: 1, whole_ms_max: 120, idle_ms_max: 75, linger_ms_max: 2 };

    #[test]
    fn each_phase_has_its_limit() {
        let ledger = Ledger::new(100);
        assert_eq!(ledger.sweep(109, &TIMES), None);
        assert_eq!(ledger.sweep(110, &TIMES), Some(Overdue::Idle));
        ledger.set_bytes_in(1);
        for (phase, limit, overdue) in
            [(Phase::Head, 10, Overdue::Head), (Phase::Body, 30, Overdue::Body), (Phase::Linger, 2, Overdue::Linger)]
        {
            ledger.enter(phase, 200);
            assert_eq!(ledger.sweep(199 + limit, &TIMES), None);
            assert_eq!(ledger.sweep(200 + limit, &TIMES), Some(overdue));
            assert_eq!(ledger.order(), Some(overdue));
        }
    }

    #[test]
    fn a_body_and_an_answer_earn_time_by_their_bytes() {
        let ledger = Ledger::new(0);
        ledger.enter(Phase::Body, 100);
        ledger.set_body_bytes(10 * 1024);
        assert_eq!(ledger.sweep(139, &TIMES), None);
        assert_eq!(ledger.sweep(140, &TIMES), Some(Overdue::Body));
        ledger.set_body_bytes(u64::MAX);
        assert_eq!(ledger.sweep(219, &TIMES), None);
        assert_eq!(ledger.sweep(220, &TIMES), Some(Overdue::Body));
        ledger.set_bytes_out(1 << 40);
        ledger.stalled(Some(300));
        ledger.set_bytes_out((1 << 40) + 4096);
        assert_eq!(ledger.sweep(333, &TIMES), None);
        assert_eq!(ledger.sweep(334, &TIMES), Some(Overdue::Stall));
    }

    #[test]
    fn an_answer_that_is_owed_is_waited_for() {
        let ledger = Ledger::new(0);
        ledger.set_bytes_in(50);
        assert_eq!(ledger.arrived("/"), None);
        assert_eq!(ledger.sweep(100, &TIMES), None);
        assert_eq!(ledger.sweep(1_000, &TIMES), None);
        ledger.answered();
        ledger.set_bytes_out(50);
        assert_eq!(ledger.sweep(1_001, &TIMES), None);
        assert_eq!(ledger.sweep(1_075, &TIMES), None);
        assert_eq!(ledger.sweep(1_076, &TIMES), Some(Overdue::Idle));
    }

    #[test]
    fn who_is_idle_for_a_while_rests_and_who_is_busy_does_not() {
        let ledger = Ledger::new(0);
        ledger.set_bytes_in(50);
        let times = Times::default();
        assert_eq!(ledger.arrived("/"), None);
        ledger.sweep(5_000, &times);
        ledger.sweep(7_000, &times);
        assert!(!ledger.rests(), "an answer is owed");
        ledger.answered();
        ledger.sweep(8_000, &times);
        ledger.sweep(8_900, &times);
        assert!(!ledger.rests(), "too soon");
        ledger.sweep(9_000, &times);
        assert!(ledger.rests() && ledger.at_rest() && !ledger.rests());
        ledger.rest_ends();
        ledger.sweep(9_100, &times);
        ledger.set_bytes_in(60);
        ledger.enter(Phase::Head, 9_100);
        assert!(!ledger.rests(), "a head came in between");
        assert!(!ledger.at_rest());
    }

    #[test]
    fn the_marker_is_known_by_its_number() {
        let ledger = Ledger::new(0);
        assert_eq!(ledger.arrived(MARKER_PATH), None);
        ledger.refuse(Refusal::HostMissing, 3);
        assert_eq!(ledger.arrived(MARKER_PATH), None);
        assert_eq!(ledger.arrived(MARKER_PATH), Some(Refusal::HostMissing));
        assert_eq!(ledger.arrived(MARKER_PATH), None);
    }

    #[test]
    fn the_marker_is_what_its_path_says() {
        assert!(MARKER.starts_with(format!("GET {MARKER_PATH} HTTP/1.1\r\n").as_bytes()));
        assert_eq!(MARKER_OF_HEAD, [b"HEAD", &MARKER[3..]].concat());
    }
}
