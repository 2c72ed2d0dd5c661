//! What a decision costs in shared memory: nanoseconds of this thread's core for an admitted and a refused request of a
//! warm client, from 10 to 50,000 clients, and for the hash of an address, which comes before it. `cargo bench --bench limit`: name, value, unit.

use chatcorn::limit::{Endpoint, Identity, Limiter, Peer, Plan, Shared, Verdict, quota};
use nix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const TURNS: usize = 9;
const DECISIONS: u64 = 400_000;
/// Clients that are made ready before the clock runs; each is asked for again and again.
const CLIENTS_HELD: u64 = 100_000;

fn main() {
    for clients in [10, 1_000, 10_000, 50_000] {
        println!("admitted,_{clients}_clients {:.1} ns", best(|| admitted_ns(clients)));
    }
    for clients in [1, 10, 50_000] {
        println!("refused,_{clients}_clients {:.1} ns", best(|| refused_ns(clients)));
    }
    println!("hash_of_a_client {:.1} ns", best(hash_ns));
}

/// Four limits, as a chat has by default.
fn limiter(count: u32) -> Limiter {
    let quotas = |text: &str| quota::parse(&text.replace('N', &count.to_string())).unwrap_or_default();
    let plan = Plan { default: quotas("N/minute;N/hour;N/day"), chat: quotas("N/minute"), ..Plan::default() };
    let shared = Shared::create(&plan).unwrap_or_else(|error| panic!("no shared memory: {error}"));
    Limiter::new(&plan, shared)
}

fn peer(number: u64) -> Identity<'static> {
    Identity::Peer(Peer::Address(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | number as u32))))
}

fn admitted_ns(clients: u64) -> f64 {
    let limiter = limiter(1_000_000);
    decide(&limiter, clients, clients);
    decide(&limiter, clients, DECISIONS)
}

fn refused_ns(clients: u64) -> f64 {
    let limiter = limiter(1);
    decide(&limiter, clients, 2 * clients);
    decide(&limiter, clients, DECISIONS)
}

/// Nanoseconds a decision, over all clients in an order that no prefetcher knows.
fn decide(limiter: &Limiter, clients: u64, decisions: u64) -> f64 {
    let order = (0..decisions.min(CLIENTS_HELD)).map(|number| number.wrapping_mul(0x9e37_79b1) % clients);
    let held: Vec<_> = order.map(|number| limiter.client(peer(number))).collect();
    let mut decided = 0;
    let mut took = Duration::ZERO;
    while decided < decisions {
        let start = cpu();
        for client in &held {
            // As on a request's path: the verdict is written where it stays.
            let mut verdict = Verdict::default();
            limiter.check_now(black_box(client), Endpoint::Chat, 5_000_000, &mut verdict);
            black_box(&verdict);
        }
        took += cpu() - start;
        decided += held.len() as u64;
    }
    took.as_nanos() as f64 / decided as f64
}

fn hash_ns() -> f64 {
    let limiter = limiter(1);
    let start = cpu();
    for number in 0..DECISIONS {
        black_box(limiter.client(black_box(peer(number))));
    }
    (cpu() - start).as_nanos() as f64 / DECISIONS as f64
}

fn best(measure: impl Fn() -> f64) -> f64 {
    (0..TURNS).map(|_| measure()).fold(f64::MAX, f64::min)
}

/// This thread's time on a core: other work on the machine does not count.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
