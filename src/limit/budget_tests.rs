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

#[tokio::test]
async fn tokens_reserved_while_redis_is_away_are_owed_to_it() {
    let mut server = Server::start();
    let plan = budgeted(plan(&server, "900/minute"), "1000 per day");
    let (limiter, shared) = machine(&plan).await;
    let client = someone(&limiter, 1);
    limiter.reserve(&client, 300).await.1.unwrap().settle(300);
    server.kill();
    until("open", || {
        let limiter = limiter.clone();
        tokio::spawn(async move {
            let client = someone(&limiter, 2);
            limiter.check(&client, Endpoint::Api).await
        });
        shared.breaker().is_open()
    })
    .await;
    limiter.reserve(&client, 600).await.1.unwrap().settle(600);
    assert_eq!(limiter.reserve(&client, 101).await.0.outcome, Outcome::Refused);
    server.restart();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    assert_eq!(limiter.reserve(&client, 101).await.0.outcome, Outcome::Refused, "an empty Redis is told of all 900");
    assert!(limiter.reserve(&client, 100).await.0.admitted());
}

#[test]
fn a_prompt_is_guessed_by_its_bytes() {
    assert_eq!((budget::guess(0), budget::guess(5), budget::guess(usize::MAX)), (0, 2, u32::MAX));
}
