//! One request on its way through the batch, and what comes back from it.

use super::{json::Object, sample::Sampler, slot::Token, text::Holdback};
use tokio::sync::mpsc;

/// Events that may wait for a reader; a stream that is this far behind pauses.
pub const EVENTS_MAX: usize = 64;

/// A request that was checked and tokenised.
#[derive(Debug)]
pub struct Job {
    /// The conversation; not empty, and shorter than a slot's context.
    pub prompt: Vec<Token>,
    /// Most tokens to generate, at least 1.
    pub tokens_max: usize,
    /// How tokens are drawn.
    pub sampler: Sampler,
    /// How far the JSON object has come that the reply has to be; `None`: it may be any text.
    pub object: Option<Object>,
    /// Stop texts, and text on its way out.
    pub text: Holdback,
    /// Where the reply goes; dropped by the other side when nobody wants it any more.
    pub reply: mpsc::Sender<Event>,
    /// Whose it is: clients take turns.
    pub client: u64,
}

/// What comes back. A channel that closes without [`Event::End`] broke off: the engine stops, or gave the reader up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Text to append.
    Text(String),
    /// The last one.
    End(Finish, Tokens),
    /// The last one, too.
    Failed(Failure),
}

/// Why a reply ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop text came.
    Stop,
    /// The limit of tokens, or the end of the context.
    Length,
}

impl Finish {
    /// As `finish_reason` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

/// Why a reply broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// llama.cpp could not evaluate the batch.
    Evaluation,
    /// Too many wait; one may ask again after so many seconds.
    Overloaded(u64),
    /// The engine stops.
    Stopping,
}

/// Tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the conversation.
    pub prompt: usize,
    /// Of these, not evaluated again.
    pub cached: usize,
    /// Generated, without the token that ends.
    pub completion: usize,
}
