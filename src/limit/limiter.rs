//! The limiter of one worker: the table, and before it Redis where there is one.

use super::client::{Identity, Peer, counted};
use super::plan::{Endpoint, Fallback, Plan, Route};
use super::quota::Quota;
use super::remote::Remote;
use super::script::{Mend, Script, mending};
use super::shared::{Shared, Word};
use super::table::Hash;
use super::tally::{Standing, Standings};
use super::verdict::{Outcome, Source, Verdict};
use super::word::{COUNT_FULL, Limit, Now};
use crate::sys::clock;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Bytes of an API key's id that count.
const KEY_BYTES_MAX: usize = 64;
/// A refusal by windows of this length and more is confirmed now and then.
const LONG_MS: u64 = 3_600_000;

/// A client, ready to be counted.
#[derive(Clone, Copy)]
pub struct Client {
    identity: [u8; KEY_BYTES_MAX + 1],
    length: usize,
    hash: Hash,
    exempt: bool,
    /// The key's own limits among the rules' routes.
    own: Option<usize>,
}

impl Client {
    pub(super) fn identity(&self) -> &[u8] {
        &self.identity[..self.length]
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    pub(super) fn own(&self) -> Option<usize> {
        self.own
    }

    pub(super) fn is_exempt(&self) -> bool {
        self.exempt
    }
}

/// The limiter of one worker (or of one of its threads: all that must be shared is in shared memory).
pub struct Limiter {
    shared: Shared,
    remote: Option<(Arc<Remote>, Vec<Script>)>,
}

impl Limiter {
    /// A limiter over memory that the master made, after the fork. With Redis, [`Limiter::keep`] must run, too.
    pub fn new(plan: &Plan, shared: Shared) -> Limiter {
        let scripts = || shared.rules.routes.iter().map(|route| Script::new(&route.limits)).collect();
        let remote = plan.redis.clone().map(|target| Remote::new(target, plan.redis_key.clone(), shared));
        Limiter { shared, remote: remote.map(|remote| (Arc::new(remote), scripts())) }
    }

    /// One that never asks Redis.
    pub fn of_memory(shared: Shared) -> Limiter {
        Limiter { shared, remote: None }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref().map(|(remote, _)| &**remote)
    }

    /// Keeps the connection to Redis, for ever; without Redis it never wakes. To be spawned once on the runtime that
    /// calls [`Limiter::check`].
    pub fn keep(&self) -> impl Future<Output = ()> + Send + use<> {
        let remote = self.remote.as_ref().map(|(remote, _)| remote.clone());
        async move {
            match remote {
                Some(remote) => remote.keep().await,
                None => std::future::pending().await,
            }
        }
    }

    /// True while Redis can be asked by this worker; always false without Redis.
    pub fn is_up(&self) -> bool {
        self.remote.as_ref().is_some_and(|(remote, _)| remote.is_up())
    }

    /// The client as it is counted.
    pub fn client(&self, identity: Identity<'_>) -> Client {
        let identity_bytes = [0; KEY_BYTES_MAX + 1];
        let mut client = Client { identity: identity_bytes, length: 1, hash: Hash::new(0), exempt: false, own: None };
        let mut put = |kind: u8, bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(KEY_BYTES_MAX)];
            client.identity[0] = kind;
            client.identity[1..=bytes.len()].copy_from_slice(bytes);
            client.length = 1 + bytes.len();
        };
        match identity {
            Identity::Key(id) => put(b'k', id),
            Identity::Peer(Peer::Unix) => put(b'u', &[]),
            Identity::Peer(Peer::Address(address)) => {
                match counted(address, self.shared.rules.v6_prefix) {
                    IpAddr::V4(address) => put(b'4', &address.octets()),
                    IpAddr::V6(address) => put(b'6', &address.octets()),
                }
                client.exempt = self.shared.rules.allow.iter().any(|range| range.contains(address));
            }
        }
        client.hash = self.shared.hash(client.identity());
        client
    }

    /// A verified key as it is counted, by its own quotas where it has some that the plan knew of.
    pub fn key(&self, id: &[u8], quotas: &[Quota]) -> Client {
        Client { own: self.shared.rules.of_key(quotas), ..self.client(Identity::Key(id)) }
    }

    fn route(&self, client: &Client, endpoint: Endpoint) -> (usize, &'static Route) {
        let at = client.own.unwrap_or(endpoint as usize);
        (at, &self.shared.rules.routes[at])
    }

    /// Decides about one request: at once where the shared memory can, else in one trip to Redis.
    pub async fn check(&self, client: &Client, endpoint: Endpoint) -> Verdict {
        match self.check_now(client, endpoint, clock::monotonic_ms()) {
            Some(verdict) => verdict,
            None => self.check_remote(client, endpoint).await,
        }
    }

    /// The decision, if no trip to Redis is needed for it: without Redis always. `now_ms` is monotonic.
    pub fn check_now(&self, client: &Client, endpoint: Endpoint, now_ms: u64) -> Option<Verdict> {
        let (now, (_, route)) = (Now::at(now_ms), self.route(client, endpoint));
        let mut verdict = self.verdict(route, Source::Table, now);
        if client.exempt || route.limits.is_empty() {
            return Some(verdict);
        }
        match &self.remote {
            None => {
                let all = &self.shared.rules.all;
                let admitted = self.shared.table.admit(client.hash, &route.limits, all, now, &mut verdict.standings);
                verdict.outcome = self.outcome(admitted);
            }
            Some((remote, _)) if self.shared.breaker().is_open() || !remote.is_up() => {
                return Some(self.stand_by(client, route, now));
            }
            Some(_) if self.remembered_refusal(client, route, now, &mut verdict.standings) => {
                verdict.outcome = self.outcome(false);
            }
            Some(_) => return None,
        }
        Some(verdict)
    }

    /// Forgets a client's counts in the shared memory: what was refused, too.
    pub fn reset_here(&self, client: &Client) {
        let now = Now::at(clock::monotonic_ms());
        for table in [self.shared.table, self.shared.carry] {
            table.take(client.hash, &self.shared.rules.all, now);
        }
    }

    /// Forgets a client's counts in Redis, if there is one, then here; false when Redis could not be reached.
    pub async fn reset(&self, client: &Client) -> bool {
        let done = self.reset_there(client).await;
        self.reset_here(client);
        done
    }

    async fn reset_there(&self, client: &Client) -> bool {
        match &self.remote {
            Some((remote, _)) => remote.forget(client.identity()).await.is_ok(),
            None => true,
        }
    }

    async fn check_remote(&self, client: &Client, endpoint: Endpoint) -> Verdict {
        let (at, route) = self.route(client, endpoint);
        let now = Now::at(clock::monotonic_ms());
        let Some((remote, scripts)) = &self.remote else { return self.stand_by(client, route, now) };
        let mends = self.mends(client, route, now);
        let told = remote.decide(client.identity(), &scripts[at], &mends.bytes).await;
        let now = Now::at(clock::monotonic_ms());
        match told {
            Ok((admitted, standings)) => {
                self.learn(client, route, admitted, &standings, now);
                let outcome = self.outcome(admitted);
                Verdict { outcome, standings, ..self.verdict(route, Source::Redis, now) }
            }
            Err(_) => {
                self.owe(client, route, &mends.taken, now);
                self.stand_by(client, route, now)
            }
        }
    }

    /// A refusal that still holds. One of long windows is confirmed by Redis every few seconds, by one request.
    fn remembered_refusal(&self, client: &Client, route: &Route, now: Now, standings: &mut Standings) -> bool {
        let Some(slot) = self.shared.table.find(client.hash) else { return false };
        if !self.shared.table.look(slot, &route.limits, now, standings) {
            return false;
        }
        let full = |(limit, standing): &(&Limit, &Standing)| standing.count >= limit.count;
        let short = route.limits.iter().zip(&*standings).filter(full).any(|(limit, _)| limit.window_ms < LONG_MS);
        let ask =
            !short && self.shared.rules.confirmed.is_some_and(|limit| self.shared.table.mark_once(slot, &limit, now));
        !ask
    }

    fn learn(&self, client: &Client, route: &Route, admitted: bool, standings: &Standings, now: Now) {
        let (table, all) = (self.shared.table, &self.shared.rules.all);
        table.learn(client.hash, &route.limits, all, now, standings);
        if let Some(confirmed) = self.shared.rules.confirmed.filter(|_| !admitted) {
            let slot = table.find_or_claim(client.hash, all, now);
            table.mark_once(slot, &confirmed, now);
        }
    }

    /// Decides in place of Redis, and notes what Redis is owed.
    fn stand_by(&self, client: &Client, route: &'static Route, now: Now) -> Verdict {
        self.shared.word(Word::Standby).fetch_add(1, SeqCst);
        let mut verdict = self.verdict(route, Source::Standby, now);
        let (table, all, standings) = (self.shared.table, &self.shared.rules.all, &mut verdict.standings);
        let admitted = match self.shared.rules.fallback {
            Fallback::Closed => {
                verdict.standings = table.standings(client.hash, &route.limits, now);
                return Verdict { outcome: Outcome::Unavailable, ..verdict };
            }
            Fallback::Local => table.admit(client.hash, &route.limits, all, now, standings),
            Fallback::Divide(machines) => {
                let share = self.share(client, route, machines, now);
                table.admit(client.hash, &share, all, now, standings)
            }
            Fallback::Open => {
                let limits = route.limits.iter().map(|limit| limit.with_count(COUNT_FULL)).collect::<Vec<_>>();
                // Only a count that is full to its last bit is refused here.
                _ = table.admit(client.hash, &limits, all, now, standings);
                true
            }
        };
        if admitted {
            let mut owed = verdict.standings;
            owed.iter_mut().take(route.limits.len()).for_each(|standing| standing.count = 1);
            self.owe(client, route, &owed, now);
        }
        Verdict { outcome: self.outcome(admitted), ..verdict }
    }

    /// This machine's share of what Redis last said was left.
    fn share(&self, client: &Client, route: &Route, machines: u32, now: Now) -> Vec<Limit> {
        let held = self.shared.table.standings(client.hash, &route.limits, now);
        let owed = self.shared.carry.standings(client.hash, &route.limits, now);
        let share = |((limit, held), owed): ((&Limit, &Standing), &Standing)| {
            let known = held.count.saturating_sub(owed.count);
            limit.with_count(known + limit.count.saturating_sub(known) / machines.max(1))
        };
        route.limits.iter().zip(&held).zip(&owed).map(share).collect()
    }

    /// Notes units that Redis has not counted, in the windows they were admitted in.
    fn owe(&self, client: &Client, route: &Route, owed: &Standings, now: Now) {
        if owed.iter().all(|standing| standing.count == 0) {
            return;
        }
        let longest_ms = route.limits.iter().map(|limit| limit.window_ms).max().unwrap_or(0);
        self.shared.raise(Word::CarryUntil, now.ms + longest_ms);
        self.shared.carry.add(client.hash, &route.limits, &self.shared.rules.all, now, owed);
    }

    /// What Redis must hear with the next call: nothing, as a rule, for two loads of shared words.
    fn mends(&self, client: &Client, route: &Route, now: Now) -> Mends {
        let word = |word| self.shared.word(word).load(SeqCst);
        let (carries, mends) = (word(Word::CarryUntil) > now.ms, word(Word::MendUntil) > now.ms);
        // Units that ride on a call that comes too late would be counted twice: they wait until calls come through.
        if (!carries && !mends) || !self.shared.breaker().is_quiet(now.ms) {
            return Mends::default();
        }
        let held = self.shared.table.standings(client.hash, &route.limits, now);
        let taken = self.shared.carry.take(client.hash, &route.limits, now);
        let (lost_ms, emptied_ms) = (word(Word::LostAt), word(Word::EmptiedAt));
        let mut force = false;
        let mend = |((limit, held), taken): ((&Limit, &Standing), &Standing)| {
            let reset_ms = if held.count > 0 { held.reset_ms } else { taken.reset_ms };
            let age_ms = limit.window_ms.saturating_sub(reset_ms);
            let began_ms = now.ms.saturating_sub(age_ms);
            let floor = held.count.saturating_sub(taken.count);
            force |= floor > 0 && began_ms < emptied_ms;
            let known = began_ms < lost_ms.max(emptied_ms);
            Mend { extra: taken.count, floor: if known { floor } else { 0 }, age_ms }
        };
        let mends: Vec<Mend> = route.limits.iter().zip(&held).zip(&taken).map(mend).collect();
        let silent = mends.iter().all(|mend| mend.extra == 0 && mend.floor == 0);
        Mends { bytes: if silent { Vec::new() } else { mending(force, &mends) }, taken }
    }

    fn outcome(&self, admitted: bool) -> Outcome {
        match admitted {
            true => Outcome::Admitted,
            false if self.shared.rules.dry_run => Outcome::WouldRefuse,
            false => Outcome::Refused,
        }
    }

    /// A verdict to be filled.
    fn verdict(&self, route: &'static Route, source: Source, now: Now) -> Verdict {
        let (standings, headers) = (Standings::default(), self.shared.rules.headers);
        Verdict { outcome: Outcome::Exempt, source, route, standings, headers, decided_ms: now.ms }
    }
}

/// See [`Limiter::mends`].
#[derive(Default)]
struct Mends {
    bytes: Vec<u8>,
    taken: Standings,
}
