//! Budgets of tokens: what a call may take is reserved before it, and settled after it by what it took.
//!
//! ```text
//! reserve(prompt + most of a reply) ──▶ Reservation ──▶ call ──▶ settle(tokens that it took)
//!      └─ no room: refused, nothing is reserved              └─ dropped: everything is given back
//! ```
//! So the reserved and the used tokens together never pass the budget, whoever asks at the same time. A call may still
//! take more than was reserved for it (a prompt that was guessed too short): that is counted, and the next one waits.
//! A worker that is killed gives nothing back: its reservations end with their window.

use super::limiter::{Client, Limiter};
use super::remote::Remote;
use super::script::settling;
use super::shared::Shared;
use super::tally::{APPLIED_MAX, Standings};
use super::verdict::{Outcome, Verdict};
use super::word::Now;
use crate::sys::clock;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes of a prompt that are taken for one token: English has about four, other languages fewer.
const BYTES_A_TOKEN: usize = 4;

/// A guess at the tokens of so many bytes of text.
pub fn guess(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_A_TOKEN)).unwrap_or(u32::MAX)
}

/// Tokens that are put aside for a call. Dropped without a word, they are given back.
pub struct Reservation {
    shared: Shared,
    remote: Option<Arc<Remote>>,
    client: Client,
    tokens: u32,
    settled: bool,
    /// Monotonic milliseconds at which the windows began that were counted in; of one that is older than this machine's
    /// last start they have wrapped.
    began_ms: [u64; APPLIED_MAX],
}

impl Limiter {
    /// The smallest budget, if there is any: no call may want more.
    pub fn budget(&self) -> Option<u32> {
        self.shared().rules.tokens.limits.iter().map(|limit| limit.count).min()
    }

    /// Puts `tokens` aside in each of the client's budgets that are under way, or in none of them. A client that is
    /// exempt has no reservation.
    pub async fn reserve(&self, client: &Client, tokens: u32) -> (Verdict, Option<Reservation>) {
        if self.remote().is_none() {
            return self.reserve_here(client, tokens).await;
        }
        // A client that leaves while Redis is asked takes nothing along: what is reserved for nobody is dropped.
        let (tell, told) = oneshot::channel();
        let (limiter, asks) = (self.clone(), *client);
        tokio::spawn(async move { tell.send(limiter.reserve_here(&asks, tokens).await) });
        match told.await {
            Ok(told) => told,
            Err(_) => self.reserve_here(client, tokens).await,
        }
    }

    async fn reserve_here(&self, client: &Client, tokens: u32) -> (Verdict, Option<Reservation>) {
        let verdict = self.check_tokens(client, tokens).await;
        (verdict, (verdict.outcome == Outcome::Admitted).then(|| self.reservation(client, &verdict, tokens)))
    }

    fn reservation(&self, client: &Client, verdict: &Verdict, tokens: u32) -> Reservation {
        let mut began_ms = [0; APPLIED_MAX];
        let limits = &self.shared().rules.tokens.limits;
        for ((began_ms, limit), standing) in began_ms.iter_mut().zip(limits).zip(&verdict.standings) {
            *began_ms = verdict.decided_ms.wrapping_sub(limit.window_ms.saturating_sub(standing.reset_ms));
        }
        let (shared, remote) = (*self.shared(), self.remote().cloned());
        Reservation { shared, remote, client: *client, tokens, settled: false, began_ms }
    }
}

impl Reservation {
    /// What was put aside.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Counts what the call took in the place of what was put aside.
    pub fn settle(mut self, used: u32) {
        self.count(used);
    }

    fn count(&mut self, used: u32) {
        self.settled = true;
        if used == self.tokens {
            return;
        }
        let now = Now::at(clock::monotonic_ms());
        let limits = &self.shared.rules.tokens.limits;
        let ages_ms = self.began_ms.map(|began_ms| now.ms.wrapping_sub(began_ms));
        self.shared.table.exchange(self.client.hash(), limits, now, &ages_ms, self.tokens, used);
        let Some(remote) = self.remote.clone() else { return };
        let (plus, minus) = (used.saturating_sub(self.tokens), self.tokens.saturating_sub(used));
        // What Redis has not heard of yet it need not give back.
        let unheard = self.shared.carry.withdraw(self.client.hash(), limits, now, &ages_ms, minus);
        let told = limits.iter().zip(&ages_ms).zip(&unheard);
        let told = told.flat_map(|((limit, age_ms), unheard)| settling(limit, *age_ms, plus, minus - unheard));
        let (told, shared, client) = (told.collect::<Vec<u8>>(), self.shared, self.client);
        // Nobody waits for it; outside a runtime (a worker that ends) the reservation stands.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if remote.settle(client.name(), &told).await.is_err() {
                    owe(shared, &client, &ages_ms, plus);
                }
            });
        }
    }
}

/// Redis is owed what a call took beyond its reservation; what it did not take Redis keeps until the window ends.
fn owe(shared: Shared, client: &Client, ages_ms: &[u64], tokens: u32) {
    let route = &shared.rules.tokens;
    let mut owed = Standings::default();
    for ((owed, limit), age_ms) in owed.iter_mut().zip(&route.limits).zip(ages_ms) {
        (owed.count, owed.reset_ms) = (tokens, limit.window_ms.saturating_sub(*age_ms));
    }
    Limiter::of_memory(shared).owe(client, route, &owed, Now::at(clock::monotonic_ms()));
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            self.count(0);
        }
    }
}
