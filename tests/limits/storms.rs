//! Everybody at once: exactly as many are admitted as the tightest limit allows, whatever else goes on.

use super::{ask, count, long, storm, unit};
use crate::support::{Redis, Server, Upstream, Way, post, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Quotas of everybody, and of the chat; in each pair another limit is the tightest.
const TIGHTEST: [(&str, &str); 4] = [
    ("10/minute;500/hour;600/day", "500/minute"),
    ("500/minute;10/hour;600/day", "500/minute"),
    ("500/minute;500/hour;10/day", "500/minute"),
    ("500/minute;500/hour;600/day", "10/minute"),
];

/// A chat by a client behind the proxy that the test is.
fn chat(client: &str) -> String {
    let body = r#"{"message":"x","context_mode":"fresh"}"#;
    post("/api/chat", body).replacen("Host: t", &format!("Host: t\r\nX-Forwarded-For: {client}"), 1)
}

#[test]
fn four_hundred_at_once_are_exactly_ten_whichever_limit_is_the_tightest() {
    let upstream = Upstream::start(Way::Instant);
    for (default, chats) in TIGHTEST {
        let limits = [("RATE_LIMIT_DEFAULT", default), ("RATE_LIMIT_CHAT", chats)];
        let server = Server::start_with(&[&limits[..], &[("CHAT_UPSTREAM", &upstream.url)]].concat(), &[]);
        for run in 0..if long() { 20 } else { 3 } {
            let statuses = storm(&[&server.address], 400, &chat(&format!("198.51.100.{run}")));
            assert_eq!((count(&statuses, 200), count(&statuses, 429)), (10, 390), "{default}, {chats}, run {run}");
        }
    }
}

#[test]
fn three_masters_on_one_redis_admit_exactly_ten() {
    let redis = Redis::start();
    let url = redis.url();
    for (config, (default, _)) in TIGHTEST[..3].iter().enumerate() {
        let limits = [("RATE_LIMIT_DEFAULT", *default), ("REDIS_URL", &url), ("WEB_CONCURRENCY", "2")];
        let servers: Vec<Server> = (0..3).map(|_| connected(&limits, &[&redis])).collect();
        let all: Vec<&Server> = servers.iter().collect();
        let addresses: Vec<&str> = servers.iter().map(|server| server.address.as_str()).collect();
        let (wanted, mut clean) = (if long() { 20 } else { 3 }, 0);
        for run in 0..10 * wanted {
            let (before, client) = (stood_by(&all), format!("198.51.{config}.{run}"));
            let statuses = storm(&addresses, 400, &unit(&client));
            // A machine so busy that Redis's answer takes more than its 50 ms decides alone: that is another test.
            if stood_by(&all) == before {
                let told = (count(&statuses, 404), count(&statuses, 429));
                assert_eq!(told, (10, 390), "{default}, run {run}");
                clean += 1;
            }
            if clean == wanted {
                break;
            }
        }
        assert!(clean > 0, "Redis was never reached in time");
    }
}

/// Decisions without Redis.
pub fn stood_by(servers: &[&Server]) -> u64 {
    servers.iter().map(|server| server.status()["limits"]["standby"].as_u64().unwrap()).sum()
}

/// What `test` found when Redis decided all of it. A machine so busy that Redis's answer takes more than its 50 ms decides
/// alone, as it should: then the test is made again. It is told which time it is, for it needs new clients then.
pub fn led<T>(servers: &[&Server], mut test: impl FnMut(usize) -> T) -> T {
    for time in 0..50 {
        let before = stood_by(servers);
        let found = test(time);
        if stood_by(servers) == before {
            return found;
        }
        until("calls to come through", || {
            servers.iter().all(|server| server.status()["limits"]["redis_failing"] == false)
        });
    }
    panic!("Redis was never reached in time");
}

/// A server all of whose threads have their connection to Redis: each has read the seed, which one of `nodes` has.
pub fn connected(variables: &[(&str, &str)], nodes: &[&Redis]) -> Server {
    let read = || nodes.iter().map(|node| node.calls("get")).sum::<usize>();
    let before = read();
    let server = Server::start_with(variables, &[]);
    let lanes = server.children("worker").len() * 2;
    until("the connections to Redis", || read() >= before + lanes);
    until("the last of them", || super::standing(&server, "192.0.2.255")["store"] == "redis");
    server
}

#[test]
fn workers_that_are_killed_take_at_most_a_unit_each_along() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "40/hour")], &[]);
    let mut state = 0x9e37_79b9_u32;
    for run in 0..if long() { 40 } else { 8 } {
        let client = format!("198.51.100.{run}");
        let address = server.address.clone();
        let (mut kills, request) = (0, unit(&client));
        let statuses = std::thread::scope(|scope| {
            let storming = scope.spawn(|| storm(&[&address], 120, &request));
            while !storming.is_finished() && kills < 3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let workers = server.children("worker");
                let victim = workers.get(state as usize % workers.len().max(1));
                if victim.is_some_and(|pid| kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok()) {
                    kills += 1;
                    server.expect("worker ready");
                }
            }
            storming.join().unwrap()
        });
        let mut admitted = count(&statuses, 404);
        let lost = count(&statuses, 0);
        while ask(&server, &client).status == 404 {
            admitted += 1;
            assert!(admitted <= 40, "over-admitted in run {run}");
        }
        // Requests that died with their worker may have been counted before.
        assert!(admitted + lost + kills >= 40, "{admitted} admitted, {lost} lost, {kills} kills");
    }
}

#[test]
fn a_reload_and_an_upgrade_under_a_storm_admit_nobody_twice() {
    let server = Server::start_with(&[("RATE_LIMIT_DEFAULT", "10/minute;500/hour")], &[]);
    for (run, order) in [["reload"], ["upgrade"], ["reload"]].iter().enumerate() {
        let client = format!("198.51.100.{run}");
        let mut ordered = server.begin(order);
        let mut statuses = Vec::new();
        while ordered.try_wait().unwrap().is_none() || statuses.len() < 100 {
            statuses.extend(storm(&[&server.address], 50, &unit(&client)));
        }
        assert_eq!((count(&statuses, 404), count(&statuses, 0)), (10, 0), "{order:?} of {}", statuses.len());
    }
}
