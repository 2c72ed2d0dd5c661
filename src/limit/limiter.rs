//! The limiter of one worker: the table, and before it Redis where there is one.

use super::client::{Identity, Peer, counted};
use super::name::Name;
use super::plan::{Endpoint, Fallback, Plan, Route};
use super::quota::Quota;
use super::remote::Remote;
use super::script::{Mend, Script, mending};
use super::shared::{Shared, Word};
use super::table::{Hash, Slot};
use super::tally::{Standing, Standings};
use super::verdict::{Outcome, Source, Verdict};
use super::word::{Limit, Now};
use crate::sys::clock;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// A refusal by windows of this length and more is confirmed now and then.
const LONG_MS: u64 = 3_600_000;

/// A client, ready to be counted.
#[derive(Clone, Copy)]
pub struct Client {
    hash: Hash,
    name: Name,
    exempt: bool,
    /// The key's own limits among the rules' routes.
    own: Option<u16>,
}

impl Client {
    pub(super) fn name(&self) -> Name {
        self.name
    }

    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    pub(super) fn own(&self) -> Option<usize> {
        self.own.map(usize::from)
    }

    pub(super) fn is_exempt(&self) -> bool {
        self.exempt
    }
}

/// The limiter of one worker (or of one of its threads: all that must be shared is in shared memory).
#[derive(Clone)]
pub struct Limiter {
    shared: Shared,
    remote: Option<(Arc<Remote>, Arc<Scripts>)>,
}

/// What Redis is asked with.
struct Scripts {
    /// One a route.
    routes: Vec<Script>,
    tokens: Script,
}

impl Limiter {
    /// A limiter over memory that the master made, after the fork. With Redis, [`Limiter::keep`] must run, too.
    pub fn new(plan: &Plan, shared: Shared) -> Limiter {
        let scripts = || Scripts {
            routes: shared.rules.routes.iter().map(|route| Script::new(&route.limits)).collect(),
            tokens: Script::reserving(&shared.rules.tokens.limits),
        };
        let remote = plan.redis.clone().map(|target| Remote::new(target, plan.redis_key.clone(), shared));
        Limiter { shared, remote: remote.map(|remote| (Arc::new(remote), Arc::new(scripts()))) }
    }

    /// One that never asks Redis.
    pub fn of_memory(shared: Shared) -> Limiter {
        Limiter { shared, remote: None }
    }

    /// What happened so far, by all workers.
    pub fn counts(&self) -> super::shared::Counts {
        self.shared.counts()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.as_ref().map(|(remote, _)| remote)
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
    #[inline]
    pub fn client(&self, identity: Identity<'_>) -> Client {
        let (name, exempt) = match identity {
            Identity::Key(id) => (Name::new(b'k', id), false),
            Identity::Peer(Peer::Unix) => (Name::new(b'u', &[]), false),
            Identity::Peer(Peer::Address(address)) => {
                let name = match counted(address, self.shared.rules.v6_prefix) {
                    IpAddr::V4(address) => Name::v4(b'4', address),
                    IpAddr::V6(address) => Name::v6(b'6', address),
                };
                (name, self.shared.rules.allow.iter().any(|range| range.contains(address)))
            }
        };
        Client { hash: self.shared.hash(name), name, exempt, own: None }
    }

    /// A verified key as it is counted, by its own quotas where it has some that the plan knew of.
    pub fn key(&self, id: &[u8], quotas: &[Quota]) -> Client {
        let own = self.shared.rules.of_key(quotas).and_then(|at| u16::try_from(at).ok());
        Client { own, ..self.client(Identity::Key(id)) }
    }

    fn route(&self, client: &Client, endpoint: Endpoint) -> (usize, &'static Route) {
        let at = client.own().unwrap_or(endpoint as usize);
        (at, &self.shared.rules.routes[at])
    }

    /// Decides about one request: at once where the shared memory can, else in one trip to Redis.
    pub async fn check(&self, client: &Client, endpoint: Endpoint) -> Verdict {
        let mut verdict = Verdict::default();
        match self.check_now(client, endpoint, clock::monotonic_ms(), &mut verdict) {
            true => verdict,
            false => self.check_remote(client, endpoint).await,
        }
    }

    /// The decision, if no trip to Redis is needed for it: without Redis always. `now_ms` is monotonic. True when it was
    /// made: then it is in `verdict`, which is a new one; it is written in place, for copying it costs more than counting.
    #[inline]
    pub fn check_now(&self, client: &Client, endpoint: Endpoint, now_ms: u64, verdict: &mut Verdict) -> bool {
        let (now, (_, route)) = (Now::at(now_ms), self.route(client, endpoint));
        if client.exempt || route.limits.is_empty() {
            return true;
        }
        verdict.about(route, self.shared.rules.headers, now);
        if self.remote.is_none() {
            let all = &self.shared.rules.all;
            let admitted = self.shared.table.admit(client.hash, &route.limits, all, now, &mut verdict.standings);
            verdict.outcome = self.outcome(admitted);
            return true;
        }
        self.remembers(client, route, now, verdict)
    }

    /// What is known here of a client whom Redis decides about: what it refused, or everything while it is away. A refusal
    /// by long windows is confirmed by Redis every few seconds, by one request.
    fn remembers(&self, client: &Client, route: &'static Route, now: Now, verdict: &mut Verdict) -> bool {
        if !self.is_led(now) {
            *verdict = self.stand_by(client, route, now, 1);
            return true;
        }
        let Some(refusal) = self.refusal(client, route, now, &mut verdict.standings) else { return false };
        if refusal.confirmed.is_some_and(|limit| self.shared.table.mark_once(refusal.slot, &limit, now)) {
            return false;
        }
        verdict.outcome = self.outcome(false);
        true
    }

    /// True while a client whom [`Limiter::check_now`] refused is refused by the same limits, by what is known here alone:
    /// then that is in `verdict`, which is a new one. Nothing is counted, nobody is asked, and no turn to ask is taken.
    pub fn still_refuses(&self, client: &Client, endpoint: Endpoint, now_ms: u64, verdict: &mut Verdict) -> bool {
        let (now, (_, route)) = (Now::at(now_ms), self.route(client, endpoint));
        if client.exempt || self.shared.rules.dry_run || !(self.remote.is_none() || self.is_led(now)) {
            return false;
        }
        verdict.about(route, self.shared.rules.headers, now);
        let Some(refusal) = self.refusal(client, route, now, &mut verdict.standings) else { return false };
        if refusal.confirmed.is_some_and(|limit| !self.shared.table.is_marked(refusal.slot, &limit, now)) {
            return false;
        }
        verdict.outcome = Outcome::Refused;
        true
    }

    /// A refusal that the table knows of; how the limits stand is in `standings`.
    #[inline]
    fn refusal(&self, client: &Client, route: &Route, now: Now, standings: &mut Standings) -> Option<Refusal> {
        let slot = self.shared.table.find(client.hash)?;
        self.shared.table.look(slot, &route.limits, now, 1, standings).then(|| {
            let full = |(limit, standing): &(&Limit, &Standing)| standing.count >= limit.count;
            let short = route.limits.iter().zip(&*standings).filter(full).any(|(limit, _)| limit.window_ms < LONG_MS);
            Refusal { slot, confirmed: self.shared.rules.confirmed.filter(|_| !short) }
        })
    }

    /// True while Redis decides and is there to be asked.
    fn is_led(&self, now: Now) -> bool {
        !self.shared.breaker().is_open() && self.is_up() && !self.settles(now)
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
            Some((remote, _)) => remote.forget(client.name()).await.is_ok(),
            None => true,
        }
    }

    /// True for the moment after Redis was lost, or found empty, in which calls may still fail: what is known here can
    /// not ride on such a call, and a call without it would begin windows anew.
    fn settles(&self, now: Now) -> bool {
        let at = |word| self.shared.word(word).load(SeqCst);
        let changed_ms = at(Word::LostAt).max(at(Word::EmptiedAt));
        now.ms < changed_ms + super::breaker::SPAN_MS && !self.shared.breaker().is_quiet(now.ms)
    }

    /// The decision by a trip to Redis, where [`Limiter::check_now`] had none: to be asked once for its `false`, which may
    /// have been the one that is let through.
    pub async fn check_remote(&self, client: &Client, endpoint: Endpoint) -> Verdict {
        let (at, route) = self.route(client, endpoint);
        match &self.remote {
            Some((remote, scripts)) => self.ask(client, route, (remote, &scripts.routes[at]), None).await,
            None => self.stand_by(client, route, Now::at(clock::monotonic_ms()), 1),
        }
    }

    /// Decides about a request that costs `tokens`, by the client's budgets. A refused one may be admitted when others
    /// give back what they had reserved.
    pub(super) async fn check_tokens(&self, client: &Client, tokens: u32) -> Verdict {
        let route = &self.shared.rules.tokens;
        let now = Now::at(clock::monotonic_ms());
        let mut verdict = Verdict { cost: tokens, ..self.verdict(route, Source::Table, now) };
        if client.exempt || route.limits.is_empty() {
            return verdict;
        }
        match &self.remote {
            None => {
                let (all, standings) = (&self.shared.rules.all, &mut verdict.standings);
                let admitted = self.shared.table.admit_some(client.hash, &route.limits, all, now, tokens, standings);
                verdict.outcome = self.outcome(admitted);
                verdict
            }
            Some(_) if !self.is_led(now) => self.stand_by(client, route, now, tokens),
            Some((remote, scripts)) => self.ask(client, route, (remote, &scripts.tokens), Some(tokens)).await,
        }
    }

    async fn ask(
        &self,
        client: &Client,
        route: &'static Route,
        (remote, script): (&Remote, &Script),
        tokens: Option<u32>,
    ) -> Verdict {
        let (cost, now) = (tokens.unwrap_or(1), Now::at(clock::monotonic_ms()));
        let mut mends = self.mends(client, route, now);
        let told = remote.decide(client.name(), script, tokens, &mends.bytes).await;
        let now = Now::at(clock::monotonic_ms());
        match told {
            Ok((admitted, standings)) => {
                mends.taken = Standings::default();
                // A budget's refusal is not remembered: what is reserved may be given back any moment.
                self.learn(client, route, admitted || tokens.is_some(), &standings, now);
                let outcome = self.outcome(admitted);
                Verdict { outcome, standings, cost, ..self.verdict(route, Source::Redis, now) }
            }
            Err(_) => {
                drop(mends);
                self.stand_by(client, route, now, cost)
            }
        }
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
    fn stand_by(&self, client: &Client, route: &'static Route, now: Now, cost: u32) -> Verdict {
        self.shared.word(Word::Standby).fetch_add(1, SeqCst);
        let mut verdict = Verdict { cost, ..self.verdict(route, Source::Standby, now) };
        let (table, all, standings) = (self.shared.table, &self.shared.rules.all, &mut verdict.standings);
        let admitted = match self.shared.rules.fallback {
            Fallback::Closed => {
                verdict.standings = table.standings(client.hash, &route.limits, now);
                return Verdict { outcome: Outcome::Unavailable, ..verdict };
            }
            Fallback::Local => table.admit_some(client.hash, &route.limits, all, now, cost, standings),
            Fallback::Divide(machines) => {
                let share = self.share(client, route, machines, now);
                table.admit_some(client.hash, &share, all, now, cost, standings)
            }
            Fallback::Open => {
                let limits: Vec<_> = route.limits.iter().map(|limit| limit.with_count(limit.count_full())).collect();
                // Only a count that is full to its last bit is refused here.
                _ = table.admit_some(client.hash, &limits, all, now, cost, standings);
                true
            }
        };
        if admitted {
            let mut owed = verdict.standings;
            owed.iter_mut().take(route.limits.len()).for_each(|standing| standing.count = cost);
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
    pub(super) fn owe(&self, client: &Client, route: &Route, owed: &Standings, now: Now) {
        if owed.iter().all(|standing| standing.count == 0) {
            return;
        }
        let longest_ms = route.limits.iter().map(|limit| limit.window_ms).max().unwrap_or(0);
        self.shared.raise(Word::CarryUntil, now.ms + longest_ms);
        self.shared.carry.add(client.hash, &route.limits, &self.shared.rules.all, now, owed);
    }

    /// What Redis must hear with the next call: nothing, as a rule, for two loads of shared words.
    fn mends<'a>(&'a self, client: &'a Client, route: &'a Route, now: Now) -> Mends<'a> {
        let mut mends = Mends { limiter: self, client, route, bytes: Vec::new(), taken: Standings::default() };
        let word = |word| self.shared.word(word).load(SeqCst);
        let (owes, knows) = (word(Word::CarryUntil) > now.ms, word(Word::MendUntil) > now.ms);
        // Units that ride on a call that comes too late would be counted twice: they wait until calls come through.
        if (!owes && !knows) || !self.shared.breaker().is_quiet(now.ms) {
            return mends;
        }
        let held = self.shared.table.standings(client.hash, &route.limits, now);
        mends.taken = self.shared.carry.take(client.hash, &route.limits, now);
        let (lost_ms, emptied_ms) = (word(Word::LostAt), word(Word::EmptiedAt));
        let mut force = false;
        let mend = |((limit, held), taken): ((&Limit, &Standing), &Standing)| {
            let reset_ms = if held.count > 0 { held.reset_ms } else { taken.reset_ms };
            let age_ms = limit.window_ms.saturating_sub(reset_ms);
            // It may have begun up to a tick earlier than its word tells.
            let began_ms = now.ms.saturating_sub(age_ms + limit.tick_ms());
            let floor = held.count.saturating_sub(taken.count);
            force |= floor > 0 && began_ms < emptied_ms;
            let known = began_ms < lost_ms.max(emptied_ms);
            Mend { extra: taken.count, floor: if known { floor } else { 0 }, age_ms }
        };
        let told: Vec<Mend> = route.limits.iter().zip(&held).zip(&mends.taken).map(mend).collect();
        if told.iter().any(|mend| mend.extra > 0 || mend.floor > 0) {
            mends.bytes = mending(force, &told);
        }
        mends
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
        let mut verdict = Verdict { source, ..Verdict::default() };
        verdict.about(route, self.shared.rules.headers, now);
        verdict
    }
}

/// See [`Limiter::refusal`].
struct Refusal {
    slot: Slot,
    /// What says that Redis confirmed it: only where all full windows are long.
    confirmed: Option<Limit>,
}

/// See [`Limiter::mends`]. What Redis did not say that it heard is owed again, also when the client left meanwhile.
struct Mends<'a> {
    limiter: &'a Limiter,
    client: &'a Client,
    route: &'a Route,
    bytes: Vec<u8>,
    taken: Standings,
}

impl Drop for Mends<'_> {
    fn drop(&mut self) {
        if self.taken.iter().any(|standing| standing.count > 0) {
            self.limiter.owe(self.client, self.route, &self.taken, Now::at(clock::monotonic_ms()));
        }
    }
}
