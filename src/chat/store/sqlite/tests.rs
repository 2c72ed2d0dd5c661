//! What is SQLite's own: its lock, its commits, its files. What every store does is in `tests/store.rs`.

use super::*;
use crate::chat::session::{Principal, SessionKey, SessionRef};
use crate::chat::store::{CALL_LIMIT, Place as Where, Plan, Store, migrate};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("chatcorn-store-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Place(path)
    }

    fn plan(&self) -> Plan {
        Plan { place: Where::File(self.path()), ttl: Duration::from_secs(60) }
    }

    fn path(&self) -> PathBuf {
        self.0.join("data").join("c.db")
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

async fn say(store: &Store, key: SessionKey, text: &str) -> Begun {
    store.begin(key, text.into(), "anonymous".into(), None).await.unwrap()
}

async fn turn(store: &Store, key: SessionKey, text: &str) -> Begun {
    let begun = say(store, key, text).await;
    store.finish(begun.turn, format!("re {text}"), Outcome::Complete).await.unwrap();
    begun
}

#[test]
fn a_locked_database_is_an_error_in_time_and_reading_goes_on() {
    let place = Place::new("locked");
    let store = place.store();
    let locker = Connection::open(place.path()).unwrap();
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
        let connection = Connection::open(place.path()).unwrap();
        connection.query_row("SELECT count(*) FROM turns", [], |row| row.get(0)).unwrap()
    };
    let locker = Connection::open(place.path()).unwrap();
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
        let Store::Sqlite(sqlite) = &store else { panic!("a file is SQLite") };
        let bad = sqlite.writer.call(|connection| {
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
    let path = place.path();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
    store.close();
    let garbled = place.0.join("garbled.db");
    std::fs::write(&garbled, "this is no database, but long enough to be looked at as one").unwrap();
    assert!(matches!(schema::migrate(&garbled), Err(StoreError::Corrupt(_))));
    let link = place.0.join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(schema::migrate(&link).unwrap_err().to_string().contains("symbolic link"));
}
