//! The store against a real file.

use super::*;
use crate::chat::session::Principal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("chatcorn-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Place(path)
    }

    fn plan(&self) -> Plan {
        Plan { path: self.0.join("data").join("c.db"), ttl: Duration::from_secs(60) }
    }

    fn store(&self) -> Store {
        migrate(&self.plan()).unwrap();
        Store::open(&self.plan()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn key(id: &str, ip: &str) -> SessionKey {
    SessionKey::new(SessionRef::Given(id.into()), Principal::visitor(Some(ip.parse().unwrap()), None))
}

fn issue(ip: &str) -> SessionKey {
    SessionKey::new(SessionRef::Issue, Principal::visitor(Some(ip.parse().unwrap()), None))
}

async fn say(store: &Store, key: SessionKey, text: &str) -> Begun {
    store.begin(key, text.into(), "anonymous".into(), None).await.unwrap()
}

async fn turn(store: &Store, key: SessionKey, text: &str) -> Begun {
    let begun = say(store, key, text).await;
    store.finish(begun.turn, format!("re {text}"), Outcome::Complete).await.unwrap();
    begun
}

#[test]
fn a_named_session_is_private_and_an_issued_one_works_from_anywhere() {
    let place = Place::new("ids");
    let store = place.store();
    run(async {
        turn(&store, key("test", "1.1.1.1"), "mine").await;
        assert!(say(&store, key("test", "2.2.2.2"), "other").await.turns.is_empty());
        let own = say(&store, key("test", "1.1.1.1"), "again").await;
        assert_eq!(own.turns, [StoredTurn { user: "mine".into(), assistant: "re mine".into() }]);
        let issued = turn(&store, issue("1.1.1.1"), "hello").await.session_id;
        assert_eq!(say(&store, key(&issued, "3.3.3.3"), "from afar").await.turns.len(), 1);
        let guess = say(&store, key(&"0".repeat(32), "1.1.1.1"), "guess").await;
        assert!(guess.turns.is_empty());
        assert!(say(&store, key(&"0".repeat(32), "2.2.2.2"), "guess").await.turns.is_empty());
    });
    store.close();
}

#[test]
fn only_whole_turns_are_context_and_the_mode_is_remembered() {
    let place = Place::new("turns");
    let store = place.store();
    run(async {
        let begun = say(&store, key("s", "1.1.1.1"), "cut").await;
        store.finish_detached(begun.turn, "half".into(), Outcome::Incomplete);
        turn(&store, key("s", "1.1.1.1"), "whole").await;
        assert_eq!(say(&store, key("s", "1.1.1.1"), "next").await.turns.len(), 1);
        assert_eq!(store.mode(key("s", "1.1.1.1")).await, Ok(Mode::Relevant));
        store.set_mode(key("s", "1.1.1.1"), Mode::Fresh).await.unwrap();
        assert_eq!(store.mode(key("s", "1.1.1.1")).await, Ok(Mode::Fresh));
        assert_eq!(store.mode(key("s", "9.9.9.9")).await, Ok(Mode::Relevant));
        assert_eq!(say(&store, key("s", "1.1.1.1"), "x").await.mode, Mode::Fresh);
    });
    store.close();
}

#[test]
fn a_history_is_the_newest_hundred_turns_oldest_first() {
    let place = Place::new("many");
    let store = place.store();
    run(async {
        for number in 0..105 {
            turn(&store, key("s", "1.1.1.1"), &number.to_string()).await;
        }
        let turns = say(&store, key("s", "1.1.1.1"), "last").await.turns;
        assert_eq!((turns.len(), turns[0].user.as_str(), turns[99].user.as_str()), (100, "5", "104"));
    });
    store.close();
}

#[test]
fn several_workers_write_at_once_and_nothing_is_lost() {
    let place = Place::new("writers");
    migrate(&place.plan()).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let plan = place.plan();
            scope.spawn(move || {
                let store = Store::open(&plan).unwrap();
                run(async {
                    for number in 0..50 {
                        turn(&store, key(&format!("w{worker}"), "1.1.1.1"), &number.to_string()).await;
                    }
                });
                store.close();
            });
        }
    });
    let connection = Connection::open(place.plan().path).unwrap();
    let count: i64 =
        connection.query_row("SELECT count(*) FROM turns WHERE state = 'complete'", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 200);
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn a_locked_database_is_an_error_in_time_and_reading_goes_on() {
    let place = Place::new("locked");
    let store = place.store();
    let locker = Connection::open(place.plan().path).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    run(async {
        let began = std::time::Instant::now();
        let refused = store.begin(key("s", "1.1.1.1"), "x".into(), "u".into(), None).await;
        assert_eq!(refused.err(), Some(StoreError::Busy));
        assert!(began.elapsed() <= CALL_LIMIT + Duration::from_millis(500));
        assert_eq!(store.mode(key("s", "1.1.1.1")).await, Ok(Mode::Relevant));
        locker.execute_batch("ROLLBACK").unwrap();
        assert!(store.begin(key("s", "1.1.1.1"), "x".into(), "u".into(), None).await.is_ok());
    });
    store.close();
}

#[test]
fn waiting_calls_share_a_commit() {
    let place = Place::new("group");
    let store = place.store();
    let changes = || -> i64 {
        let connection = Connection::open(place.plan().path).unwrap();
        connection.query_row("SELECT count(*) FROM turns", [], |row| row.get(0)).unwrap()
    };
    let locker = Connection::open(place.plan().path).unwrap();
    locker.execute_batch("BEGIN IMMEDIATE").unwrap();
    run(async {
        let calls: Vec<_> = (0..50)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move {
                    store.begin(key(&number.to_string(), "1.1.1.1"), "x".into(), "u".into(), None).await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        locker.execute_batch("ROLLBACK").unwrap();
        for call in calls {
            assert!(call.await.unwrap().is_ok());
        }
    });
    assert_eq!(changes(), 50);
    store.close();
}

#[test]
fn a_failing_call_leaves_its_neighbours_alone() {
    let place = Place::new("alone");
    let store = place.store();
    run(async {
        let bad = store.writer.call(|connection| {
            connection.execute(schema::BEGIN_TURN, params![999_999, 0, "orphan"])?;
            Err::<(), _>(StoreError::Failed("on purpose".into()))
        });
        let good = say(&store, key("s", "1.1.1.1"), "x");
        let (bad, good) = tokio::join!(bad, good);
        assert!(bad.is_err());
        assert_eq!(good.session_id, "s");
    });
    store.close();
}

#[test]
fn files_are_closed_to_others_and_a_garbled_one_is_named() {
    let place = Place::new("files");
    let store = place.store();
    run(async { turn(&store, key("s", "1.1.1.1"), "x").await });
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let path = place.plan().path;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
    store.close();
    let garbled = Plan { path: place.0.join("garbled.db"), ..place.plan() };
    std::fs::write(&garbled.path, "this is no database, but long enough to be looked at as one").unwrap();
    assert!(matches!(migrate(&garbled), Err(StoreError::Corrupt(_))));
    let link = Plan { path: place.0.join("link.db"), ..place.plan() };
    std::os::unix::fs::symlink(&path, &link.path).unwrap();
    assert!(migrate(&link).unwrap_err().to_string().contains("symbolic link"));
}

#[test]
fn a_newer_schema_is_refused_and_an_old_one_is_kept() {
    let place = Place::new("version");
    let version = migrate(&place.plan()).unwrap();
    assert_eq!(migrate(&place.plan()), Ok(version));
    Connection::open(place.plan().path).unwrap().pragma_update(None, "user_version", version + 1).unwrap();
    assert!(migrate(&place.plan()).unwrap_err().to_string().contains("newer program"));
}

#[test]
fn idle_sessions_are_purged_with_their_turns() {
    let place = Place::new("purge");
    let store = place.store();
    run(async {
        turn(&store, key("old", "1.1.1.1"), "x").await;
        turn(&store, key("new", "1.1.1.1"), "x").await;
        let connection = Connection::open(place.plan().path).unwrap();
        connection.execute("UPDATE sessions SET active_ms = 1 WHERE name = 'old'", []).unwrap();
        assert_eq!(store.purge().await, Ok(1));
        let left: i64 = connection.query_row("SELECT count(*) FROM turns", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 1);
    });
    store.close();
}
