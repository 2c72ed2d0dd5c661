//! What an operator may ask, and what he hears: one JSON object a line. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest request in bytes.
pub const REQUEST_BYTES_MAX: usize = 1024;

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How is everybody?
    Status,
    /// As SIGHUP; the answer tells how it went.
    Reload,
    /// As SIGUSR2; the answer tells how it went.
    Upgrade,
    /// As SIGTERM, or as SIGINT when it has to be `now`.
    Stop {
        /// Do not finish what is under way.
        now: bool,
    },
    /// As SIGUSR1.
    Reopen,
    /// So many workers from now on.
    Scale {
        /// How many.
        workers: usize,
    },
    /// How does a client stand in its limits?
    Limits {
        /// An address, `unix`, or a key's id.
        client: String,
        /// Forget its counts first.
        reset: bool,
    },
}

/// What an operator hears. Everything but `Progress` is the last word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Something on the way happened.
    Progress(String),
    /// It is done, and how.
    Done(String),
    /// It is not done, and why.
    Refused(String),
    /// The state of everything.
    Status(Value),
    /// How a client stands in its limits.
    Limits(Value),
}

impl Answer {
    /// Nothing follows.
    pub fn is_final(&self) -> bool {
        !matches!(self, Answer::Progress(_))
    }

    /// As it travels, with its line's end.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Reads a request.
///
/// # Errors
/// A sentence for the caller.
pub fn request(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| format!("this server does not know that request: {error}"))
}
