//! SQLite: one writer a worker, commits in groups.
//!
//! ```text
//! begin, finish, set_mode ─▶ queue ─▶ writer thread: BEGIN, all that waits, COMMIT ─▶ answers
//! mode                    ─▶ queue ─▶ reader thread
//! ```
//! A call that is dropped while it waits still happens. With `synchronous=NORMAL` what was acknowledged survives the
//! death of every process, not a power cut.

pub mod schema;
mod worker;

use super::{Begun, Named, Outcome, PURGE_MAX, StoreError, StoredTurn, TOUCH_MS, TurnId, lost, millis, now_ms};
use crate::chat::session::{Mode, TURNS_BYTES_MAX, TURNS_MAX};
use rusqlite::{Connection, OptionalExtension, params};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use worker::Worker;

pub use schema::migrate;

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

/// One worker's two threads.
#[derive(Clone)]
pub struct Sqlite {
    writer: Arc<Worker>,
    reader: Arc<Worker>,
    ttl: Duration,
}

impl Sqlite {
    pub(super) fn open(path: &Path, ttl: Duration) -> Result<Sqlite, StoreError> {
        let writer = Arc::new(Worker::start("store", path, true)?);
        let reader = Arc::new(Worker::start("store read", path, false)?);
        Ok(Sqlite { writer, reader, ttl })
    }

    pub(super) async fn begin(
        &self,
        key: Named,
        message: String,
        user_id: String,
        mode: Option<Mode>,
    ) -> Result<Begun, StoreError> {
        self.writer.call(move |connection| begin(connection, key, &message, &user_id, mode)).await
    }

    pub(super) async fn finish(&self, turn: TurnId, reply: String, outcome: Outcome) -> Result<(), StoreError> {
        self.writer.call(move |connection| end(connection, turn, &reply, outcome)).await
    }

    pub(super) fn finish_detached(&self, turn: TurnId, reply: String, outcome: Outcome) {
        let sent = self.writer.send(move |connection| end(connection, turn, &reply, outcome), lost);
        lost(sent);
    }

    pub(super) async fn mode(&self, key: Named) -> Result<Mode, StoreError> {
        self.reader
            .call(move |connection| Ok(find(connection, &key)?.map(|found| found.mode).unwrap_or_default()))
            .await
    }

    pub(super) async fn set_mode(&self, key: Named, mode: Mode) -> Result<(), StoreError> {
        self.writer.call(move |connection| session(connection, &key, "anonymous", Some(mode)).map(|_| ())).await
    }

    pub(super) async fn purge(&self) -> Result<usize, StoreError> {
        let before_ms = now_ms().saturating_sub(millis(self.ttl));
        self.writer.call(move |connection| Ok(connection.execute(schema::PURGE, params![before_ms, PURGE_MAX])?)).await
    }

    pub(super) async fn health(&self) -> Result<(), StoreError> {
        self.writer.call(|connection| Ok(connection.prepare_cached(schema::PROBE)?.exists([]).map(|_| ())?)).await
    }

    pub(super) fn close(&self) {
        self.writer.close();
        self.reader.close();
    }
}

/// A session's row.
struct Found {
    id: i64,
    mode: Mode,
    active_ms: i64,
}

fn begin(
    connection: &Connection,
    key: Named,
    message: &str,
    user_id: &str,
    mode: Option<Mode>,
) -> Result<Begun, StoreError> {
    let (session, mode) = session(connection, &key, user_id, mode)?;
    let turns = turns(connection, session)?;
    let created_ms = now_ms();
    connection.prepare_cached(schema::BEGIN_TURN)?.execute(params![session, created_ms, message])?;
    let turn = TurnId { id: connection.last_insert_rowid(), session, created_ms };
    Ok(Begun { session_id: key.name, turn, mode, turns })
}

/// The session that a key means, made if it is not there: its row, its mode after `mode` was applied.
fn session(connection: &Connection, key: &Named, user_id: &str, mode: Option<Mode>) -> Result<(i64, Mode), StoreError> {
    let now_ms = now_ms();
    let Some(found) = find(connection, key)? else {
        let mode = mode.unwrap_or_default();
        let mut create = connection.prepare_cached(schema::CREATE)?;
        create.execute(params![key.name, key.principal, user_id, mode.as_str(), now_ms])?;
        return Ok((connection.last_insert_rowid(), mode));
    };
    // A clock that was set back must not keep a session for ever.
    if (now_ms - found.active_ms).abs() >= TOUCH_MS {
        connection.prepare_cached(schema::TOUCH)?.execute(params![found.id, now_ms])?;
    }
    if let Some(mode) = mode.filter(|mode| *mode != found.mode) {
        connection.prepare_cached(schema::SET_MODE)?.execute(params![found.id, mode.as_str()])?;
    }
    Ok((found.id, mode.unwrap_or(found.mode)))
}

fn find(connection: &Connection, key: &Named) -> Result<Option<Found>, StoreError> {
    let mut find = connection.prepare_cached(schema::FIND)?;
    let row = |row: &rusqlite::Row<'_>| {
        let mode = row.get_ref(1)?.as_str().ok().and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Found { id: row.get(0)?, mode, active_ms: row.get(2)? })
    };
    Ok(find.query_row(params![key.name, key.principal], row).optional()?)
}

/// The newest whole turns that fit into the bounds, oldest first.
fn turns(connection: &Connection, session: i64) -> Result<Vec<StoredTurn>, StoreError> {
    let mut newest = connection.prepare_cached(schema::TURNS)?;
    let mut rows = newest.query(params![session, TURNS_MAX as i64])?;
    let (mut turns, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        bytes += row.get_ref(0)?.as_bytes().map_or(0, <[u8]>::len) + row.get_ref(1)?.as_bytes().map_or(0, <[u8]>::len);
        if bytes > TURNS_BYTES_MAX {
            break;
        }
        turns.push(StoredTurn { user: row.get(0)?, assistant: row.get(1)? });
    }
    turns.reverse();
    Ok(turns)
}

fn end(connection: &Connection, turn: TurnId, reply: &str, outcome: Outcome) -> Result<(), StoreError> {
    let mut end = connection.prepare_cached(schema::END_TURN)?;
    match end.execute(params![turn.id, turn.session, turn.created_ms, reply, outcome.as_str()])? {
        0 => Err(StoreError::Gone),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
