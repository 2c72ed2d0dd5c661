//! What can go wrong between a message and a reply; the front makes a response of it.

use super::store::StoreError;
use std::fmt;

/// Why there is no reply. Texts are for the log, never for a client.
#[derive(Debug)]
pub enum Error {
    /// Nobody can answer now.
    NotReady(String),
    /// Too many wait already; ask again after so many seconds.
    Overloaded(u64),
    /// The conversation does not fit into the model.
    ContextLength(String),
    /// The upstream finds the client's request wrong.
    Refused(Box<Refusal>),
    /// The upstream failed or answered nonsense.
    Upstream(String),
    /// A limit passed; which one.
    Timeout(&'static str),
    /// The session store failed.
    Store(StoreError),
    /// The server stops.
    Stopping,
}

/// What an upstream finds wrong with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// For the log.
    pub inside: String,
    /// The field, by its plain name.
    pub param: Option<String>,
    /// It does not have the model that was asked for.
    pub unknown_model: bool,
    /// For the client; our own engine's words only.
    pub message: Option<String>,
}

impl Error {
    /// True when no other upstream would do better.
    pub fn is_final(&self) -> bool {
        matches!(self, Error::ContextLength(_) | Error::Refused(_) | Error::Stopping | Error::Store(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotReady(why) => write!(f, "no model is ready: {why}"),
            Error::Overloaded(_) => f.write_str("the model's queue is full"),
            Error::ContextLength(what) => write!(f, "the conversation is too long: {what}"),
            Error::Refused(refusal) => write!(f, "the upstream refused the request: {}", refusal.inside),
            Error::Upstream(what) => write!(f, "the upstream failed: {what}"),
            Error::Timeout(what) => write!(f, "{what} took too long"),
            Error::Store(error) => write!(f, "the session store failed: {error}"),
            Error::Stopping => f.write_str("the server stops"),
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error::Store(error)
    }
}
