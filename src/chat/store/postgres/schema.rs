//! The tables, step by step, and every statement that the store runs. They stand in a schema of their own, so that a
//! database may hold other things. Times are the server's, so that machines' clocks may differ.

use super::failure;
use crate::chat::store::StoreError;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};

/// Each step, once published, stays as it is; a change is a new step.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE chatcorn.sessions (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL,
        -- Empty for an id that the server issued: it works from anywhere.
        principal bytea NOT NULL,
        user_id text NOT NULL DEFAULT 'anonymous',
        mode text NOT NULL DEFAULT 'relevant' CHECK (mode IN ('fresh', 'relevant')),
        created_ms bigint NOT NULL,
        active_ms bigint NOT NULL
    );
    CREATE UNIQUE INDEX sessions_by_name ON chatcorn.sessions (name, principal);
    CREATE INDEX sessions_by_activity ON chatcorn.sessions (active_ms);
    CREATE TABLE chatcorn.turns (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        session_id bigint NOT NULL REFERENCES chatcorn.sessions ON DELETE CASCADE,
        created_ms bigint NOT NULL,
        said text NOT NULL,
        reply text NOT NULL DEFAULT '',
        state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'complete', 'incomplete'))
    -- Every turn is written twice; the second time it finds room on its page, and no index changes.
    ) WITH (fillfactor = 60);
    CREATE INDEX turns_by_session ON chatcorn.turns (session_id, id);
"];

/// Only one migrates at a time; the number is this program's own.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7226349701)";
/// A stuck server or row must not hold a call longer than its caller waits.
pub const LIMITS: &str = "SET statement_timeout = 1500; SET lock_timeout = 500; \
    SET idle_in_transaction_session_timeout = 5000; SET client_min_messages = warning";
/// For the operator's own commands and for migrations.
pub const PATIENT: &str = "SET statement_timeout = 60000; SET lock_timeout = 10000; SET client_min_messages = warning";

macro_rules! now_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

// $1 name, $2 principal, $3 user id, $4 mode or null. The row's lock is held to the commit, and a turn takes its number
// under it: so the numbers of a session's turns are in the order of their commits.
macro_rules! with_session {
    () => {
        concat!(
            "WITH clock AS (SELECT ",
            now_ms!(),
            " AS ms), found AS (
                SELECT id, mode, active_ms FROM chatcorn.sessions
                WHERE name = $1 AND principal IN (''::bytea, $2) ORDER BY principal LIMIT 1 FOR NO KEY UPDATE
            ), touched AS (
                UPDATE chatcorn.sessions SET active_ms = clock.ms, mode = coalesce($4, found.mode)
                FROM found, clock WHERE sessions.id = found.id
                AND (abs(clock.ms - found.active_ms) >= 60000 OR $4 <> found.mode)
            ), made AS (
                INSERT INTO chatcorn.sessions (name, principal, user_id, mode, created_ms, active_ms)
                SELECT $1, $2, $3, coalesce($4, 'relevant'), ms, ms FROM clock WHERE NOT EXISTS (SELECT FROM found)
                ON CONFLICT (name, principal) DO UPDATE
                SET active_ms = excluded.active_ms, mode = coalesce($4, sessions.mode)
                RETURNING id, mode
            ), session AS (
                SELECT id, coalesce($4, mode) AS mode FROM found UNION ALL SELECT id, mode FROM made
            )"
        )
    };
}

/// Stores a message; $5 is what was said, $6 and $7 bound the turns that come back, oldest first.
const BEGIN: &str = concat!(
    with_session!(),
    ", turn AS (
        INSERT INTO chatcorn.turns (session_id, created_ms, said) SELECT session.id, clock.ms, $5 FROM session, clock
        RETURNING id
    )
    SELECT session.id, session.mode, turn.id, past.said, past.reply
    FROM session CROSS JOIN turn LEFT JOIN LATERAL (
        SELECT id, said, reply FROM (
            SELECT id, said, reply,
                sum(octet_length(said) + octet_length(reply)) OVER (ORDER BY id DESC ROWS UNBOUNDED PRECEDING) AS bytes
            FROM (
                SELECT id, said, reply FROM chatcorn.turns
                WHERE session_id = session.id AND state = 'complete' ORDER BY id DESC LIMIT $6
            ) AS newest
        ) AS summed WHERE bytes <= $7
    ) AS past ON true ORDER BY past.id"
);
const SET_MODE: &str = concat!(with_session!(), " SELECT id FROM session");
const FINISH: &str = "UPDATE chatcorn.turns SET reply = $3, state = $4 WHERE id = $1 AND session_id = $2";
const MODE: &str = "SELECT mode FROM chatcorn.sessions WHERE name = $1 AND principal IN (''::bytea, $2) \
    ORDER BY principal LIMIT 1";
/// Deletes some sessions that nobody used for $1 milliseconds, $2 at most; their turns go with them.
pub const PURGE: &str = concat!(
    "WITH old AS (SELECT id FROM chatcorn.sessions WHERE active_ms < ",
    now_ms!(),
    " - $1 ORDER BY active_ms LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM chatcorn.sessions USING old WHERE sessions.id = old.id"
);
/// A standby, or a server that was told so, stores nothing.
const PROBE: &str = "SELECT current_setting('transaction_read_only') = 'on'";

/// For the operator: the sessions used last.
pub const LIST: &str = "SELECT id, name, principal, user_id, mode, created_ms, active_ms, \
    (SELECT count(*) FROM chatcorn.turns WHERE session_id = sessions.id) \
    FROM chatcorn.sessions ORDER BY active_ms DESC LIMIT $1";
/// For the operator: one of them.
pub const LIST_ONE: &str = "SELECT id, name, principal, user_id, mode, created_ms, active_ms, \
    (SELECT count(*) FROM chatcorn.turns WHERE session_id = sessions.id) FROM chatcorn.sessions WHERE id = $1";
/// For the operator: everything that was said.
pub const ALL_TURNS: &str =
    "SELECT created_ms, said, reply, state FROM chatcorn.turns WHERE session_id = $1 ORDER BY id";
/// For the operator: a session with its turns.
pub const DELETE: &str = "DELETE FROM chatcorn.sessions WHERE id = $1";

/// What a connection has prepared.
pub struct Statements {
    /// Stores a message.
    pub begin: Statement,
    /// Sets a session's mode.
    pub set_mode: Statement,
    /// Stores a reply.
    pub finish: Statement,
    /// Reads a session's mode.
    pub mode: Statement,
    /// Deletes old sessions.
    pub purge: Statement,
    /// Asks whether writing is allowed.
    pub probe: Statement,
}

impl Statements {
    /// Prepares all of them.
    ///
    /// # Errors
    /// The server's.
    pub async fn prepare(client: &Client) -> Result<Statements, tokio_postgres::Error> {
        Ok(Statements {
            begin: client.prepare(BEGIN).await?,
            set_mode: client.prepare(SET_MODE).await?,
            finish: client.prepare(FINISH).await?,
            mode: client.prepare(MODE).await?,
            purge: client.prepare(PURGE).await?,
            probe: client.prepare(PROBE).await?,
        })
    }
}

/// Brings the schema up to date if it is not. Returns its version.
///
/// # Errors
/// A newer program's schema, an encoding that cannot hold every text, the server's own.
pub async fn update(client: &mut Client) -> Result<i64, StoreError> {
    let known = MIGRATIONS.len() as i64;
    let found = version(client).await?;
    if found < known {
        migrate(client, known).await?;
    } else if found > known {
        let text = format!("the database has schema {found}; this program knows {known}: use the newer program");
        return Err(StoreError::Unusable(text));
    }
    Ok(known)
}

async fn version(client: &Client) -> Result<i64, StoreError> {
    let none = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME];
    match client.query_one("SELECT version FROM chatcorn.version", &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(error) if error.code().is_some_and(|code| none.contains(code)) => Ok(0),
        Err(error) => Err(failure(&error)),
    }
}

async fn migrate(client: &mut Client, known: i64) -> Result<(), StoreError> {
    client.batch_execute(PATIENT).await.map_err(|error| failure(&error))?;
    let encoding = client.query_one("SELECT current_setting('server_encoding')", &[]).await;
    let encoding: String = encoding.map_err(|error| failure(&error))?.get(0);
    if encoding != "UTF8" {
        return Err(StoreError::Unusable(format!("the database's encoding is {encoding}: make one with UTF8")));
    }
    let step = client.transaction().await.map_err(|error| failure(&error))?;
    let run = async {
        step.batch_execute(LOCK).await?;
        step.batch_execute(
            "CREATE SCHEMA IF NOT EXISTS chatcorn;
             CREATE TABLE IF NOT EXISTS chatcorn.version (version bigint NOT NULL);
             INSERT INTO chatcorn.version SELECT 0 WHERE NOT EXISTS (SELECT FROM chatcorn.version);",
        )
        .await?;
        let found: i64 = step.query_one("SELECT version FROM chatcorn.version", &[]).await?.get(0);
        for sql in MIGRATIONS.get(usize::try_from(found).unwrap_or(0)..).unwrap_or_default() {
            step.batch_execute(sql).await?;
        }
        step.execute("UPDATE chatcorn.version SET version = $1 WHERE version < $1", &[&known]).await?;
        step.commit().await
    };
    run.await.map_err(|error| match failure(&error) {
        StoreError::Failed(text) => StoreError::Unusable(format!("the schema cannot be brought up to date: {text}")),
        other => other,
    })
}
