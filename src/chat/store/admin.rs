//! What an operator does to stored sessions, from a process of its own beside the workers. Blocking; never on a worker.

use super::sqlite::schema;
use super::{PURGE_MAX, Place, Plan, StoreError, millis, now_ms, postgres};
use rusqlite::{Connection, params};
use serde::Serialize;

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
    way: Way,
    plan: Plan,
}

enum Way {
    Sqlite(Connection),
    Postgres(postgres::Desk),
}

impl Admin {
    /// Opens the store.
    ///
    /// # Errors
    /// It is not there, or no database.
    pub fn open(plan: &Plan) -> Result<Admin, StoreError> {
        let way = match &plan.place {
            Place::File(path) => Way::Sqlite(schema::open(path)?),
            Place::Server(target) => Way::Postgres(postgres::Desk::open(target)?),
        };
        Ok(Admin { way, plan: plan.clone() })
    }

    /// The sessions used last, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn list(&self, most: u32) -> Result<Vec<Session>, StoreError> {
        match &self.way {
            Way::Sqlite(connection) => {
                let mut rows = connection.prepare(schema::LIST)?;
                Ok(rows.query_map(params![i64::MAX, most], session)?.collect::<Result<_, _>>()?)
            }
            Way::Postgres(desk) => desk.list(most),
        }
    }

    /// One session by its number.
    ///
    /// # Errors
    /// See [`StoreError`]; `Unusable` when there is none.
    pub fn find(&self, number: i64) -> Result<Session, StoreError> {
        let found = match &self.way {
            Way::Sqlite(connection) => {
                let mut rows = connection.prepare(schema::LIST_ONE)?;
                rows.query_map(params![number], session)?.next().transpose()?
            }
            Way::Postgres(desk) => desk.find(number)?,
        };
        found.ok_or_else(|| StoreError::Unusable(format!("there is no session {number}")))
    }

    /// Its turns, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn turns(&self, number: i64) -> Result<Vec<Turn>, StoreError> {
        let connection = match &self.way {
            Way::Sqlite(connection) => connection,
            Way::Postgres(desk) => return desk.turns(number),
        };
        let mut rows = connection.prepare(schema::ALL_TURNS)?;
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
        let deleted = match &self.way {
            Way::Sqlite(connection) => connection.execute(schema::DELETE, params![number])?,
            Way::Postgres(desk) => desk.delete(number)?,
        };
        match deleted {
            0 => Err(StoreError::Unusable(format!("there is no session {number}"))),
            _ => Ok(()),
        }
    }

    /// Deletes all sessions that were idle for longer than they are kept. Returns how many.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn purge(&self) -> Result<usize, StoreError> {
        let idle_ms = millis(self.plan.ttl);
        let before_ms = now_ms().saturating_sub(idle_ms);
        let mut purged = 0;
        loop {
            let more = match &self.way {
                Way::Sqlite(connection) => connection.execute(schema::PURGE, params![before_ms, PURGE_MAX])?,
                Way::Postgres(desk) => desk.purge(idle_ms)?,
            };
            if more == 0 {
                return Ok(purged);
            }
            purged += more;
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
