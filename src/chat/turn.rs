//! One turn under way: deltas come out, and what there is of a reply is stored however it ends.

use super::admission::Place;
use super::ask::{Ask, HISTORY_PAIRS_MAX};
use super::error::Error;
use super::session::Mode;
use super::store::{Begun, Outcome, Store, StoredTurn};
use super::upstream::{Piece, Stream};
use super::wire::Usage;
use serde::Serialize;
use std::time::Instant;
use tokio::sync::watch;

/// A turn that is stored and waits for the upstream.
pub struct Opening {
    record: Record,
    began: Instant,
}

impl Opening {
    pub(super) fn new(store: Store, begun: Begun, ask: &Ask) -> Opening {
        let history = ask.history.clone();
        let record =
            Record { store, begun, history, message: ask.message.clone(), reply: String::new(), stored: false };
        Opening { record, began: Instant::now() }
    }

    pub(super) fn stored(&self) -> &[StoredTurn] {
        &self.record.begun.turns
    }

    pub(super) fn mode(&self) -> Mode {
        self.record.begun.mode
    }

    pub(super) fn streaming(self, stream: Stream, ending: watch::Receiver<bool>, place: Place) -> Turn {
        Turn {
            _place: place,
            record: self.record,
            stream,
            ending,
            began: self.began,
            first_token: None,
            reasoning: String::new(),
            usage: None,
            finish: None,
        }
    }
}

/// Stores the turn's end, at the latest when it is dropped.
struct Record {
    store: Store,
    begun: Begun,
    history: Option<Vec<(String, String)>>,
    message: String,
    reply: String,
    stored: bool,
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.stored {
            self.store.finish_detached(self.begun.turn, std::mem::take(&mut self.reply), Outcome::Incomplete);
        }
    }
}

/// A reply as it is generated.
pub struct Turn {
    _place: Place,
    record: Record,
    stream: Stream,
    ending: watch::Receiver<bool>,
    began: Instant,
    first_token: Option<Instant>,
    reasoning: String,
    usage: Option<Usage>,
    finish: Option<String>,
}

/// What a turn yields.
#[derive(Debug)]
pub enum Delta {
    /// Text to append.
    Text(String),
    /// The whole answer; nothing follows.
    Done(Box<Reply>),
}

impl Turn {
    /// The next piece of text, or the end. `request_id` stands in the final answer. Cancel-safe.
    ///
    /// # Errors
    /// The upstream's or the store's; what there was of the reply is stored as incomplete.
    pub async fn next(&mut self, request_id: &str) -> Result<Delta, Error> {
        loop {
            let piece = tokio::select! {
                biased;
                piece = self.stream.next() => piece?,
                _ = self.ending.wait_for(|ending| *ending) => return Err(Error::Stopping),
            };
            match piece {
                Some(Piece::Text(text)) => {
                    self.first_token.get_or_insert_with(Instant::now);
                    self.record.reply.push_str(&text);
                    return Ok(Delta::Text(text));
                }
                Some(Piece::Reasoning(text)) => {
                    self.first_token.get_or_insert_with(Instant::now);
                    self.reasoning.push_str(&text);
                }
                Some(Piece::Usage(usage)) => self.usage = Some(usage),
                Some(Piece::Finish(reason)) => self.finish = Some(reason),
                None => return Ok(Delta::Done(Box::new(self.finish(request_id).await?))),
            }
        }
    }

    async fn finish(&mut self, request_id: &str) -> Result<Reply, Error> {
        let ended = Instant::now();
        let reply = self.record.reply.clone();
        self.record.store.finish(self.record.begun.turn, reply.clone(), Outcome::Complete).await?;
        self.record.stored = true;
        Ok(Reply {
            success: true,
            history: self.history(&reply),
            message: reply,
            session_id: self.record.begun.session_id.clone(),
            reasoning: (!self.reasoning.is_empty()).then(|| std::mem::take(&mut self.reasoning)),
            performance: Performance::new(self.began, self.first_token, ended, self.usage),
            metadata: Metadata {
                model: self.stream.model().map(str::to_owned),
                request_id: request_id.to_owned(),
                finish_reason: self.finish.take(),
            },
        })
    }

    /// The session's newest turns, this one the last. A history that the client gave stands in place of the stored one.
    fn history(&self, reply: &str) -> Vec<(String, String)> {
        let begun = &self.record.begun;
        let mut pairs: Vec<(String, String)> = match &self.record.history {
            Some(given) => given.clone(),
            None => begun.turns.iter().map(|turn| (turn.user.clone(), turn.assistant.clone())).collect(),
        };
        pairs.push((self.record.message.clone(), reply.to_owned()));
        let surplus = pairs.len().saturating_sub(HISTORY_PAIRS_MAX);
        pairs.drain(..surplus);
        pairs
    }
}

/// The answer of `POST /api/chat` (`API.md`).
#[derive(Clone, Debug, Serialize)]
pub struct Reply {
    /// Always true.
    pub success: bool,
    /// The assistant's reply.
    pub message: String,
    /// The session, as issued or as named.
    pub session_id: String,
    /// The newest turns, oldest first, this one included.
    pub history: Vec<(String, String)>,
    /// The model's own reasoning, where the upstream returns it.
    pub reasoning: Option<String>,
    /// Figures.
    pub performance: Performance,
    /// Names.
    pub metadata: Metadata,
}

/// Figures of a reply; what is not known is `null`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Performance {
    /// Milliseconds from the stored message to the whole reply.
    pub processing_time: f64,
    /// The same in seconds.
    pub latency_seconds: f64,
    /// Prompt and completion together, by the upstream's count.
    pub tokens_used: Option<u64>,
    /// By the upstream's count.
    pub prompt_tokens: Option<u64>,
    /// By the upstream's count.
    pub completion_tokens: Option<u64>,
    /// Milliseconds to the first piece of text.
    pub time_to_first_token_ms: Option<f64>,
    /// Completion tokens over the time since the first piece.
    pub tokens_per_second: Option<f64>,
}

impl Performance {
    fn new(began: Instant, first: Option<Instant>, ended: Instant, usage: Option<Usage>) -> Performance {
        let whole = ended.duration_since(began);
        let generating = first.map(|first| ended.duration_since(first).as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let speed = |usage: Usage| generating.map(|seconds| rounded(usage.completion_tokens as f64 / seconds, 10.0));
        Performance {
            processing_time: rounded(whole.as_secs_f64() * 1e3, 10.0),
            latency_seconds: rounded(whole.as_secs_f64(), 1e3),
            tokens_used: usage.map(|usage| usage.total_tokens),
            prompt_tokens: usage.map(|usage| usage.prompt_tokens),
            completion_tokens: usage.map(|usage| usage.completion_tokens),
            time_to_first_token_ms: first.map(|first| rounded(first.duration_since(began).as_secs_f64() * 1e3, 10.0)),
            tokens_per_second: usage.and_then(speed),
        }
    }
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// Names of a reply.
#[derive(Clone, Debug, Serialize)]
pub struct Metadata {
    /// As the upstream names it.
    pub model: Option<String>,
    /// As in `X-Request-Id`.
    pub request_id: String,
    /// `stop`, `length`, …
    pub finish_reason: Option<String>,
}
