//! The limiter against real Redis servers, which each test starts for itself; without `redis-server` they fail.

use super::client::{Identity, Peer};
use super::limiter::{Client, Limiter};
use super::plan::{Endpoint, Fallback, Plan};
use super::quota;
use super::shared::Word;
use super::testing::{Server, admitted, machine, plan, port, someone, unconnected, until};
use super::verdict::{Outcome, Source, Verdict};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// What 50 ms may come to on a busy machine; the crate's own limits are 500 ms and 1 s.
const BUSY_MAX: Duration = Duration::from_millis(400);

#[tokio::test]
async fn three_machines_admit_ten_whichever_limit_is_the_tightest() {
    let server = Server::start();
    let quotas = ["10/minute;500/hour;500/day", "500/minute;10/hour;500/day", "500/minute;500/hour;10/day"];
    for (number, quotas) in quotas.iter().enumerate() {
        let plan = plan(&server, quotas);
        let machines = [machine(&plan).await.0, machine(&plan).await.0, machine(&plan).await.0];
        let stood_by = || machines.iter().map(|limiter| limiter.counts().standby).sum::<u64>();
        let mut led = false;
        // A machine so busy that Redis's answer takes more than its 50 ms decides alone, as it should: then it is made
        // again, with another client.
        for time in 0..50 {
            let (before, spent) = (stood_by(), server.calls().await);
            let verdicts = all_at_once(&machines, 399, (number, time)).await;
            let calls = server.calls().await;
            let client = another(&machines[0], (number, time));
            let refused = admitted(&machines[0], &client, 500).await == 0;
            led = stood_by() == before;
            if led {
                assert_eq!(verdicts.iter().filter(|verdict| verdict.admitted()).count(), 10, "{quotas}");
                assert!(verdicts.iter().all(|verdict| verdict.lines().all(|line| line.count <= 10)));
                assert!(refused && spent < calls);
                assert_eq!(server.calls().await, calls, "a refused client costs Redis nothing");
                break;
            }
            until("led again", || machines.iter().all(|limiter| limiter.is_up() && !limiter.counts().breaker_open))
                .await;
        }
        assert!(led, "Redis was never reached in time");
    }
}

fn another(limiter: &Limiter, (test, time): (usize, u8)) -> Client {
    limiter.client(Identity::Peer(Peer::Address([198, 51, test as u8, time].into())))
}

/// So many requests of one client, each to the next machine.
async fn all_at_once(machines: &[Arc<Limiter>], requests: usize, client: (usize, u8)) -> Vec<Verdict> {
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..requests {
        let limiter = machines[number % machines.len()].clone();
        asked.spawn(async move { limiter.check(&another(&limiter, client), Endpoint::Api).await });
    }
    asked.join_all().await
}

#[tokio::test]
async fn one_call_a_request_and_a_refusal_leaves_no_trace() {
    let server = Server::start();
    let plan = plan(&server, "5/minute;3/hour;9/day");
    let (limiter, _) = machine(&plan).await;
    let client = someone(&limiter, 1);
    let before = server.calls().await;
    for count in 1..=3 {
        let verdict = limiter.check(&client, Endpoint::Api).await;
        assert_eq!((verdict.outcome, verdict.source), (Outcome::Admitted, Source::Redis));
        assert!(verdict.lines().all(|line| line.count == count && line.reset_ms > 0));
    }
    assert_eq!(server.calls().await - before, 3);
    // Another machine does not know yet, and asks.
    let (other, _) = machine(&plan).await;
    let verdict = other.check(&someone(&other, 1), Endpoint::Api).await;
    assert_eq!((verdict.outcome, verdict.source), (Outcome::Refused, Source::Redis));
    assert_eq!(verdict.lines().map(|line| line.count).collect::<Vec<_>>(), [3, 3, 3]);
    assert_eq!(verdict.violated(), "hour");
    assert!(verdict.retry_after_s().unwrap() > 3_590);
}

#[tokio::test]
async fn records_of_endpoints_live_side_by_side_in_one_key() {
    let server = Server::start();
    let plan = Plan {
        chat: quota::parse("2/minute").unwrap(),
        initialize: quota::parse("1/minute").unwrap(),
        ..plan(&server, "9/minute")
    };
    let (limiter, _) = machine(&plan).await;
    let client = someone(&limiter, 1);
    let mut told = Vec::new();
    for endpoint in [
        Endpoint::Chat,
        Endpoint::Initialize,
        Endpoint::Api,
        Endpoint::Chat,
        Endpoint::Chat,
        Endpoint::Initialize,
        Endpoint::Api,
    ] {
        let verdict = limiter.check(&client, endpoint).await;
        told.push((verdict.admitted(), verdict.lines().last().unwrap().count));
    }
    assert_eq!(told, [(true, 1), (true, 2), (true, 3), (true, 4), (false, 4), (false, 4), (true, 5)]);
    let keys = server.ask(&["KEYS", "rl:1:*"]).await.unwrap();
    assert_eq!(
        keys.matches("rl:1:").count() - keys.matches("seed").count() - keys.matches("probe").count(),
        1,
        "{keys}"
    );
}

#[tokio::test]
async fn flushed_scripts_cost_nothing_but_a_trip() {
    let server = Server::start();
    let (limiter, shared) = machine(&plan(&server, "9/minute")).await;
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 2).await, 2);
    server.ask(&["SCRIPT", "FLUSH"]).await.unwrap();
    let verdict = limiter.check(&client, Endpoint::Api).await;
    assert_eq!((verdict.source, verdict.lines().next().unwrap().count), (Source::Redis, 3));
    assert_eq!(shared.word(Word::Failures).load(SeqCst), 0);
}

#[tokio::test]
async fn a_killed_redis_is_stood_in_for_and_gets_its_counts_back_empty_as_it_is() {
    let mut server = Server::start();
    let plan = plan(&server, "10/minute;100/day");
    let (limiter, shared) = machine(&plan).await;
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 6).await, 6);
    server.kill();
    let began = Instant::now();
    let verdict = limiter.check(&client, Endpoint::Api).await;
    assert_eq!((verdict.source, verdict.lines().next().unwrap().count), (Source::Standby, 7));
    assert!(began.elapsed() < BUSY_MAX, "{:?}", began.elapsed());
    until("open", || shared.breaker().is_open()).await;
    let mut shortest = BUSY_MAX;
    for _ in 0..20 {
        let began = Instant::now();
        admitted(&limiter, &someone(&limiter, 3), 1).await;
        shortest = shortest.min(began.elapsed());
    }
    assert!(shortest < Duration::from_millis(1), "{shortest:?}");
    assert_eq!(admitted(&limiter, &client, 1).await, 1);
    server.restart();
    let back = Instant::now();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    let verdict = limiter.check(&client, Endpoint::Api).await;
    let counts: Vec<u32> = verdict.lines().map(|line| line.count).collect();
    assert_eq!((verdict.source, counts), (Source::Redis, vec![9, 9]));
    let (other, _) = machine(&plan).await;
    assert_eq!(admitted(&other, &someone(&other, 1), 5).await, 1);
}

#[tokio::test]
async fn a_stopped_redis_costs_fifty_milliseconds_three_times() {
    let server = Server::start();
    let (limiter, shared) = machine(&plan(&server, "20/minute")).await;
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 2).await, 2);
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    for _ in 0..3 {
        let began = Instant::now();
        assert!(limiter.check(&client, Endpoint::Api).await.admitted());
        assert!(began.elapsed() < BUSY_MAX, "{:?}", began.elapsed());
    }
    assert!(shared.breaker().is_open());
    assert_eq!(admitted(&limiter, &client, 5).await, 5);
    server.signal(nix::sys::signal::Signal::SIGCONT);
    let back = Instant::now();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
    let verdict = limiter.check(&client, Endpoint::Api).await;
    // 2 before, 8 here, 1 now; the three that came too late may have been counted there, too.
    let count = verdict.lines().next().unwrap().count;
    assert!(verdict.source == Source::Redis && (11..=14).contains(&count), "{count}");
}

/// What is late is this machine then, not Redis.
#[tokio::test]
async fn an_answer_that_came_while_the_thread_was_busy_is_taken() {
    let server = Server::start();
    let (limiter, shared) = machine(&plan(&server, "9/minute")).await;
    assert_eq!(admitted(&limiter, &someone(&limiter, 1), 1).await, 1);
    let mut others = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut calls = move || {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut others).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap().to_owned();
        line.split(',').next().unwrap().to_owned()
    };
    for _ in 0..3 {
        let before = calls();
        let asking = tokio::spawn({
            let limiter = limiter.clone();
            async move { limiter.check(&someone(&limiter, 2), Endpoint::Api).await }
        });
        // Until it is sent; then nothing else runs on this thread until the time for its answer is over.
        while calls() == before {
            tokio::task::yield_now().await;
        }
        let busy = Instant::now();
        while busy.elapsed() < Duration::from_millis(70) {}
        assert_eq!(asking.await.unwrap().source, Source::Redis);
    }
    assert_eq!(shared.word(Word::Failures).load(SeqCst), 0);
}

#[tokio::test]
async fn every_error_reply_is_stood_in_for_and_what_was_admitted_is_owed() {
    type Step = &'static [&'static str];
    let faults: [(&str, Step, Step); 4] = [
        ("READONLY", &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        ("OOM", &["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]),
        ("NOAUTH", &["CONFIG", "SET", "requirepass", "x"], &[]),
        ("MASTERDOWN", &["CONFIG", "SET", "replica-serve-stale-data", "no"], &["REPLICAOF", "NO", "ONE"]),
    ];
    for (name, breaks, mends) in faults {
        let server = Server::start();
        let (limiter, shared) = machine(&plan(&server, "9/minute")).await;
        let client = someone(&limiter, 1);
        assert_eq!(admitted(&limiter, &client, 2).await, 2);
        server.ask(breaks).await.unwrap();
        if name == "MASTERDOWN" {
            server.ask(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
        }
        if name == "NOAUTH" {
            // Connections that stand are not asked again: cut them.
            _ = server.ask_as("x", &["CLIENT", "KILL", "TYPE", "normal"]).await;
        }
        for count in 3..=6 {
            let verdict = limiter.check(&client, Endpoint::Api).await;
            let told = (verdict.outcome, verdict.source, verdict.lines().next().unwrap().count);
            assert_eq!(told, (Outcome::Admitted, Source::Standby, count), "{name}");
        }
        until("open", || shared.breaker().is_open()).await;
        match name {
            "NOAUTH" => _ = server.ask_as("x", &["CONFIG", "SET", "requirepass", ""]).await.unwrap(),
            _ => _ = server.ask(mends).await.unwrap(),
        }
        until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
        let verdict = limiter.check(&client, Endpoint::Api).await;
        assert_eq!((verdict.source, verdict.lines().next().unwrap().count), (Source::Redis, 7), "{name}");
    }
}

/// Else it would be found back twice a second, and lost again by the next three requests.
#[tokio::test]
async fn redis_that_runs_no_scripts_for_us_is_away_until_it_does() {
    let server = Server::start();
    let (limiter, shared) = machine(&plan(&server, "90/minute")).await;
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 2).await, 2);
    server.ask(&["ACL", "SETUSER", "default", "-@scripting"]).await.unwrap();
    assert_eq!(admitted(&limiter, &client, 3).await, 3);
    until("open", || shared.breaker().is_open()).await;
    let failures = || shared.word(Word::Failures).load(SeqCst);
    let after = failures() + 3;
    until("three probes", || failures() >= after).await;
    assert_eq!(admitted(&limiter, &client, 3).await, 3);
    assert_eq!([Word::Opened, Word::Closed].map(|word| shared.word(word).load(SeqCst)), [1, 0]);
    server.ask(&["ACL", "SETUSER", "default", "+@scripting"]).await.unwrap();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    let verdict = limiter.check(&client, Endpoint::Api).await;
    assert_eq!((verdict.source, verdict.lines().next().unwrap().count), (Source::Redis, 9));
}

#[tokio::test]
async fn a_busy_redis_is_stood_in_for() {
    let server = Server::start();
    let (limiter, shared) = machine(&plan(&server, "9/minute")).await;
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 1).await, 1);
    let redis = redis::Client::open(server.url()).unwrap();
    let mut wire = redis.get_multiplexed_async_connection().await.unwrap();
    let endless =
        tokio::spawn(
            async move { redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut wire).await },
        );
    until("busy", || {
        let client = someone(&limiter, 2);
        limiter.check_now(&client, Endpoint::Api, crate::sys::clock::monotonic_ms(), &mut Verdict::default());
        true
    })
    .await;
    for _ in 0..4 {
        assert!(limiter.check(&client, Endpoint::Api).await.admitted());
    }
    until("open", || shared.breaker().is_open()).await;
    server.ask(&["SCRIPT", "KILL"]).await.unwrap();
    assert!(endless.await.unwrap().is_err());
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    let verdict = limiter.check(&client, Endpoint::Api).await;
    assert!(verdict.source == Source::Redis && verdict.lines().next().unwrap().count >= 6);
}

#[tokio::test]
async fn redis_down_at_the_start_is_served_and_owed() {
    let mut server = Server::start();
    server.kill();
    let plan = plan(&server, "5/minute");
    let (limiter, shared) = unconnected(&plan);
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 3).await, 3);
    server.restart();
    until("connected", || limiter.is_up() && !shared.breaker().is_open()).await;
    let verdict = limiter.check(&client, Endpoint::Api).await;
    assert_eq!((verdict.source, verdict.lines().next().unwrap().count), (Source::Redis, 4));
}

#[tokio::test]
async fn what_rode_on_a_call_whose_client_left_is_still_owed() {
    let mut server = Server::start();
    let (limiter, shared) = machine(&plan(&server, "90/minute")).await;
    let client = someone(&limiter, 1);
    server.kill();
    assert_eq!(admitted(&limiter, &client, 5).await, 5);
    until("open", || shared.breaker().is_open()).await;
    server.restart();
    until("closed", || !shared.breaker().is_open() && limiter.is_up()).await;
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    let asked = tokio::time::timeout(Duration::from_millis(5), limiter.check(&client, Endpoint::Api)).await;
    assert!(asked.is_err());
    assert_eq!(limiter.picture_here(&client)["limits"][0]["owed_to_redis"], 5);
}

#[tokio::test]
async fn fallbacks_do_what_they_say() {
    for (fallback, admits) in
        [(Fallback::Divide(4), 2), (Fallback::Open, 20), (Fallback::Closed, 0), (Fallback::Local, 8)]
    {
        let mut server = Server::start();
        let plan = Plan { fallback, ..plan(&server, "10/minute") };
        let (limiter, shared) = machine(&plan).await;
        let client = someone(&limiter, 1);
        assert_eq!(admitted(&limiter, &client, 2).await, 2);
        server.kill();
        admitted(&limiter, &someone(&limiter, 2), 3).await;
        until("away", || shared.breaker().is_open()).await;
        assert_eq!(admitted(&limiter, &client, 20).await, admits, "{fallback:?}");
    }
}

/// Else a client that was full when the clock was set back would be refused until it is that late again.
#[tokio::test]
async fn redis_whose_clock_was_set_back_refuses_nobody_for_longer_than_a_window() {
    let server = Server::start();
    let (limiter, _) = machine(&plan(&server, "2/second")).await;
    let client = someone(&limiter, 1);
    assert_eq!(admitted(&limiter, &client, 1).await, 1);
    let tomorrow = "for _,k in ipairs(redis.call('KEYS','rl:1:'..string.rep('?',22))) do
        local i,s,c=struct.unpack('>I4I6I4',redis.call('GET',k))
        redis.call('SET',k,struct.pack('>I4I6I4',i,s+86400000,2)) end";
    server.ask(&["EVAL", tomorrow, "0"]).await.unwrap();
    let began = Instant::now();
    let mut turns = tokio::time::interval(Duration::from_millis(20));
    while admitted(&limiter, &client, 1).await == 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "refused for ever");
        turns.tick().await;
    }
}

/// Whoever connects first afterwards makes another secret: those who stayed connected must not count under the old one.
#[tokio::test]
async fn machines_that_stay_connected_to_a_redis_that_lost_everything_count_together_again() {
    let server = Server::start();
    let plan = Plan { redis_key: None, ..plan(&server, "10/minute") };
    let (first, second) = (machine(&plan).await.0, machine(&plan).await.0);
    let client = |limiter: &Arc<Limiter>, number| someone(limiter, number);
    assert_eq!(admitted(&first, &client(&first, 1), 4).await, 4);
    assert_eq!(admitted(&second, &client(&second, 1), 2).await, 2);
    server.ask(&["FLUSHALL"]).await.unwrap();
    let third = machine(&plan).await.0;
    let everyone = [first, second, third];
    let began = Instant::now();
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    // A client a turn, of whom each machine admits half.
    for number in 2.. {
        let mut counts = [0; 3];
        for (limiter, count) in everyone.iter().zip(&mut counts) {
            *count = admitted(limiter, &client(limiter, number), 5).await;
        }
        if counts == [5, 5, 0] {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(12), "they count apart: {counts:?}");
        turns.tick().await;
    }
    // What the first two knew of the first client is put back.
    let mut left = 0;
    for limiter in &everyone {
        left += admitted(limiter, &client(limiter, 1), 5).await;
    }
    assert!((4..=6).contains(&left), "{left} after 4 and 2 of 10");
}

#[tokio::test]
async fn an_operators_reset_takes_effect() {
    let server = Server::start();
    let plan = plan(&server, "3/day");
    let (limiter, _) = machine(&plan).await;
    let (other, _) = machine(&plan).await;
    assert_eq!(admitted(&limiter, &someone(&limiter, 1), 5).await, 3);
    assert!(other.reset(&someone(&other, 1)).await);
    assert_eq!(admitted(&other, &someone(&other, 1), 1).await, 1);
    // This machine remembers the refusal, and asks again some seconds later.
    let client = someone(&limiter, 1);
    let began = crate::sys::clock::monotonic_ms();
    let told = |now_ms| {
        let mut verdict = Verdict::default();
        limiter.check_now(&client, Endpoint::Api, now_ms, &mut verdict).then_some(verdict)
    };
    assert!(told(began).is_some_and(|verdict| !verdict.admitted()));
    assert!(told(began + 5_100).is_none(), "it is due to ask");
    assert!(told(began + 5_101).is_some(), "once");
    assert!(limiter.reset(&client).await);
    assert_eq!(admitted(&limiter, &client, 5).await, 3);
}

#[tokio::test]
async fn the_master_that_sentinels_name_is_found_again_after_a_failover() {
    let (first, second, sentinel) = (port(), port(), port());
    let (mut master, replica) = (Server::start(), Server::start());
    for (server, port) in [(&master, &first), (&replica, &second)] {
        server.ask(&["CONFIG", "SET", "port", port]).await.unwrap();
    }
    replica.ask(&["REPLICAOF", "127.0.0.1", &first]).await.unwrap();
    let file = master.dir.join("sentinel.conf");
    let settings = format!(
        "port {sentinel}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {first} 1\n\
         sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n"
    );
    std::fs::write(&file, settings).unwrap();
    let child = Command::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn().unwrap();
    let _sentinel = Server { child, dir: master.dir.join("sentinel"), settings: vec![] };
    let url = format!("redis+sentinel://127.0.0.1:{sentinel}/main").parse().unwrap();
    let plan = Plan { redis: Some(url), ..plan(&master, "10000/minute") };
    let (limiter, shared) = machine(&plan).await;
    let client = someone(&limiter, 1);
    let verdict = limiter.check(&client, Endpoint::Api).await;
    // The sentinel learns of the replica from the master every ten seconds, and once at its start.
    let known = replica_is_known(&sentinel).await;
    master.kill();
    let mut turns = tokio::time::interval(Duration::from_millis(100));
    let began = Instant::now();
    while limiter.check(&client, Endpoint::Api).await.source != Source::Redis {
        assert!(began.elapsed() < Duration::from_secs(15), "no new master, breaker {}", shared.breaker().is_open());
        turns.tick().await;
    }
    assert!(known && verdict.source == Source::Redis);
    assert!(replica.ask(&["ROLE"]).await.unwrap().contains("master"));
}

async fn replica_is_known(sentinel: &str) -> bool {
    let redis = redis::Client::open(format!("redis://127.0.0.1:{sentinel}")).unwrap();
    let mut wire = redis.get_multiplexed_async_connection().await.unwrap();
    let mut turns = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..400 {
        turns.tick().await;
        let replicas: redis::Value =
            redis::cmd("SENTINEL").arg("replicas").arg("main").query_async(&mut wire).await.unwrap();
        if matches!(replicas, redis::Value::Array(list) if !list.is_empty()) {
            return true;
        }
    }
    false
}
