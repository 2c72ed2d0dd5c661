//! Budgets of tokens in both stores.

use super::plan::{Endpoint, Plan};
use super::quota;
use super::shared::Shared;
use super::testing::{Server, machine, plan, someone, until};
use super::verdict::Outcome;
use super::{Limiter, budget};
use std::sync::Arc;

fn budgeted(plan: Plan, tokens: &str) -> Plan {
    Plan { tokens: quota::parse_tokens(tokens).unwrap(), ..plan }
}

fn alone(tokens: &str) -> Arc<Limiter> {
    let plan = budgeted(Plan::default(), tokens);
    Arc::new(Limiter::new(&plan, Shared::create(&plan).unwrap()))
}

fn used(limiter: &Limiter) -> u64 {
    let picture = limiter.picture_here(&someone(limiter, 1));
    let limits = picture["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["name"] == "tokens-day").unwrap()["count"].as_u64().unwrap()
}

#[tokio::test]
async fn what_is_reserved_is_settled_and_what_is_dropped_comes_back() {
    let limiter = alone("3000000000 per day");
    let client = someone(&limiter, 1);
    let (_, first) = limiter.reserve(&client, 2_000_000_000).await;
    let (refused, none) = limiter.reserve(&client, 1_000_000_001).await;
    assert!(refused.outcome == Outcome::Refused && none.is_none());
    assert_eq!(refused.violated(), "tokens-day");
    assert!(refused.retry_after_s().unwrap() > 86_000);
    first.unwrap().settle(150);
    assert_eq!(used(&limiter), 150);
    let (_, second) = limiter.reserve(&client, 1_000).await;
    assert_eq!(used(&limiter), 1_150);
    drop(second);
    assert_eq!(used(&limiter), 150);
    let (_, third) = limiter.reserve(&client, 10).await;
    third.unwrap().settle(4_000_000_000);
    assert_eq!(used(&limiter), 4_000_000_150, "what it took is counted, also beyond the budget");
    assert_eq!(limiter.reserve(&client, 1).await.0.outcome, Outcome::Refused);
    // Requests are counted apart.
    assert!(limiter.check(&client, Endpoint::Chat).await.admitted());
}

#[tokio::test]
async fn the_same_in_redis_over_two_machines() {
    let server = Server::start();
    let plan = budgeted(plan(&server, "900/minute"), "1000 per day;900 per minute");
    let machines = [machine(&plan).await.0, machine(&plan).await.0];
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..60 {
        let limiter = machines[number % 2].clone();
        calls.spawn(async move {
            let client = someone(&limiter, 1);
            limiter.reserve(&client, 100).await.1
        });
    }
    let held: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    assert_eq!(held.len(), 9, "900 a minute are nine of 100");
    let picture = machines[0].picture(&someone(&machines[0], 1)).await;
    assert_eq!(picture["store"], "redis");
    let number = held.len() as u64;
    held.into_iter().for_each(|reservation| reservation.settle(30));
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(5));
    for _ in 0..400 {
        turns.tick().await;
        let picture = machines[1].picture(&someone(&machines[1], 1)).await;
        let limits = picture["limits"].as_array().unwrap();
        let counts: Vec<u64> = ["tokens-minute", "tokens-day"]
            .iter()
            .filter_map(|name| limits.iter().find(|limit| limit["name"] == *name)?["count"].as_u64())
            .collect();
        if counts == [30 * number; 2] {
            let client = someone(&machines[1], 1);
            assert_eq!(machines[1].reserve(&client, 631).await.0.outcome, Outcome::Refused);
            assert!(machines[1].reserve(&client, 630).await.0.admitted());
            return;
        }
    }
    panic!("not settled");
}

/// Asks for another client until Redis is known to be away.
async fn until_open(limiter: &Arc<Limiter>, shared: &Shared) {
    until("open", || {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            let client = someone(&limiter, 2);
            limiter.check(&client, Endpoint::Api).await
        });
        shared.breaker().is_open()
    })
    .await;
}

#[tokio::test]
async fn tokens_reserved_while_redis_is_away_are_owed_to_it() {
    let mut server = Server::start();
    let plan = budgeted(plan(&server, "900/minute"), "1000 per day");
    let (limiter, shared) = machine(&plan).await;
    let client = someone(&limiter, 1);
    limiter.reserve(&client, 300).await.1.unwrap().settle(300);
    server.kill();
    until_open(&limiter, &shared).await;
    limiter.reserve(&client, 600).await.1.unwrap().settle(600);
    assert_eq!(limiter.reserve(&client, 101).await.0.outcome, Outcome::Refused);
    server.restart();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    assert_eq!(limiter.reserve(&client, 101).await.0.outcome, Outcome::Refused, "an empty Redis is told of all 900");
    assert!(limiter.reserve(&client, 100).await.0.admitted());
}

/// A machine that joins others finds windows that began before it was switched on.
#[tokio::test]
async fn a_window_older_than_the_machine_is_settled_like_any_other() {
    let server = Server::start();
    let (limiter, _) = machine(&budgeted(plan(&server, "900/minute"), "1000 per 180 days")).await;
    let client = someone(&limiter, 1);
    limiter.reserve(&client, 100).await.1.unwrap().settle(100);
    // The same window, begun 179 days ago.
    let keys = server.ask(&["EVAL", "return redis.call('KEYS','rl:1:*')", "0"]).await.unwrap();
    assert!(keys.contains("rl:1:"), "{keys}");
    let age = "for _,k in ipairs(redis.call('KEYS','rl:1:'..string.rep('?',22))) do
        local i,s,c=struct.unpack('>I4I6I4',redis.call('GET',k))
        redis.call('SET',k,struct.pack('>I4I6I4',i,s-179*86400000,c)) end";
    server.ask(&["EVAL", age, "0"]).await.unwrap();
    limiter.reset_here(&client);
    limiter.reserve(&client, 600).await.1.unwrap().settle(10);
    let mut turns = tokio::time::interval(std::time::Duration::from_millis(5));
    for _ in 0..400 {
        turns.tick().await;
        let count = limiter.picture(&client).await["limits"].as_array().unwrap().last().unwrap()["count"].as_u64();
        if count == Some(110) {
            return;
        }
    }
    panic!("not settled: {}", limiter.picture(&client).await);
}

#[tokio::test]
async fn a_client_that_leaves_while_redis_is_asked_takes_no_tokens_along() {
    let server = Server::start();
    let (limiter, shared) = machine(&budgeted(plan(&server, "900/minute"), "1000 per day")).await;
    let count = |picture: serde_json::Value| picture["limits"].as_array().unwrap().last().unwrap()["count"].as_u64();
    for number in 0..50 {
        let client = someone(&limiter, number);
        let before = (server.calls().await, shared.counts().failures);
        server.signal(nix::sys::signal::Signal::SIGSTOP);
        let asked = tokio::time::timeout(std::time::Duration::from_millis(5), limiter.reserve(&client, 300)).await;
        server.signal(nix::sys::signal::Signal::SIGCONT);
        assert!(asked.is_err());
        let mut turns = tokio::time::interval(std::time::Duration::from_millis(5));
        for _ in 0..100 {
            turns.tick().await;
            // The reservation, and its return.
            if server.calls().await >= before.0 + 2 && count(limiter.picture(&client).await) == Some(0) {
                return;
            }
        }
        // An answer that came later than 50 ms on a busy machine is another matter.
        assert!(shared.counts().failures > before.1, "it stays reserved: {}", limiter.picture(&client).await);
        until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    }
    panic!("Redis was never in time");
}

#[tokio::test]
async fn what_a_call_gives_back_while_redis_is_away_is_not_owed_to_it() {
    let mut server = Server::start();
    let (limiter, shared) = machine(&budgeted(plan(&server, "900/minute"), "1000 per day;1000 per hour")).await;
    let client = someone(&limiter, 1);
    limiter.reserve(&client, 100).await.1.unwrap().settle(100);
    server.kill();
    until_open(&limiter, &shared).await;
    for _ in 0..20 {
        limiter.reserve(&client, 800).await.1.expect("there is room").settle(5);
    }
    server.restart();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    assert!(limiter.reserve(&client, 700).await.0.admitted(), "200 were used");
    let picture = limiter.picture(&client).await;
    let counts = picture["limits"].as_array().unwrap().iter().filter(|limit| limit["window_s"].as_u64() > Some(60));
    assert!(counts.clone().count() == 2 && counts.clone().all(|limit| limit["count"] == 900), "{picture}");
}

#[test]
fn a_prompt_is_guessed_by_its_bytes() {
    assert_eq!((budget::guess(0), budget::guess(5), budget::guess(usize::MAX)), (0, 2, u32::MAX));
}
