//! What a call takes of the caller's budget of tokens: put aside before the model is asked, settled when the call ends.
//!
//! A [`Spend`] goes where the call goes, and settles when it is dropped: by the upstream's own count where it told one,
//! else by the guess at the prompt and the pieces that came. A call that ended before anything came took nothing.

use super::access::Access;
use super::admission::{admit, word};
use super::fault::{Code, Fault};
use super::{App, Context};
use crate::chat::Delta;
use crate::chat::wire::Usage;
use crate::limit::budget::{Reservation, guess};
use memchr::memmem;
use serde::Deserialize;

/// The guard of one call.
#[derive(Default)]
pub struct Spend {
    reservation: Option<Reservation>,
    prompt: u32,
    pieces: u32,
    told: Option<u32>,
}

impl App {
    /// Puts the tokens of a call aside, where clients have a budget: a guess at the prompt's, and the most that a reply
    /// may take.
    pub(super) async fn spend(
        &self,
        prompt_bytes: usize,
        reply_tokens: u32,
        context: &mut Context<'_>,
    ) -> Result<Spend, Fault> {
        let Some((limiter, budget)) = self.limiter.as_ref().and_then(|limiter| Some((limiter, limiter.budget()?)))
        else {
            return Ok(Spend::default());
        };
        let prompt = guess(prompt_bytes);
        let tokens = prompt.saturating_add(reply_tokens);
        if tokens > budget {
            let text = format!("This call may take {tokens} tokens, and the whole budget is {budget}: ask for less.");
            return Err(Fault::new(Code::InvalidRequest, text));
        }
        let client = context.counted(limiter);
        // Rare beside other requests, and large: it has a place of its own.
        let (verdict, reservation) = Box::pin(limiter.reserve(&client, tokens)).await;
        let told = admit(&verdict, context.client);
        if told.is_err() {
            context.access.verdict = word(verdict.outcome);
        }
        context.access.budget = Some(Box::new(verdict));
        told.map(|()| Spend { reservation, prompt, ..Spend::default() })
    }
}

impl Spend {
    /// A piece of the reply came.
    pub fn piece(&mut self) {
        self.pieces = self.pieces.saturating_add(1);
    }

    /// What comes of a turn passes by.
    pub fn passes(&mut self, delta: Delta) -> Delta {
        match &delta {
            Delta::Text(_) => self.piece(),
            Delta::Done(reply) => self.told(reply.performance.tokens_used),
        }
        delta
    }

    /// The upstream told how many tokens the call took.
    pub fn told(&mut self, tokens: Option<u64>) {
        self.told = tokens.map(|tokens| u32::try_from(tokens).unwrap_or(u32::MAX)).or(self.told);
    }

    /// Events of `/v1` pass by: each is a piece, and one may tell the usage.
    pub fn events(&mut self, events: &[u8]) {
        if self.reservation.is_none() {
            return;
        }
        for line in events.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data:")) {
            if memmem::find(line, b"\"usage\"").is_some() {
                self.usage(line);
            }
            if memmem::find(line, b"\"delta\"").is_some() {
                self.piece();
            }
        }
    }

    /// A whole answer of `/v1` passes by.
    pub fn whole(&mut self, json: &[u8]) {
        if self.reservation.is_some() {
            self.pieces = guess(json.len()).max(1);
            self.usage(json);
        }
    }

    fn usage(&mut self, json: &[u8]) {
        #[derive(Deserialize)]
        struct Seen {
            #[serde(default)]
            usage: Option<Usage>,
        }
        let seen = serde_json::from_slice::<Seen>(json).ok().and_then(|seen| seen.usage);
        self.told(seen.map(|usage| usage.total_tokens));
    }
}

impl Drop for Spend {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else { return };
        let guessed = if self.pieces == 0 { 0 } else { self.prompt.saturating_add(self.pieces) };
        reservation.settle(self.told.unwrap_or(guessed));
    }
}

/// Where the budget stands, for the response's headers.
pub fn headers(access: &Access, headers: &mut http::HeaderMap) {
    if let Some(budget) = &access.budget {
        budget.more_headers(headers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Identity, Limiter, Peer, Plan, Shared, quota};

    fn limiter() -> Limiter {
        let plan = Plan { tokens: quota::parse_tokens("1000 per day").unwrap(), ..Plan::default() };
        Limiter::new(&plan, Shared::create(&plan).unwrap())
    }

    /// What a call counts that put 300 aside, with a guess of 40 at its prompt.
    async fn counted(passes: impl FnOnce(&mut Spend)) -> u64 {
        let limiter = limiter();
        let client = limiter.client(Identity::Peer(Peer::Unix));
        let reservation = limiter.reserve(&client, 300).await.1;
        let mut spend = Spend { reservation, prompt: 40, ..Spend::default() };
        passes(&mut spend);
        drop(spend);
        let picture = limiter.picture_here(&client);
        let limits = picture["limits"].as_array().unwrap();
        limits.iter().find(|limit| limit["name"] == "tokens-day").unwrap()["count"].as_u64().unwrap()
    }

    #[tokio::test]
    async fn a_call_counts_what_was_told_else_what_came() {
        assert_eq!(counted(|_| {}).await, 0, "nothing came");
        assert_eq!(counted(|spend| (0..7).for_each(|_| spend.piece())).await, 47);
        assert_eq!(counted(|spend| spend.told(Some(55))).await, 55);
        let events = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\ndata: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\n";
        assert_eq!(counted(|spend| spend.events(events)).await, 42);
        let usage = br#"data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29}}"#;
        assert_eq!(counted(|spend| [&events[..], usage].iter().for_each(|bytes| spend.events(bytes))).await, 29);
        assert_eq!(counted(|spend| spend.whole(&usage[5..])).await, 29);
        assert_eq!(counted(|spend| spend.whole(b"{\"choices\":[]}")).await, 44);
    }
}
