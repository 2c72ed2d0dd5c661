//! Budgets of tokens: put aside before a call, settled after it.

use super::storms::{connected, stood_by};
use super::{count, standing, storm, used};
use crate::support::{Redis, Server, Upstream, Way, post, until};

const ASK: &str = r#"{"message":"x","context_mode":"fresh"}"#;
const WIDE: [(&str, &str); 2] = [("RATE_LIMIT_DEFAULT", "900/minute"), ("RATE_LIMIT_CHAT", "900/minute")];

fn start(upstream: &Upstream, more: &[(&str, &str)]) -> Server {
    Server::start_with(&[&WIDE[..], &[("CHAT_UPSTREAM", upstream.url.as_str())], more].concat(), &[])
}

fn spent(server: &Server) -> u64 {
    used(&standing(server, "127.0.0.1"), "tokens-day")
}

#[test]
fn a_call_is_charged_what_it_took_whichever_way_it_came() {
    let upstream = Upstream::start(Way::Instant);
    let server = start(&upstream, &[("RATE_LIMIT_TOKENS", "2000 per day")]);
    let answer = server.connect().post("/api/chat", ASK).unwrap();
    let tokens = answer.json()["performance"]["tokens_used"].as_u64().unwrap();
    assert!(answer.status == 200 && tokens > 0);
    assert!(
        answer
            .headers
            .iter()
            .any(|(name, value)| name == "ratelimit-policy" && value.contains(r#""tokens-day";q=2000"#))
    );
    assert_eq!(spent(&server), tokens, "not the 256 that were put aside");
    let stream = server.connect().post("/api/chat", r#"{"message":"x","context_mode":"fresh","stream":true}"#).unwrap();
    assert!(stream.status == 200 && stream.body.contains("event: done"), "{stream:?}");
    until("the stream's charge", || spent(&server) == 2 * tokens);
    let whole = r#"{"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(server.connect().post("/v1/chat/completions", whole).unwrap().status, 200);
    until("the charge of /v1", || spent(&server) > 2 * tokens && spent(&server) < 2 * tokens + 256);
}

#[test]
fn a_call_that_fails_before_its_first_word_takes_nothing_and_one_that_is_too_large_is_told_so() {
    let upstream = Upstream::start(Way::Fails);
    let server = start(&upstream, &[("RATE_LIMIT_TOKENS", "300 per day")]);
    for _ in 0..4 {
        assert_eq!(server.connect().post("/api/chat", ASK).unwrap().status, 502);
    }
    assert_eq!(spent(&server), 0);
    let large = r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":400}"#;
    let refused = server.connect().post("/v1/chat/completions", large).unwrap();
    assert!(refused.status == 400 && refused.body.contains("the whole budget is 300"), "{refused:?}");
}

#[test]
fn calls_at_once_never_reserve_more_than_the_budget_in_memory_and_in_redis() {
    assert!(led_by(None));
    // Redis whose answer takes more than its 50 ms on a busy machine is stood in for: then it is done again.
    assert!((0..10).any(|_| led_by(Some(&Redis::start()))), "Redis was never reached in time");
}

/// Forty at once; false when Redis did not decide about all of them.
fn led_by(redis: Option<&Redis>) -> bool {
    let upstream = Upstream::start(Way::Held);
    let variables =
        [&WIDE[..], &[("CHAT_UPSTREAM", upstream.url.as_str()), ("RATE_LIMIT_TOKENS", "1000 per day")]].concat();
    let url = redis.map(Redis::url).unwrap_or_default();
    let server = match redis {
        None => Server::start_with(&variables, &[]),
        Some(redis) => connected(&[&variables[..], &[("REDIS_URL", url.as_str())]].concat(), &[redis]),
    };
    let address = server.address.clone();
    let alone = || redis.is_some() && stood_by(&[&server]) > 0;
    let statuses = std::thread::scope(|scope| {
        let storming = scope.spawn(|| storm(&[&address], 40, &post("/api/chat", ASK)));
        // Three of 257 fit; their replies are held until all others were refused.
        let mut called = 0;
        until("three calls", || {
            called += upstream.requests.try_iter().count();
            called >= 3 || alone()
        });
        until("the others' refusal", || server.text().matches(r#""status":429"#).count() >= 37 || alone());
        upstream.release();
        storming.join().unwrap()
    });
    if alone() {
        return false;
    }
    assert_eq!((count(&statuses, 200), count(&statuses, 429)), (3, 37));
    // What was put aside in a Redis that hears of the charge too late stays so.
    let late = || server.status()["limits"]["redis_failures"].as_u64().unwrap() > 0;
    until("the charges", || spent(&server) < 257 || late());
    assert!(server.text().contains("tokens-day"), "the security event names the budget");
    true
}
