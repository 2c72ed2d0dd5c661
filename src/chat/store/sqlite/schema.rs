//! The tables, step by step, and every statement that the store runs.

use super::StoreError;
use rusqlite::{Connection, OpenFlags};
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

/// SQLite before 3.51.3 can corrupt a WAL database that several processes write (`DESIGN.md`).
const SQLITE_MIN: i32 = 3_051_003;
/// Pauses of a statement that waits for another process's write, in microseconds, and how often each: about 1 s in all.
/// SQLite's own begin at 1 ms and grow to 100 ms, in which others come first again and again.
const LOCK_PAUSES_US: [(u64, i32); 3] = [(150, 30), (1_000, 100), (5_000, 170)];
/// Prepared statements that a connection keeps: all that the store runs.
const STATEMENTS_KEPT: usize = 32;
/// KiB of pages that a connection keeps.
const CACHE_KIB: i32 = 512;

/// Each step, once published, stays as it is; a change is a new step.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        -- Empty for an id that the server issued: it works from anywhere.
        principal BLOB NOT NULL,
        user_id TEXT NOT NULL DEFAULT 'anonymous',
        mode TEXT NOT NULL DEFAULT 'relevant' CHECK (mode IN ('fresh', 'relevant')),
        created_ms INTEGER NOT NULL,
        active_ms INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX sessions_by_name ON sessions (name, principal);
    CREATE INDEX sessions_by_activity ON sessions (active_ms);
    CREATE TABLE turns (
        id INTEGER PRIMARY KEY,
        session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        created_ms INTEGER NOT NULL,
        user TEXT NOT NULL,
        assistant TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'complete', 'incomplete'))
    ) STRICT;
    CREATE INDEX turns_by_session ON turns (session_id, created_ms, id);
",
    "
    -- The order of a session's turns is that of their numbers: a clock may go back.
    DROP INDEX turns_by_session;
    CREATE INDEX turns_by_session ON turns (session_id, id);
",
];

/// Finds a session: one that the server issued, or the asker's own.
pub const FIND: &str =
    "SELECT id, mode, active_ms FROM sessions WHERE name = ?1 AND principal IN (x'', ?2) ORDER BY principal LIMIT 1";
/// Makes a session.
pub const CREATE: &str =
    "INSERT INTO sessions (name, principal, user_id, mode, created_ms, active_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
/// Notes that a session is in use.
pub const TOUCH: &str = "UPDATE sessions SET active_ms = ?2 WHERE id = ?1";
/// Sets a session's mode.
pub const SET_MODE: &str = "UPDATE sessions SET mode = ?2 WHERE id = ?1";
/// The newest whole turns.
pub const TURNS: &str =
    "SELECT user, assistant FROM turns WHERE session_id = ?1 AND state = 'complete' ORDER BY id DESC LIMIT ?2";
/// Stores a message.
pub const BEGIN_TURN: &str = "INSERT INTO turns (session_id, created_ms, user) VALUES (?1, ?2, ?3)";
/// Stores a reply.
pub const END_TURN: &str =
    "UPDATE turns SET assistant = ?4, state = ?5 WHERE id = ?1 AND session_id = ?2 AND created_ms = ?3";
/// Deletes some sessions that nobody used for long; their turns go with them.
pub const PURGE: &str =
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE active_ms < ?1 ORDER BY active_ms LIMIT ?2)";
/// A write that changes nothing, to see that writing works.
pub const PROBE: &str = "SELECT id FROM sessions WHERE id = 0";

/// For the operator: the sessions used last.
pub const LIST: &str = "SELECT id, name, principal, user_id, mode, created_ms, active_ms, \
    (SELECT count(*) FROM turns WHERE session_id = sessions.id) \
    FROM sessions WHERE active_ms <= ?1 ORDER BY active_ms DESC LIMIT ?2";
/// For the operator: one of them.
pub const LIST_ONE: &str = "SELECT id, name, principal, user_id, mode, created_ms, active_ms, \
    (SELECT count(*) FROM turns WHERE session_id = sessions.id) FROM sessions WHERE id = ?1";
/// For the operator: everything that was said.
pub const ALL_TURNS: &str = "SELECT created_ms, user, assistant, state FROM turns WHERE session_id = ?1 ORDER BY id";
/// For the operator: a session with its turns.
pub const DELETE: &str = "DELETE FROM sessions WHERE id = ?1";

/// All of them, for the test that asks SQLite how it would run each.
#[cfg(test)]
const STATEMENTS: &[&str] =
    &[FIND, CREATE, TOUCH, SET_MODE, TURNS, BEGIN_TURN, END_TURN, PURGE, PROBE, LIST, LIST_ONE, ALL_TURNS, DELETE];

/// A migration waits so long for others that begin at the same time, looking so often.
const MIGRATION_WAIT_MAX: Duration = Duration::from_secs(5);
const MIGRATION_PAUSE: Duration = Duration::from_millis(10);

/// Opens the database for reading and writing.
///
/// # Errors
/// It is not there, not ours, not a database.
pub fn open(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_handler(Some(wait_for_lock))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    Ok(connection)
}

/// SQLite asks this when another process writes; true: it shall try again.
fn wait_for_lock(tries: i32) -> bool {
    let mut before = 0;
    let pause = LOCK_PAUSES_US.iter().find(|(_, times)| {
        before += times;
        tries < before
    });
    // A lock in a file tells nobody that it is free: there is nothing to wait for but time.
    pause.map(|(micros, _)| std::thread::park_timeout(Duration::from_micros(*micros))).is_some()
}

/// Makes the file if there is none (0600, in a directory 0700) and brings its schema up to date. Returns the version.
///
/// # Errors
/// A sentence that says what is wrong with the place, the file or its version.
pub fn migrate(path: &Path) -> Result<i64, StoreError> {
    let linked = rusqlite::version_number();
    if linked < SQLITE_MIN {
        let text = format!("SQLite {} can corrupt a shared database: 3.51.3 or newer is needed", rusqlite::version());
        return Err(StoreError::Unusable(text));
    }
    make_file(path).map_err(|error| StoreError::Unusable(place_error(path, &error)))?;
    let until = Instant::now() + MIGRATION_WAIT_MAX;
    loop {
        match bring_up_to_date(path) {
            // A first change of the journal's mode asks no busy handler: masters that begin at once take turns here.
            Err(StoreError::Busy) if Instant::now() < until => std::thread::park_timeout(MIGRATION_PAUSE),
            done => return done,
        }
    }
}

fn bring_up_to_date(path: &Path) -> Result<i64, StoreError> {
    let mut connection = open(path)?;
    let known = MIGRATIONS.len() as i64;
    let step = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = step.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        let text = format!("{} has schema {found}; this program knows {known}: use the newer program", path.display());
        return Err(StoreError::Unusable(text));
    }
    for sql in &MIGRATIONS[usize::try_from(found).unwrap_or(0)..] {
        step.execute_batch(sql)?;
    }
    step.pragma_update(None, "user_version", known)?;
    step.commit()?;
    Ok(known)
}

/// SQLite gives its other files the database's own mode, so this one is made first, closed from its first moment.
fn make_file(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists())
    {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    let others = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o077;
    if others != 0 {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

fn place_error(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.raw_os_error() {
        Some(nix::libc::ELOOP) => format!("{shown} is a symbolic link: name the file itself in DATABASE_URL"),
        Some(nix::libc::EACCES | nix::libc::EROFS) => {
            format!("{shown} cannot be written by this user: chown its directory, or set DATABASE_URL or --user")
        }
        Some(nix::libc::ENOSPC) => format!("{shown} cannot be made: the disk is full"),
        _ => format!("{shown} cannot be made: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_uses_an_index() {
        let connection = Connection::open_in_memory().unwrap();
        MIGRATIONS.iter().for_each(|sql| connection.execute_batch(sql).unwrap());
        for sql in STATEMENTS {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let count = plan.parameter_count();
            let nulls = vec![rusqlite::types::Null; count];
            let rows = plan.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>(3)).unwrap();
            let steps: Vec<String> = rows.map(Result::unwrap).collect();
            assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
        }
        let count = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM sqlite_master WHERE type = 'index' AND tbl_name = '{table}'");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!((count("sessions"), count("turns")), (2, 1));
    }
}
