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
    /// The upstream failed or answered nonsense.
    Upstream(String),
    /// A limit passed; which one.
    Timeout(&'static str),
    /// The session store failed.
    Store(StoreError),
    /// The server stops.
    Stopping,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotReady(why) => write!(f, "no model is ready: {why}"),
            Error::Overloaded(_) => f.write_str("the model's queue is full"),
            Error::ContextLength(what) => write!(f, "the conversation is too long: {what}"),
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
