//! Logging: one line per event, whole, in order, without a secret, on a bounded disk.
//!
//! ```text
//! event, access record ──> a thread's batch ──> sink ──┬─ master, engine: one packet, sent at once
//!  (formatted by the sender)                           └─ worker: non-blocking queue ──> packets
//!                                                                    │ SEQPACKET, one pair a sender
//! log process:  writer ── redact ── one line? ── route ──┬─ app.log     (rotate: 10 MB, .1 … .5)
//!               stderr of every child ──┘                ├─ error: stderr, a file, off
//!                                                        └─ access: stdout, a file, off
//! ```
//!
//! [`start`] in the master (and the engine), [`start_worker`] after the fork, [`writer::run`] in the log process.
//! Deliberately absent: a log file opened outside the log process; spans; message bodies, headers, query strings.

pub mod access;
mod batch;
mod escape;
mod event;
mod flood;
mod known;
mod lines;
mod lock;
mod outputs;
mod packer;
pub mod pipe;
mod raw;
pub mod record;
pub mod redact;
pub mod rotate;
mod secret;
mod sink;
mod stream;
pub mod tally;
mod target;
pub mod time;
pub mod writer;

pub use batch::{LINGER_MS, flush, rest};
pub use flood::{Security, client_name, security};
pub use secret::Secret;
pub use sink::{Guard, set_level, start, start_worker};
pub use tracing::Level;

use std::path::PathBuf;

/// Where one kind of lines goes besides `app.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// stdout for access lines, stderr for the others.
    Stream,
    /// A file, with the permissions and the rotation of `app.log`.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// For people.
    Text,
}

/// How a client's address looks in access lines and security events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A hash under a key that lives as long as the program: lines of one client can be told apart, not traced back.
    Hashed,
    /// As it is.
    Full,
    /// `-`.
    Off,
}

/// What is logged, where and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `LOG_DIR`, the directory of `app.log`.
    pub dir: PathBuf,
    /// True when the operator set it: then an unusable directory refuses the start.
    pub dir_set: bool,
    /// `--access-logfile`.
    pub access: Destination,
    /// `--error-logfile`.
    pub error: Destination,
    /// `--log-level`.
    pub level: Level,
    /// `LOG_FORMAT`.
    pub format: Format,
    /// `--access-logformat`: gunicorn's atoms, text format only.
    pub access_format: Option<String>,
    /// How clients are named.
    pub client: Client,
    /// Regular expressions of the operator; what they match is redacted.
    pub patterns: Vec<String>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            dir: PathBuf::from("/tmp/logs"),
            dir_set: false,
            access: Destination::Stream,
            error: Destination::Stream,
            level: Level::INFO,
            format: Format::Json,
            access_format: None,
            client: Client::Hashed,
            patterns: Vec::new(),
        }
    }
}

/// Carries what an exec'd sender has to know of the plan.
pub const PLAN_VARIABLE: &str = "CHATCORN_LOG";

impl Plan {
    /// Level and format, for [`PLAN_VARIABLE`]: the log process does the rest for an exec'd sender.
    pub fn to_words(&self) -> String {
        let format = if self.format == Format::Text { "text" } else { "json" };
        format!("{} {format}", self.level)
    }

    /// Reads [`Plan::to_words`]; what is missing is the default.
    pub fn from_words(words: &str) -> Plan {
        let (level, format) = words.split_once(' ').unwrap_or_default();
        let format = if format == "text" { Format::Text } else { Format::Json };
        Plan { level: level.parse().unwrap_or(Level::INFO), format, access: Destination::Off, ..Plan::default() }
    }

    /// Everything in the plan that can be wrong without looking at the disk.
    ///
    /// # Errors
    /// A sentence for each pattern or format that cannot be used.
    pub fn validate(&self) -> Result<(), String> {
        redact::Redactor::new(&self.patterns)?;
        self.access_format.as_deref().map_or(Ok(()), |format| access::Atoms::parse(format).map(drop))
    }
}
