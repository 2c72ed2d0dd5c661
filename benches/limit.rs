//! What a decision costs in shared memory: nanoseconds of this thread's core for an admitted and a refused request, and
//! for the hash of an address, which comes before it. `cargo bench --bench limit`: name, value, unit.
//!
//! `of`: one client, again and again, in a table that holds so many others: it is warm, as one is that asks often.
//! `in turn`: all of them, one after the other, so that each one's line of memory has left the nearest caches since it
//! last asked: 50,000 lines are 3 MiB.

use chatcorn::limit::{Endpoint, Identity, Limiter, Peer, Plan, Shared, Verdict, quota};
use nix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

const TURNS: usize = 9;
const DECISIONS: u64 = 400_000;
/// Clients that are made ready before the clock runs: few enough not to take the table's place in the caches.
const BLOCK: u64 = 512;

fn main() {
    for (what, count) in [("admitted", 1_000_000), ("refused", 1)] {
        for clients in [10, 1_000, 50_000] {
            println!("{what},_one_of_{clients}_clients {:.1} ns", best(|| decision_ns(count, clients, 1)));
        }
        for clients in [10, 1_000, 10_000, 50_000] {
            println!("{what},_{clients}_clients_in_turn {:.1} ns", best(|| decision_ns(count, clients, clients)));
        }
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

/// Of a limit of `count`, by `asking` clients of so many that the table holds.
fn decision_ns(count: u32, clients: u64, asking: u64) -> f64 {
    let limiter = limiter(count);
    decide(&limiter, clients, 2 * clients.max(BLOCK));
    decide(&limiter, asking, DECISIONS)
}

/// Nanoseconds a decision, over all clients in an order that no prefetcher knows.
fn decide(limiter: &Limiter, clients: u64, decisions: u64) -> f64 {
    let mut took = Duration::ZERO;
    for from in (0..decisions).step_by(BLOCK as usize) {
        let order = (from..from + BLOCK).map(|number| number.wrapping_mul(0x9e37_79b1) % clients);
        let held: Vec<_> = order.map(|number| limiter.client(peer(number))).collect();
        let start = cpu();
        for client in &held {
            // As on a request's path: the verdict is written where it stays.
            let mut verdict = Verdict::default();
            limiter.check_now(black_box(client), Endpoint::Chat, 5_000_000, &mut verdict);
            black_box(&verdict);
        }
        took += cpu() - start;
    }
    took.as_nanos() as f64 / decisions.next_multiple_of(BLOCK) as f64
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
