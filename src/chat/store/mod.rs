//! The session store: SQLite, one writer a worker, commits in groups.
//!
//! ```text
//! begin, finish, set_mode ─▶ queue ─▶ writer thread: BEGIN, all that waits, COMMIT ─▶ answers
//! mode, health            ─▶ queue ─▶ reader thread
//! ```
//! An answer comes after the commit. A call that is dropped while it waits still happens. Every call ends within
//! [`CALL_LIMIT`]: a locked, full or garbled database is an error, never a hanging request.

pub mod admin;
mod schema;
mod worker;

use super::session::{Mode, SessionKey, SessionRef, TURNS_MAX, issue_id};
use rusqlite::{Connection, OptionalExtension, params};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use worker::Worker;

/// Longest that a caller waits.
pub const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Sessions that one purge deletes at most.
const PURGE_MAX: i64 = 500;

/// Where sessions are kept, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The database file.
    pub path: PathBuf,
    /// Idle sessions are deleted after this.
    pub ttl: Duration,
}

/// Why a call failed. For the log; clients learn that the store does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// Another process holds the database, or the disk is slow.
    Busy,
    /// Too many calls wait.
    Overloaded,
    /// The disk is full.
    Full,
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
            StoreError::Corrupt(text) => write!(f, "not a usable database: {text}"),
            StoreError::Unusable(text) | StoreError::Failed(text) => f.write_str(text),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
            Some(ErrorCode::DiskFull) => StoreError::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(error.to_string()),
            _ => StoreError::Failed(error.to_string()),
        }
    }
}

/// A turn's name in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnId(i64);

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
    /// The newest whole turns before this one, oldest first.
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

/// Brings the schema up to date; run once, before anybody opens the store. Returns the schema's version.
///
/// # Errors
/// A sentence for the operator.
pub fn migrate(plan: &Plan) -> Result<i64, StoreError> {
    schema::migrate(plan)
}

/// The store of one worker. A copy is another handle.
#[derive(Clone)]
pub struct Store {
    writer: Arc<Worker>,
    reader: Arc<Worker>,
    ttl: Duration,
}

impl Store {
    /// Opens it: two threads with a connection each. After the fork, never before.
    ///
    /// # Errors
    /// The file is missing or no database.
    pub fn open(plan: &Plan) -> Result<Store, StoreError> {
        let writer = Arc::new(Worker::start("store", plan, true)?);
        let reader = Arc::new(Worker::start("store read", plan, false)?);
        Ok(Store { writer, reader, ttl: plan.ttl })
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
        self.writer.call(move |connection| begin(connection, key, &message, &user_id, mode)).await
    }

    /// Stores a reply.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn finish(&self, turn: TurnId, reply: String, outcome: Outcome) -> Result<(), StoreError> {
        self.writer.call(move |connection| end(connection, turn, &reply, outcome)).await
    }

    /// Stores what there is of a reply, for those who cannot wait. A loss is logged.
    pub fn finish_detached(&self, turn: TurnId, reply: String, outcome: Outcome) {
        let sent = self.writer.send(
            move |connection| end(connection, turn, &reply, outcome),
            |result| {
                if let Err(error) = result {
                    tracing::warn!(%error, "a turn's end was not stored");
                }
            },
        );
        if let Err(error) = sent {
            tracing::warn!(%error, "a turn's end was not stored");
        }
    }

    /// A session's mode; the default for one that is not there.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn mode(&self, key: SessionKey) -> Result<Mode, StoreError> {
        self.reader.call(move |connection| Ok(find(connection, &key)?.map(|(_, mode)| mode).unwrap_or_default())).await
    }

    /// Sets a session's mode; a session that is not there is made.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_mode(&self, key: SessionKey, mode: Mode) -> Result<(), StoreError> {
        self.writer.call(move |connection| session(connection, key, "anonymous", Some(mode)).map(|_| ())).await
    }

    /// Deletes sessions that were idle for too long, a bounded number at once. Returns how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn purge(&self) -> Result<usize, StoreError> {
        let before_ms = now_ms().saturating_sub(i64::try_from(self.ttl.as_millis()).unwrap_or(i64::MAX));
        self.writer.call(move |connection| Ok(connection.execute(schema::PURGE, params![before_ms, PURGE_MAX])?)).await
    }

    /// Whether a session could be stored now.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn health(&self) -> Result<(), StoreError> {
        self.writer.call(|connection| Ok(connection.prepare_cached(schema::PROBE)?.exists([]).map(|_| ())?)).await
    }

    /// Ends both threads when they have done what waits.
    pub fn close(&self) {
        self.writer.close();
        self.reader.close();
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn begin(
    connection: &Connection,
    key: SessionKey,
    message: &str,
    user_id: &str,
    mode: Option<Mode>,
) -> Result<Begun, StoreError> {
    let (session_id, id, mode) = session(connection, key, user_id, mode)?;
    let turns = turns(connection, id)?;
    connection.prepare_cached(schema::BEGIN_TURN)?.execute(params![id, now_ms(), message])?;
    Ok(Begun { session_id, turn: TurnId(connection.last_insert_rowid()), mode, turns })
}

/// The session that a key means, made if it is not there: its name, its row, its mode after `mode` was applied.
fn session(
    connection: &Connection,
    key: SessionKey,
    user_id: &str,
    mode: Option<Mode>,
) -> Result<(String, i64, Mode), StoreError> {
    let found = find(connection, &key)?;
    let (name, principal) = match key.session {
        SessionRef::Given(name) => (name, key.principal.bytes().to_vec()),
        SessionRef::Issue => (issue_id().map_err(|error| StoreError::Failed(error.to_string()))?, Vec::new()),
    };
    let Some((id, stored)) = found else {
        let mode = mode.unwrap_or_default();
        let mut create = connection.prepare_cached(schema::CREATE)?;
        create.execute(params![name, principal, user_id, mode.as_str(), now_ms()])?;
        return Ok((name, connection.last_insert_rowid(), mode));
    };
    connection.prepare_cached(schema::TOUCH)?.execute(params![id, now_ms()])?;
    if let Some(mode) = mode.filter(|mode| *mode != stored) {
        connection.prepare_cached(schema::SET_MODE)?.execute(params![id, mode.as_str()])?;
    }
    Ok((name, id, mode.unwrap_or(stored)))
}

fn find(connection: &Connection, key: &SessionKey) -> Result<Option<(i64, Mode)>, StoreError> {
    let SessionRef::Given(name) = &key.session else { return Ok(None) };
    let mut find = connection.prepare_cached(schema::FIND)?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
    let found: Option<(i64, String)> = find.query_row(params![name, key.principal.bytes()], row).optional()?;
    Ok(found.map(|(id, mode)| (id, mode.parse().unwrap_or_default())))
}

fn turns(connection: &Connection, session: i64) -> Result<Vec<StoredTurn>, StoreError> {
    let mut newest = connection.prepare_cached(schema::TURNS)?;
    let row = |row: &rusqlite::Row<'_>| Ok(StoredTurn { user: row.get(0)?, assistant: row.get(1)? });
    let mut turns = newest.query_map(params![session, TURNS_MAX as i64], row)?.collect::<Result<Vec<_>, _>>()?;
    turns.reverse();
    Ok(turns)
}

fn end(connection: &Connection, turn: TurnId, reply: &str, outcome: Outcome) -> Result<(), StoreError> {
    connection.prepare_cached(schema::END_TURN)?.execute(params![turn.0, reply, outcome.as_str()])?;
    Ok(())
}

#[cfg(test)]
mod tests;
