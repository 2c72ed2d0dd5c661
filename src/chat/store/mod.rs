//! The session store: SQLite for one machine, PostgreSQL for several.
//!
//! ```text
//! Store ─┬─▶ sqlite:   one writer thread and one reader thread a worker, commits in groups
//!        └─▶ postgres: one thread with two connections a worker, commits in groups
//! ```
//! An answer comes after the commit. A turn's number grows with the order in which its session's turns were begun,
//! whoever's clock is wrong. Every call ends within [`CALL_LIMIT`]: a store that is locked, full, garbled or away is
//! an error, never a hanging request. Nothing of a session is remembered outside the store, so that nothing goes stale.

pub mod admin;
pub mod postgres;
mod sqlite;

use super::session::{Mode, SessionKey, SessionRef, issue_id};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest that a caller waits.
pub const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Sessions that one purge deletes at most: others write in between.
pub const PURGE_MAX: i64 = 500;
/// Milliseconds for which a session's last use is not written again: it counts in days.
const TOUCH_MS: i64 = 60_000;

/// Where sessions are kept, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where.
    pub place: Place,
    /// Idle sessions are deleted after this.
    pub ttl: Duration,
}

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub enum Place {
    /// A SQLite database file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server(Box<postgres::Target>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "{}", path.display()),
            Place::Server(target) => write!(f, "{target}"),
        }
    }
}

/// Why a call failed. For the log; clients learn that the store does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Somebody else holds what is needed, or the disk is slow.
    Busy,
    /// Too many calls wait.
    Overloaded,
    /// The disk is full.
    Full,
    /// The server cannot be reached now.
    Away(String),
    /// The session was deleted while its turn was under way.
    Gone,
    /// The file is no database, or a broken one.
    Corrupt(String),
    /// The place or the version is wrong; a sentence for the operator.
    Unusable(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Busy => f.write_str("busy for too long"),
            StoreError::Overloaded => f.write_str("its queue is full"),
            StoreError::Full => f.write_str("the disk is full"),
            StoreError::Away(text) => write!(f, "cannot be reached: {text}"),
            StoreError::Gone => f.write_str("the session was deleted meanwhile"),
            StoreError::Corrupt(text) => write!(f, "not a usable database: {text}"),
            StoreError::Unusable(text) | StoreError::Failed(text) => f.write_str(text),
        }
    }
}

/// A turn's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnId {
    id: i64,
    session: i64,
    /// SQLite may give a deleted turn's number again; with its time it is its own.
    created_ms: i64,
}

/// A whole turn as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTurn {
    /// What the user said.
    pub user: String,
    /// What the model replied.
    pub assistant: String,
}

/// A turn that has begun.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The id that the client knows.
    pub session_id: String,
    /// To end it by.
    pub turn: TurnId,
    /// The session's, after this request.
    pub mode: Mode,
    /// The newest whole turns before this one, oldest first; bounded in number and bytes.
    pub turns: Vec<StoredTurn>,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The reply is whole.
    Complete,
    /// The client left or the model failed.
    Incomplete,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::Incomplete => "incomplete",
        }
    }
}

/// A session as the store names it: an issued one has no principal, for it works from anywhere.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    principal: Vec<u8>,
}

impl Named {
    fn new(key: SessionKey) -> Result<Named, StoreError> {
        match key.session {
            SessionRef::Given(name) => Ok(Named { name, principal: key.principal.bytes().to_vec() }),
            SessionRef::Issue => {
                let name = issue_id().map_err(|error| StoreError::Failed(error.to_string()))?;
                Ok(Named { name, principal: Vec::new() })
            }
        }
    }
}

/// Brings the schema up to date; run once, before anybody opens the store. Returns the schema's version.
///
/// # Errors
/// A sentence for the operator; `Away` when a server cannot be reached (whoever connects to it later does this then).
pub fn migrate(plan: &Plan) -> Result<i64, StoreError> {
    match &plan.place {
        Place::File(path) => sqlite::migrate(path),
        Place::Server(target) => postgres::migrate(target),
    }
}

/// The store of one worker. A copy is another handle.
#[derive(Clone)]
pub enum Store {
    /// A file.
    Sqlite(sqlite::Sqlite),
    /// A server.
    Postgres(postgres::Postgres),
}

impl Store {
    /// Opens it, with threads and connections of its own. After the fork, never before.
    ///
    /// # Errors
    /// A file is missing or no database; no thread can be made. A server that is away is no error yet.
    pub fn open(plan: &Plan) -> Result<Store, StoreError> {
        match &plan.place {
            Place::File(path) => sqlite::Sqlite::open(path, plan.ttl).map(Store::Sqlite),
            Place::Server(target) => postgres::Postgres::open(target, plan.ttl).map(Store::Postgres),
        }
    }

    /// Stores a message and returns what the model shall read. A session that is not there is made.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin(
        &self,
        key: SessionKey,
        message: String,
        user_id: String,
        mode: Option<Mode>,
    ) -> Result<Begun, StoreError> {
        let session = Named::new(key)?;
        match self {
            Store::Sqlite(store) => store.begin(session, message, user_id, mode).await,
            Store::Postgres(store) => store.begin(session, message, user_id, mode).await,
        }
    }

    /// Stores a reply.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn finish(&self, turn: TurnId, reply: String, outcome: Outcome) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(store) => store.finish(turn, reply, outcome).await,
            Store::Postgres(store) => store.finish(turn, reply, outcome).await,
        }
    }

    /// Stores what there is of a reply, for those who cannot wait. A loss is logged.
    pub fn finish_detached(&self, turn: TurnId, reply: String, outcome: Outcome) {
        match self {
            Store::Sqlite(store) => store.finish_detached(turn, reply, outcome),
            Store::Postgres(store) => store.finish_detached(turn, reply, outcome),
        }
    }

    /// A session's mode; the default for one that is not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mode(&self, key: SessionKey) -> Result<Mode, StoreError> {
        let session = Named::new(key)?;
        match self {
            Store::Sqlite(store) => store.mode(session).await,
            Store::Postgres(store) => store.mode(session).await,
        }
    }

    /// Sets a session's mode; a session that is not there is made.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_mode(&self, key: SessionKey, mode: Mode) -> Result<(), StoreError> {
        let session = Named::new(key)?;
        match self {
            Store::Sqlite(store) => store.set_mode(session, mode).await,
            Store::Postgres(store) => store.set_mode(session, mode).await,
        }
    }

    /// Deletes sessions that were idle for too long, [`PURGE_MAX`] at once. Returns how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn purge(&self) -> Result<usize, StoreError> {
        match self {
            Store::Sqlite(store) => store.purge().await,
            Store::Postgres(store) => store.purge().await,
        }
    }

    /// Whether a session could be stored now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn health(&self) -> Result<(), StoreError> {
        match self {
            Store::Sqlite(store) => store.health().await,
            Store::Postgres(store) => store.health().await,
        }
    }

    /// Ends its threads when they have done what waits.
    pub fn close(&self) {
        match self {
            Store::Sqlite(store) => store.close(),
            Store::Postgres(store) => store.close(),
        }
    }
}

fn lost(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a turn's end was not stored");
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
