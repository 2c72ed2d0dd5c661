//! The session store itself, the same for SQLite and for a real PostgreSQL.

use crate::support::Postgres;
use chatcorn::chat::session::{Mode, Principal, SessionKey, SessionRef};
use chatcorn::chat::store::{Begun, Outcome, Place, Plan, Store, StoreError, StoredTurn, admin::Admin, migrate};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static PLACES: AtomicU32 = AtomicU32::new(0);

/// One of the two.
struct Stand {
    plan: Plan,
    postgres: Option<Postgres>,
    home: PathBuf,
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

impl Stand {
    fn open(&self) -> Store {
        migrate(&self.plan).unwrap();
        Store::open(&self.plan).unwrap()
    }

    fn sql(&self, sqlite: &str, postgres: &str) {
        match (&self.plan.place, &self.postgres) {
            (_, Some(server)) => drop(server.sql(postgres)),
            (Place::File(path), None) => rusqlite::Connection::open(path).unwrap().execute_batch(sqlite).unwrap(),
            (Place::Server(_), None) => unreachable!(),
        }
    }
}

fn stand(place: Place, postgres: Option<Postgres>) -> Stand {
    let number = PLACES.fetch_add(1, Ordering::Relaxed);
    let home = std::env::temp_dir().join(format!("chatcorn-stand-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&home).unwrap();
    let place = match place {
        Place::File(path) => Place::File(home.join(path)),
        place => place,
    };
    Stand { plan: Plan { place, ttl: Duration::from_secs(60) }, postgres, home }
}

/// Runs a test on both, or on SQLite alone where there is no PostgreSQL.
fn both(test: impl Fn(&Stand)) {
    test(&stand(Place::File("c.db".into()), None));
    if let Some(server) = Postgres::start(&[]) {
        let target = server.url().parse().unwrap();
        test(&stand(Place::Server(Box::new(target)), Some(server)));
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
    both(|stand| {
        let store = stand.open();
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
    });
}

#[test]
fn only_whole_turns_are_context_and_the_mode_is_remembered() {
    both(|stand| {
        let store = stand.open();
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
            store.set_mode(key("new", "1.1.1.1"), Mode::Fresh).await.unwrap();
            assert_eq!(store.mode(key("new", "1.1.1.1")).await, Ok(Mode::Fresh));
            let changed = store.begin(key("s", "1.1.1.1"), "y".into(), "u".into(), Some(Mode::Relevant)).await;
            assert_eq!(changed.unwrap().mode, Mode::Relevant);
        });
        store.close();
    });
}

#[test]
fn a_history_is_the_newest_hundred_turns_oldest_first_and_bounded_in_bytes() {
    both(|stand| {
        let store = stand.open();
        run(async {
            for number in 0..105 {
                turn(&store, key("s", "1.1.1.1"), &number.to_string()).await;
            }
            let turns = say(&store, key("s", "1.1.1.1"), "last").await.turns;
            assert_eq!((turns.len(), turns[0].user.as_str(), turns[99].user.as_str()), (100, "5", "104"));
            let long = "\u{1f984}".repeat(40_000);
            for _ in 0..5 {
                turn(&store, key("long", "1.1.1.1"), &long).await;
            }
            assert_eq!(say(&store, key("long", "1.1.1.1"), "last").await.turns.len(), 1, "320 KiB each");
        });
        store.close();
    });
}

#[test]
fn any_text_is_kept() {
    both(|stand| {
        let store = stand.open();
        run(async {
            turn(&store, key("s", "1.1.1.1"), "é \u{1f984} '\"\\ %s \u{1} \u{feff}").await;
            let turns = say(&store, key("s", "1.1.1.1"), "nul \0 here").await.turns;
            assert_eq!(turns[0].user, "é \u{1f984} '\"\\ %s \u{1} \u{feff}");
        });
        store.close();
    });
}

#[test]
fn several_workers_write_at_once_and_each_session_keeps_its_order() {
    both(|stand| {
        migrate(&stand.plan).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let plan = stand.plan.clone();
                scope.spawn(move || {
                    let store = Store::open(&plan).unwrap();
                    run(async {
                        for number in 0..25 {
                            turn(&store, key(&format!("w{worker}"), "1.1.1.1"), &number.to_string()).await;
                            turn(&store, key("all", "1.1.1.1"), &format!("{worker} {number}")).await;
                        }
                    });
                    store.close();
                });
            }
        });
        let admin = Admin::open(&stand.plan).unwrap();
        let sessions = admin.list(10).unwrap();
        assert_eq!((sessions.len(), sessions.iter().map(|session| session.turn_count).sum::<i64>()), (5, 200));
        let shared = sessions.iter().find(|session| session.name == "all").unwrap();
        let turns = admin.turns(shared.number).unwrap();
        for worker in 0..4 {
            let own = turns.iter().filter_map(|turn| turn.user.strip_prefix(&format!("{worker} ")));
            assert!(own.eq((0..25).map(|number| number.to_string())), "a worker's turns are in its order");
        }
        assert!(turns.iter().all(|turn| turn.state == "complete"));
        if let Place::File(path) = &stand.plan.place {
            let database = rusqlite::Connection::open(path).unwrap();
            let whole: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(whole, "ok");
        }
    });
}

#[test]
fn a_session_that_two_begin_at_once_is_one() {
    both(|stand| {
        let (one, other) = (stand.open(), stand.open());
        run(async {
            for number in 0..20 {
                let name = number.to_string();
                let (left, right) =
                    tokio::join!(say(&one, key(&name, "1.1.1.1"), "l"), say(&other, key(&name, "1.1.1.1"), "r"));
                assert_ne!(left.turn, right.turn);
            }
        });
        assert_eq!(Admin::open(&stand.plan).unwrap().list(100).unwrap().len(), 20);
        one.close();
        other.close();
    });
}

#[test]
fn a_turn_whose_session_was_deleted_is_not_acknowledged() {
    both(|stand| {
        let store = stand.open();
        run(async {
            let begun = say(&store, key("s", "1.1.1.1"), "x").await;
            let admin = std::thread::scope(|scope| {
                let deleting = scope.spawn(|| {
                    let admin = Admin::open(&stand.plan).unwrap();
                    admin.delete(admin.list(1).unwrap()[0].number).unwrap();
                    admin.list(1).unwrap().len()
                });
                deleting.join().unwrap()
            });
            assert_eq!(admin, 0);
            let other = say(&store, key("other", "2.2.2.2"), "somebody else's").await;
            let late = store.finish(begun.turn, "late".into(), Outcome::Complete).await;
            assert_eq!(late, Err(StoreError::Gone));
            store.finish(other.turn, "mine".into(), Outcome::Complete).await.unwrap();
            assert_eq!(say(&store, key("other", "2.2.2.2"), "y").await.turns[0].assistant, "mine");
        });
        store.close();
    });
}

#[test]
fn idle_sessions_are_purged_with_their_turns() {
    both(|stand| {
        let store = stand.open();
        run(async {
            turn(&store, key("old", "1.1.1.1"), "x").await;
            turn(&store, key("new", "1.1.1.1"), "x").await;
            stand.sql(
                "UPDATE sessions SET active_ms = 1 WHERE name = 'old'",
                "UPDATE chatcorn.sessions SET active_ms = 1 WHERE name = 'old'",
            );
            assert_eq!(store.purge().await, Ok(1));
        });
        let left = Admin::open(&stand.plan).unwrap().list(10).unwrap();
        assert_eq!((left.len(), left[0].name.as_str(), left[0].turn_count), (1, "new", 1));
        store.close();
    });
}

#[test]
fn a_schema_is_made_once_and_a_newer_one_is_refused() {
    both(|stand| {
        let versions: Vec<i64> = std::thread::scope(|scope| {
            let masters: Vec<_> = (0..4).map(|_| scope.spawn(|| migrate(&stand.plan).unwrap())).collect();
            masters.into_iter().map(|master| master.join().unwrap()).collect()
        });
        let newer = versions[0] + 1;
        assert!(versions.iter().all(|version| *version == versions[0]));
        stand.sql(&format!("PRAGMA user_version = {newer}"), &format!("UPDATE chatcorn.version SET version = {newer}"));
        assert!(migrate(&stand.plan).unwrap_err().to_string().contains("newer program"));
    });
}

#[test]
fn what_waits_when_a_store_is_closed_is_done() {
    both(|stand| {
        let store = stand.open();
        run(async {
            let begun = say(&store, key("s", "1.1.1.1"), "x").await;
            store.finish_detached(begun.turn, "kept".into(), Outcome::Incomplete);
        });
        store.close();
        let admin = Admin::open(&stand.plan).unwrap();
        let session = admin.list(1).unwrap()[0].number;
        assert_eq!(admin.turns(session).unwrap()[0].assistant, "kept");
        assert!(run(store.health()).is_err());
    });
}
