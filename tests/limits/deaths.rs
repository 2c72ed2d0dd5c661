//! Redis fails in every way that it has: nobody is answered a 500, nobody goes uncounted, nobody waits.

use super::storms::{connected, led};
use super::{ask, count, standing, storm, unit, used};
use crate::support::{Between, Connection, Manner, Redis, Server, until};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// What a request waits while Redis fails: most of them nothing, a few the 50 ms that its answer may take, none for
/// ever on the busiest machine.
const WAIT_USUAL: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// It must be back within a second; a busy machine needs more tries to be answered in time.
const BACK_MAX: Duration = Duration::from_secs(5);
const CLIENT: &str = "198.51.100.7";

/// A Redis, what stands before it, and what happens to it.
struct Place {
    redis: Redis,
    between: Between,
}

type Step = fn(&mut Place);

fn asks(place: &Place, words: &[&str]) {
    place.redis.ask(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

fn never_ending(place: &mut Place) {
    let (url, _) = (place.redis.url(), ());
    std::thread::spawn(move || {
        let mut wire = redis::Client::open(url).unwrap().get_connection().unwrap();
        let _ = redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut wire);
    });
    until("it is busy", || place.redis.ask(&["PING"]).is_err());
}

/// The name, how it begins, how it ends.
const FAULTS: [(&str, Step, Step); 11] = [
    ("killed, empty again", |at| at.redis.kill(), |at| at.redis.restart()),
    ("stopped", |at| at.redis.signal(Signal::SIGSTOP), |at| at.redis.signal(Signal::SIGCONT)),
    ("black hole", |at| at.between.set(Manner::Swallows), |at| at.between.set(Manner::Pass)),
    ("READONLY", |at| asks(at, &["REPLICAOF", "127.0.0.1", "1"]), |at| asks(at, &["REPLICAOF", "NO", "ONE"])),
    ("OOM", |at| asks(at, &["CONFIG", "SET", "maxmemory", "1"]), |at| asks(at, &["CONFIG", "SET", "maxmemory", "0"])),
    (
        "MASTERDOWN",
        |at| {
            asks(at, &["CONFIG", "SET", "replica-serve-stale-data", "no"]);
            asks(at, &["REPLICAOF", "127.0.0.1", "1"]);
        },
        |at| asks(at, &["REPLICAOF", "NO", "ONE"]),
    ),
    ("BUSY", never_ending, |at| asks(at, &["SCRIPT", "KILL"])),
    (
        "NOAUTH",
        |at| {
            asks(at, &["CONFIG", "SET", "requirepass", "x"]);
            // Connections that stand are not asked again.
            let _ = at.redis.ask_as("x", &["CLIENT", "KILL", "TYPE", "normal"]);
        },
        |at| _ = at.redis.ask_as("x", &["CONFIG", "SET", "requirepass", ""]).unwrap(),
    ),
    (
        "LOADING",
        |at| at.between.set(Manner::Says("LOADING Redis is loading the dataset in memory")),
        |at| at.between.set(Manner::Pass),
    ),
    (
        "MISCONF",
        |at| at.between.set(Manner::Says("MISCONF Redis is configured to save RDB snapshots")),
        |at| at.between.set(Manner::Pass),
    ),
    ("NOSCRIPT", |at| asks(at, &["SCRIPT", "FLUSH"]), |_| {}),
];

#[test]
fn redis_that_fails_in_any_way_costs_no_request_and_no_count() {
    // Side by side, in three rows, so that the waits overlap.
    std::thread::scope(|scope| {
        for row in FAULTS.chunks(4) {
            scope.spawn(move || row.iter().for_each(|(name, breaks, mends)| fails(name, *breaks, *mends)));
        }
    });
}

fn fails(name: &str, breaks: Step, mends: Step) {
    let redis = Redis::start();
    let mut place = Place { between: Between::start(&redis), redis };
    let limits = [("REDIS_URL", place.between.url.as_str()), ("RATE_LIMIT_DEFAULT", "50000/hour;60000/day")];
    let server = connected(&[&limits[..], &[("WEB_CONCURRENCY", "2")]].concat(), &[&place.redis]);
    let mut admitted = units(&server, 20).0;
    assert_eq!(admitted, 20, "{name}");

    breaks(&mut place);
    let (while_failing, waits) = units(&server, 40);
    assert!(usual(&waits) < WAIT_USUAL && waits[39] < WAIT_MAX, "{name}: {waits:?}");
    admitted += while_failing;
    if name != "NOSCRIPT" {
        until("the breaker", || server.status()["limits"]["redis_failing"] == true);
        let (open, waits) = units(&server, 40);
        assert!(usual(&waits) < WAIT_USUAL, "{name}: {waits:?} with the breaker open");
        admitted += open;
    }
    mends(&mut place);
    let mended = Instant::now();
    until("Redis decides again", || standing(&server, CLIENT)["store"] == "redis");
    assert!(mended.elapsed() < BACK_MAX, "{name}: back after {:?}", mended.elapsed());

    // What was admitted meanwhile rides on the client's next calls.
    let failed = || server.status()["limits"]["redis_failures"].as_u64().unwrap();
    let before = failed();
    let mut told = 0;
    until("Redis to know of all", || {
        admitted += units(&server, 4).0;
        told = used(&standing(&server, CLIENT), "hour");
        told >= admitted
    });
    assert!(mended.elapsed() < 2 * BACK_MAX, "{name}: all counted after {:?}", mended.elapsed());
    // A call that failed may have counted there as well as here, and what rode on it, too: on a machine so busy that some
    // came too late even now, only the client is the loser.
    assert!(told >= admitted, "{name}: {told} counted, {admitted} admitted");
    assert!(
        told <= admitted + before || failed() > before,
        "{name}: {told} counted, {admitted} admitted, {before} failed"
    );
}

/// Sends so many on four kept connections; how many were admitted, and how long each took, the shortest first.
fn units(server: &Server, requests: usize) -> (u64, Vec<Duration>) {
    let mut connections: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    let mut waits = Vec::new();
    for number in 0..requests {
        let began = Instant::now();
        let connection = &mut connections[number % 4];
        connection.send(unit(CLIENT)).unwrap();
        let answer = connection.answer().unwrap();
        waits.push(began.elapsed());
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    waits.sort();
    (requests as u64, waits)
}

/// The median.
fn usual(waits: &[Duration]) -> Duration {
    waits[waits.len() / 2]
}

#[test]
fn a_client_that_was_refused_stays_refused_while_redis_is_gone_and_when_it_is_back_empty() {
    let mut redis = Redis::start();
    let server = connected(&[("REDIS_URL", &redis.url()), ("RATE_LIMIT_DEFAULT", "10/hour")], &[&redis]);
    let client = led(&[&server], |time| {
        let client = format!("198.51.{time}.7");
        let six: Vec<u16> = (0..6).map(|_| ask(&server, &client).status).collect();
        assert_eq!(count(&six, 404), 6);
        client
    });
    redis.kill();
    let storming = storm(&[&server.address], 100, &unit(&client));
    assert_eq!((count(&storming, 404), count(&storming, 429)), (4, 96), "no more than were left");
    redis.restart();
    until("Redis decides again", || standing(&server, "192.0.2.1")["store"] == "redis");
    let storming = storm(&[&server.address], 100, &unit(&client));
    assert_eq!(count(&storming, 429), 100, "an empty new Redis is told what is known");
}

#[test]
fn a_server_that_starts_without_redis_serves_warns_and_counts() {
    let mut redis = Redis::start();
    let url = redis.url();
    redis.kill();
    let server = Server::start_with(&[("REDIS_URL", &url), ("RATE_LIMIT_DEFAULT", "5/hour")], &[]);
    until("the warning", || server.text().contains("rate_limit_store_lost"));
    let told: Vec<u16> = (0..4).map(|_| ask(&server, CLIENT).status).collect();
    assert_eq!(told, [404; 4]);
    redis.restart();
    until("the word that it is back", || server.text().contains("rate_limit_store_back"));
    until("Redis decides again", || standing(&server, "192.0.2.1")["store"] == "redis");
    let told: Vec<u16> = (0..3).map(|_| ask(&server, CLIENT).status).collect();
    assert_eq!(told, [404, 429, 429]);
}
