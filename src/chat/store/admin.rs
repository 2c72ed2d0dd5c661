//! What an operator does to stored sessions, from a process of its own beside the workers. Blocking; never on a worker.

use super::{Plan, StoreError, now_ms, schema};
use rusqlite::{Connection, params};
use serde::Serialize;

/// Sessions that one transaction deletes at most: the workers write in between.
const PURGE_MAX: i64 = 500;

/// One session, without its turns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Its number in this store, by which an operator names it.
    pub number: i64,
    /// The id that its client knows: a secret when the server issued it.
    #[serde(rename = "session_id")]
    pub name: String,
    /// True for an id that the server made.
    pub issued: bool,
    /// As the client said.
    pub user_id: String,
    /// `fresh` or `relevant`.
    pub mode: String,
    /// Epoch milliseconds.
    pub created_ms: i64,
    /// Epoch milliseconds.
    pub active_ms: i64,
    /// How many turns it has.
    pub turn_count: i64,
}

/// One turn as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Epoch milliseconds.
    pub created_ms: i64,
    /// What the user said.
    pub user: String,
    /// What there is of the reply.
    pub assistant: String,
    /// `open`, `complete`, `incomplete`.
    pub state: String,
}

/// The store as an operator has it.
pub struct Admin {
    connection: Connection,
    plan: Plan,
}

impl Admin {
    /// Opens the store.
    ///
    /// # Errors
    /// It is not there, or no database.
    pub fn open(plan: &Plan) -> Result<Admin, StoreError> {
        Ok(Admin { connection: schema::open(plan)?, plan: plan.clone() })
    }

    /// The sessions used last, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn list(&self, most: u32) -> Result<Vec<Session>, StoreError> {
        let mut rows = self.connection.prepare(schema::LIST)?;
        Ok(rows.query_map(params![i64::MAX, most], session)?.collect::<Result<_, _>>()?)
    }

    /// One session by its number.
    ///
    /// # Errors
    /// See [`StoreError`]; `Unusable` when there is none.
    pub fn find(&self, number: i64) -> Result<Session, StoreError> {
        let mut rows = self.connection.prepare(schema::LIST_ONE)?;
        let found = rows.query_map(params![number], session)?.next();
        found.ok_or_else(|| StoreError::Unusable(format!("there is no session {number}")))?.map_err(StoreError::from)
    }

    /// Its turns, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn turns(&self, number: i64) -> Result<Vec<Turn>, StoreError> {
        let mut rows = self.connection.prepare(schema::ALL_TURNS)?;
        let turn = |row: &rusqlite::Row<'_>| {
            Ok(Turn { created_ms: row.get(0)?, user: row.get(1)?, assistant: row.get(2)?, state: row.get(3)? })
        };
        Ok(rows.query_map(params![number], turn)?.collect::<Result<_, _>>()?)
    }

    /// Deletes a session with its turns.
    ///
    /// # Errors
    /// See [`StoreError`]; `Unusable` when there is none.
    pub fn delete(&self, number: i64) -> Result<(), StoreError> {
        match self.connection.execute(schema::DELETE, params![number])? {
            0 => Err(StoreError::Unusable(format!("there is no session {number}"))),
            _ => Ok(()),
        }
    }

    /// Deletes all sessions that were idle for longer than they are kept. Returns how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn purge(&self) -> Result<usize, StoreError> {
        let before_ms = now_ms().saturating_sub(i64::try_from(self.plan.ttl.as_millis()).unwrap_or(i64::MAX));
        let mut purged = 0;
        loop {
            match self.connection.execute(schema::PURGE, params![before_ms, PURGE_MAX])? {
                0 => return Ok(purged),
                more => purged += more,
            }
        }
    }
}

fn session(row: &rusqlite::Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        number: row.get(0)?,
        name: row.get(1)?,
        issued: row.get::<_, Vec<u8>>(2)?.is_empty(),
        user_id: row.get(3)?,
        mode: row.get(4)?,
        created_ms: row.get(5)?,
        active_ms: row.get(6)?,
        turn_count: row.get(7)?,
    })
}
