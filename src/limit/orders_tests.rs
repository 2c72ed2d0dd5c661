//! The table's protocol under shuttle, which picks the order of every step on a shared word: at random, and with few
//! changes at the places where they hurt (PCT). `RUSTFLAGS="--cfg shuttle" cargo test --lib limit::orders_tests`.
//!
//! Not loom: the protocol rests on one order of all operations (`SeqCst`), which loom does not model.

use super::table::{Cell, Table, words_needed};
use super::table_tests::{limits, neighbour};
use super::word::{Limit, Now};
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// Runs of each kind; a run leaks its table, some 40 KiB.
const RUNS: usize = 3_000;
/// Places in a run at which PCT changes who goes on.
const DEPTH: usize = 4;

impl Cell for AtomicU64 {
    fn get(&self) -> u64 {
        self.load(SeqCst)
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        self.compare_exchange(old, new, SeqCst, SeqCst).is_ok()
    }
}

fn table() -> Table<AtomicU64> {
    Table::over(Box::leak((0..words_needed(1, 1)).map(|_| AtomicU64::new(0)).collect()), 1)
}

fn in_any_order(run: fn()) {
    shuttle::check_random(run, RUNS);
    shuttle::check_pct(run, RUNS, DEPTH);
}

/// Three threads ask for one client whose wide limit is the tighter one, while others press into its places.
fn nobody_too_many() {
    let (table, all) = (table(), limits(&[(3, 10), (2, 3_600), (5, 3_601)]));
    let admitted = Arc::new(AtomicUsize::new(0));
    // Half of the places are taken by clients below half of their limits, who may be displaced.
    (0..8).for_each(|number| _ = table.decide(neighbour(number), &all[2..], &all, Now::at(49_000)));
    let ask = |thread_number: u64| {
        let (all, admitted) = (all.clone(), admitted.clone());
        thread::spawn(move || {
            for _ in 0..2 {
                let tally = table.decide(neighbour(100), &all[..2], &all, Now::at(50_000));
                admitted.fetch_add(usize::from(tally.admitted), std::sync::atomic::Ordering::SeqCst);
                table.decide(neighbour(200 + thread_number), &all[2..], &all, Now::at(50_000));
            }
        })
    };
    let threads: Vec<_> = (0..3).map(ask).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let admitted = admitted.load(std::sync::atomic::Ordering::SeqCst) as u32;
    assert!(admitted <= 2, "{admitted} of 2");
    if table.pressure().overflowed == 0 {
        let held = table.standings(neighbour(100), &all[..2], Now::at(50_000));
        assert!(held[..2].iter().all(|standing| standing.count == admitted), "{admitted} admitted, {held:?}");
    }
}

/// Reservations of tokens, of which some are given back while others are made.
fn no_budget_is_passed() {
    let table = table();
    let budget = [Limit::budget(5, super::quota::Quota { count: 10, window_s: 60 }, 1)];
    let now = Now::at(50_000);
    let reserve = |_| {
        thread::spawn(move || {
            let mut standings = Default::default();
            for _ in 0..2 {
                if table.admit_some(neighbour(1), &budget, &budget, now, 4, &mut standings) {
                    table.exchange(neighbour(1), &budget, now, &[0], 4, 1);
                }
                let held = table.standings(neighbour(1), &budget, now)[0].count;
                assert!(held <= 10, "{held} of 10");
            }
        })
    };
    let threads: Vec<_> = (0..3).map(reserve).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let held = table.standings(neighbour(1), &budget, now)[0].count;
    assert!((1..=6).contains(&held), "each that was admitted took one: {held}");
}

#[test]
fn no_order_admits_one_too_many() {
    in_any_order(nobody_too_many);
}

#[test]
fn no_order_passes_a_budget() {
    in_any_order(no_budget_is_passed);
}
