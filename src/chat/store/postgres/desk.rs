//! The operator's own connection, blocking; never on a worker.

use super::{Target, failure, line, schema};
use crate::chat::store::admin::{Session, Turn};
use crate::chat::store::{PURGE_MAX, StoreError};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

/// A connection, and the loop that drives it.
pub struct Desk {
    runtime: Runtime,
    client: Client,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Desk {
    /// Connects.
    ///
    /// # Errors
    /// The server cannot be reached, or has no schema of this version.
    pub fn open(target: &Target) -> Result<Desk, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| StoreError::Failed(error.to_string()))?;
        let client = runtime.block_on(async {
            let (mut client, connection) = line::connect(target).await?;
            tokio::spawn(connection);
            schema::update(&mut client).await?;
            client.batch_execute(schema::PATIENT).await.map_err(|error| failure(&error))?;
            Ok::<_, StoreError>(client)
        })?;
        Ok(Desk { runtime, client })
    }

    /// The sessions used last, newest first.
    pub fn list(&self, most: u32) -> Result<Vec<Session>, StoreError> {
        Ok(self.rows(schema::LIST, &[&i64::from(most)])?.iter().map(session).collect())
    }

    /// One session by its number.
    pub fn find(&self, number: i64) -> Result<Option<Session>, StoreError> {
        Ok(self.rows(schema::LIST_ONE, &[&number])?.first().map(session))
    }

    /// Its turns, oldest first.
    pub fn turns(&self, number: i64) -> Result<Vec<Turn>, StoreError> {
        let turn =
            |row: &Row| Turn { created_ms: row.get(0), user: row.get(1), assistant: row.get(2), state: row.get(3) };
        Ok(self.rows(schema::ALL_TURNS, &[&number])?.iter().map(turn).collect())
    }

    /// Deletes a session; returns how many there were of it.
    pub fn delete(&self, number: i64) -> Result<usize, StoreError> {
        self.execute(schema::DELETE, &[&number])
    }

    /// Deletes some sessions that were idle for so long; returns how many.
    pub fn purge(&self, idle_ms: i64) -> Result<usize, StoreError> {
        self.execute(schema::PURGE, &[&idle_ms, &PURGE_MAX])
    }

    fn rows(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        self.runtime.block_on(self.client.query(sql, parameters)).map_err(|error| failure(&error))
    }

    fn execute(&self, sql: &str, parameters: Parameters<'_>) -> Result<usize, StoreError> {
        let count = self.runtime.block_on(self.client.execute(sql, parameters)).map_err(|error| failure(&error))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

fn session(row: &Row) -> Session {
    Session {
        number: row.get(0),
        name: row.get(1),
        issued: row.get::<_, &[u8]>(2).is_empty(),
        user_id: row.get(3),
        mode: row.get(4),
        created_ms: row.get(5),
        active_ms: row.get(6),
        turn_count: row.get(7),
    }
}
