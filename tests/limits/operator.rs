//! An operator looks at a client's limits, and lets it begin anew.

use super::storms::{connected, led};
use super::{ask, standing, used};
use crate::support::{Redis, Server, pass, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

#[test]
fn a_client_is_shown_and_reset_in_memory() {
    let server = Server::start_with(&[], &[]);
    for _ in 0..11 {
        ask(&server, "2001:db8::7");
    }
    let shown = standing(&server, "2001:db8:0:0:1::9");
    assert_eq!((used(&shown, "minute"), used(&shown, "day")), (10, 10), "the same /64");
    assert_eq!((used(&shown, "chat-minute"), shown["store"].as_str()), (0, Some("memory")));
    let table = server.order(&["limits", "show", "2001:db8::7"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("counted in memory") && table.contains("initialize-minute"), "{table}");
    let reset = server.order(&["limits", "reset", "2001:db8::7", "--json"]);
    assert!(
        reset.status.success() && String::from_utf8_lossy(&reset.stdout).contains(r#""memory": true"#),
        "{reset:?}"
    );
    server.expect_that("the security event", |event| event.to_string().contains("rate_limit_reset"));
    assert_eq!(ask(&server, "2001:db8::7").status, 404);
    assert_eq!(used(&standing(&server, "2001:db8::7"), "day"), 1);
}

#[test]
fn an_operators_reset_is_logged_with_the_client_as_the_log_names_clients() {
    let server = Server::start_with(&[("LOG_CLIENT", "hashed")], &[]);
    assert!(server.order(&["limits", "reset", "198.51.100.77"]).status.success());
    let event = server.expect_that("the security event", |event| event["event"] == "rate_limit_reset");
    assert!(event["client"].as_str().unwrap().starts_with("h:"), "{event}");
    assert!(!server.text().contains("198.51.100.77"), "{}", server.text());
}

#[test]
fn who_is_nobody_is_refused_and_so_is_a_server_without_limits() {
    let server = Server::start_with(&[], &[]);
    for (client, word) in [("1.2.3", "neither an address"), ("0123456789ab", "no key")] {
        let refused = server.order(&["limits", "show", client]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(word), "{refused:?}");
    }
    let off = Server::start(&[]);
    let refused = off.order(&["limits", "show", "127.0.0.1"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("rate limiting is off"), "{refused:?}");
}

#[test]
fn a_reset_reaches_redis_and_the_other_machine_within_seconds() {
    let redis = Redis::start();
    let limits = [("REDIS_URL", redis.url()), ("RATE_LIMIT_DEFAULT", "3/day".to_owned())];
    let limits = limits.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (one, other) = (connected(&limits, &[&redis]), connected(&limits, &[&redis]));
    let (told, known, again, used) = led(&[&one, &other], |time| {
        let client = &format!("198.51.100.{time}");
        (0..4).for_each(|_| _ = ask(&one, client));
        let told = (ask(&one, client).status, ask(&other, client).status);
        let known = used(&standing(&other, client), "day");
        // Windows that begin within two seconds are taken for one.
        pass(Duration::from_millis(2_100));
        let reset = one.order(&["limits", "reset", client]);
        assert!(reset.status.success(), "{reset:?}");
        let again = ask(&one, client).status;
        // The other one remembers its refusal, and asks again every five seconds.
        until("the other machine to hear of it", || ask(&other, client).status == 404);
        (told, known, again, used(&standing(&one, client), "day"))
    });
    assert_eq!((told, known), ((429, 429), 3));
    assert_eq!((again, used), (404, 2), "at once where it was done");
}

#[test]
fn a_reset_that_does_not_reach_redis_says_so() {
    let mut redis = Redis::start();
    let server = connected(&[("REDIS_URL", &redis.url())], &[&redis]);
    (0..3).for_each(|_| _ = ask(&server, "198.51.100.9"));
    redis.kill();
    until("the breaker", || standing(&server, "198.51.100.9")["store"] == "memory, in place of Redis");
    let reset = server.order(&["limits", "reset", "198.51.100.9"]);
    assert_eq!(reset.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&reset.stderr).contains("Redis could not be reached"), "{reset:?}");
}

#[test]
fn the_master_answers_when_every_worker_is_stopped() {
    let server = Server::start_with(&[], &[]);
    (0..3).for_each(|_| _ = ask(&server, "198.51.100.9"));
    let workers = server.children("worker");
    workers.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap());
    let shown = standing(&server, "198.51.100.9");
    assert_eq!((used(&shown, "minute"), shown["store"].as_str()), (3, Some("memory; no worker answered")));
    assert!(server.order(&["limits", "reset", "198.51.100.9"]).status.success());
    workers.iter().for_each(|pid| kill(Pid::from_raw(*pid), Signal::SIGCONT).unwrap());
    assert_eq!(ask(&server, "198.51.100.9").header("x-ratelimit-remaining"), Some("9"));
}
