//! The table against a simple model, under a scheduler that interleaves its steps, and under threads.

use super::quota::Quota;
use super::table::{Cell, Hash, OVERFLOW_SLOTS, Table, WAYS, words_needed};
use super::tally::Standings;
use super::word::{Limit, Now};
use proptest::prelude::*;
use std::cell::Cell as Plain;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

pub(super) struct Tally {
    pub(super) admitted: bool,
    standings: Standings,
}

impl<C: Cell> Table<C> {
    /// Hints that say that the client is where it may well not be.
    fn mislead(&self, hash: Hash, way: usize) {
        self.buckets_of(hash).into_iter().for_each(|bucket| self.hints.learn(bucket, way, hash.hint()));
    }

    pub(super) fn decide(&self, hash: Hash, limits: &[Limit], all: &[Limit], now: Now) -> Tally {
        let mut standings = Standings::default();
        Tally { admitted: self.admit(hash, limits, all, now, &mut standings), standings }
    }
}

pub(super) fn limits(quotas: &[(u32, u32)]) -> Vec<Limit> {
    let one = |(number, (count, window_s)): (usize, &(u32, u32))| {
        Limit::new(0, Quota { count: *count, window_s: *window_s }, number + 1)
    };
    quotas.iter().enumerate().map(one).collect()
}

fn table(bytes: usize) -> Table<AtomicU64> {
    Table::over(Box::leak((0..words_needed(bytes, 1)).map(|_| AtomicU64::new(0)).collect()), 1)
}

fn client(number: u64) -> Hash {
    use siphasher::sip128::Hasher128;
    let mut hasher = siphasher::sip128::SipHasher13::new_with_keys(1, 2);
    std::hash::Hasher::write_u64(&mut hasher, number);
    Hash::new(hasher.finish128().as_u128())
}

/// Clients that all live in the same two buckets, so that they fight for 16 places.
pub(super) fn neighbour(number: u64) -> Hash {
    Hash::new(u128::from(number + 1) << 49 | 1 << 96)
}

#[test]
fn ten_are_admitted_and_the_eleventh_leaves_no_trace() {
    let (table, limits) = (table(4096), limits(&[(10, 60), (50, 3_600), (200, 86_400)]));
    let at = |ms: u64| Now::at(1_000_000 + ms);
    for count in 1..=10 {
        let tally = table.decide(client(1), &limits, &limits, at(count));
        assert!(tally.admitted);
        assert_eq!(tally.standings[0].count, count as u32);
    }
    let before = table.standings(client(1), &limits, at(100));
    for _ in 0..3 {
        let tally = table.decide(client(1), &limits, &limits, at(100));
        assert!(!tally.admitted);
        assert_eq!(tally.standings, before);
    }
    assert_eq!(before[0].reset_ms, 60_001 - 100);
    assert!(!table.decide(client(1), &limits, &limits, at(60_000)).admitted);
    assert!(table.decide(client(1), &limits, &limits, at(60_001)).admitted);
    assert_eq!(table.standings(client(1), &limits, at(60_001))[1].count, 11);
    assert!(table.decide(client(2), &limits, &limits, at(100)).admitted);
}

#[test]
fn a_request_with_a_late_clock_does_not_reset_a_window() {
    let (table, limits) = (table(4096), limits(&[(2, 60)]));
    assert!(table.decide(client(1), &limits, &limits, Now::at(10_000)).admitted);
    assert!(table.decide(client(1), &limits, &limits, Now::at(9_000)).admitted);
    assert!(!table.decide(client(1), &limits, &limits, Now::at(8_500)).admitted);
}

#[test]
fn a_worker_that_was_stopped_between_its_clock_and_its_count_begins_no_window_anew() {
    let (table, limits) = (table(4096), limits(&[(2, 1), (3, 60), (4, 7_200)]));
    // As long as a worker may hang before it is killed.
    for ms in [70_000, 100_000] {
        (0..2).for_each(|_| assert!(table.decide(client(ms), &limits, &limits, Now::at(ms)).admitted));
        assert!(!table.decide(client(ms), &limits, &limits, Now::at(ms - 31_000)).admitted);
        assert!(!table.decide(client(ms), &limits, &limits, Now::at(ms + 1)).admitted);
        assert_eq!(table.standings(client(ms), &limits, Now::at(ms + 1))[1].count, 2);
    }
}

#[test]
fn a_million_clients_do_not_make_a_refused_one_forgotten() {
    let (table, limits) = (table(1 << 16), limits(&[(3, 60)]));
    let now = Now::at(5_000);
    (0..3).for_each(|_| assert!(table.decide(client(0), &limits, &limits, now).admitted));
    for number in 1..100_000 {
        table.decide(client(number), &limits, &limits, now);
    }
    assert!(!table.decide(client(0), &limits, &limits, now).admitted);
    let pressure = table.pressure();
    assert!(pressure.evicted > 0, "{pressure:?}");
}

#[test]
fn a_full_table_shares_and_what_was_shared_is_kept() {
    let (table, limits) = (table(1), limits(&[(1, 60)]));
    let now = Now::at(5_000);
    let owners = (0..200).filter(|number| table.decide(neighbour(*number), &limits, &limits, now).admitted).count();
    // Every owner has used its one request up, so none gives way; the rest share one slot of one request.
    assert!((8..=16 + 1).contains(&owners), "{owners}");
    assert!(table.pressure().overflowed > 100);
    let shared = table.standings(neighbour(199), &limits, now);
    assert_eq!(shared[0].count, 0, "it has no slot of its own");
    let mut from = 0;
    while {
        from = table.sweep(from, 10, &limits, Now::at(70_000));
        from != 0
    } {}
    assert!(table.decide(neighbour(199), &limits, &limits, Now::at(70_000)).admitted);
}

#[test]
fn a_place_of_its_own_does_not_double_a_clients_quota() {
    // The wide limit fills the places, the narrow one runs out sooner and sets them free.
    let (table, all) = (table(1), limits(&[(1, 10), (4, 3_600)]));
    let now = Now::at(5_000);
    let (narrow, wide) = ([all[0]], [all[1]]);
    (0..64).for_each(|number| _ = table.decide(neighbour(number), &narrow, &all, now));
    let late = neighbour(1_000);
    (0..4).for_each(|_| _ = table.decide(late, &wide, &all, now));
    let later = Now::at(20_000);
    let admitted = (0..8).filter(|_| table.decide(late, &wide, &all, later).admitted).count();
    assert_eq!(admitted, 0, "the four of the shared slot are remembered");
    assert!(table.standings(late, &wide, later)[0].count == 4, "in a slot of its own");
}

#[test]
fn a_sweep_clears_what_is_over_and_nothing_else() {
    let (table, limits) = (table(1 << 16), limits(&[(10, 60), (50, 3_600)]));
    for number in 0..300 {
        table.decide(client(number), &limits, &limits, Now::at(1_000));
    }
    let sweep = |ms| {
        let (mut from, mut turns) = (0, 0);
        while {
            from = table.sweep(from, 100, &limits, Now::at(ms));
            turns += 1;
            from != 0
        } {}
        turns
    };
    assert_eq!(sweep(100_000), (table.slots() + OVERFLOW_SLOTS).div_ceil(100));
    assert_eq!(table.standings(client(7), &limits, Now::at(100_000))[1].count, 1);
    assert!(table.find(client(7)).is_some());
    sweep(3_700_000);
    assert!((0..300).all(|number| table.find(client(number)).is_none()));
}

#[test]
fn what_a_better_informed_store_says_is_kept() {
    let (table, limits) = (table(4096), limits(&[(10, 60)]));
    let tell = |count, reset_ms, now_ms| {
        let mut told = Standings::default();
        told[0] = super::tally::Standing { count, reset_ms };
        table.learn(client(1), &limits, &limits, Now::at(now_ms), &told);
        table.standings(client(1), &limits, Now::at(now_ms))[0]
    };
    assert_eq!(tell(3, 50_000, 100_000).count, 3);
    assert_eq!(tell(2, 50_020, 100_010).count, 3, "an answer that was overtaken");
    assert_eq!(tell(7, 49_900, 100_020).count, 7);
    assert_eq!(tell(1, 60_000, 130_000).count, 1, "a later window");
    assert_eq!(tell(9, 20_000, 130_000).count, 1, "an earlier window");
    assert_eq!(table.take(client(1), &limits, Now::at(130_000))[0].count, 1);
    assert_eq!(table.standings(client(1), &limits, Now::at(130_000))[0].count, 0);
}

/// The model: one lock, one map, and the rules in their plainest form.
#[derive(Default)]
struct Model(HashMap<(u64, usize), (u64, u32)>);

impl Model {
    fn admit(&mut self, who: u64, limits: &[Limit], now_ms: u64) -> (bool, Vec<u32>) {
        let live = |entry: Option<&(u64, u32)>, limit: &Limit| {
            entry.copied().filter(|(start, _)| now_ms < start + limit.window_ms)
        };
        let now: Vec<_> = limits.iter().map(|limit| live(self.0.get(&(who, limit.word)), limit)).collect();
        let room = limits.iter().zip(&now).all(|(limit, held)| held.is_none_or(|(_, count)| count < limit.count));
        if room {
            for (limit, held) in limits.iter().zip(&now) {
                let (start, count) = held.unwrap_or((now_ms, 0));
                self.0.insert((who, limit.word), (start, count + 1));
            }
        }
        let count = |held: &Option<(u64, u32)>| held.map_or(0, |(_, count)| count) + u32::from(room);
        (room, now.iter().map(count).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_table_does_what_the_model_does(
        quotas in prop::collection::vec((1u32..8, 1u32..20), 1..6),
        requests in prop::collection::vec((0u64..5, 0usize..6, 0u64..4_000, 0usize..16), 1..200),
        start_ms in prop_oneof![Just(0u64), Just((1 << 28) - 5_000), 0..1u64 << 40],
    ) {
        let (table, all, mut model) = (table(1 << 14), limits(&quotas), Model::default());
        let mut now_ms = start_ms;
        for (who, skipped, pause_ms, way) in requests {
            now_ms += pause_ms;
            if way < WAYS {
                table.mislead(client(who), way);
            }
            let some: Vec<Limit> = all.iter().enumerate().filter(|(n, _)| *n != skipped).map(|(_, l)| *l).collect();
            let tally = table.decide(client(who), &some, &all, Now::at(now_ms));
            let (admitted, counts) = model.admit(who, &some, now_ms);
            prop_assert_eq!(tally.admitted, admitted);
            let seen: Vec<u32> = tally.standings[..some.len()].iter().map(|standing| standing.count).collect();
            prop_assert_eq!(&seen, &counts);
            table.mislead(client(who), way % WAYS);
            let found: Vec<u32> = table.standings(client(who), &some, Now::at(now_ms))[..some.len()].iter().map(|standing| standing.count).collect();
            prop_assert_eq!(found, counts);
        }
    }
}

#[test]
fn threads_admit_exactly_the_limit() {
    for tightest in 0..3 {
        let mut quotas = [(1_000, 60), (1_000, 3_600), (1_000, 86_400)];
        quotas[tightest].0 = 10;
        let (table, limits) = (table(1 << 16), limits(&quotas));
        let clients = 300u64;
        let counts: Vec<AtomicUsize> = (0..clients).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        for number in 0..clients {
                            let tally = table.decide(client(number), &limits, &limits, Now::at(1_000));
                            counts[number as usize].fetch_add(usize::from(tally.admitted), SeqCst);
                        }
                    }
                });
            }
        });
        for (number, count) in counts.iter().enumerate() {
            assert_eq!(count.load(SeqCst), 10, "client {number}, limit {tightest}");
            let left = table.standings(client(number as u64), &limits, Now::at(1_000));
            assert!(left[..3].iter().all(|standing| standing.count == 10), "{left:?}");
        }
    }
}

/// Runs threads one at a time: before each operation on a [`Stepped`] word another may be picked.
struct Scheduler {
    turn: Mutex<Turn>,
    changed: Condvar,
}

struct Turn {
    running: Vec<bool>,
    next: usize,
    random: Random,
}

/// xorshift64: a seed replays an order.
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

thread_local! {
    static ME: Plain<usize> = const { Plain::new(usize::MAX) };
    static RULER: std::cell::RefCell<Option<Arc<Scheduler>>> = const { std::cell::RefCell::new(None) };
    static CHANCE: Plain<Random> = const { Plain::new(Random(1)) };
}

type Body = Box<dyn FnOnce() + Send>;

impl Scheduler {
    fn run(mut random: Random, bodies: Vec<Body>) {
        let seeds: Vec<u64> = bodies.iter().map(|_| random.below(u64::MAX >> 11) | 1).collect();
        let turn = Turn { running: vec![true; bodies.len()], next: 0, random };
        let ruler = Arc::new(Scheduler { turn: Mutex::new(turn), changed: Condvar::new() });
        std::thread::scope(|scope| {
            for (number, (body, seed)) in bodies.into_iter().zip(seeds).enumerate() {
                let ruler = ruler.clone();
                scope.spawn(move || {
                    ME.set(number);
                    CHANCE.set(Random(seed));
                    RULER.set(Some(ruler.clone()));
                    ruler.wait(number, ruler.turn.lock().unwrap());
                    body();
                    let mut turn = ruler.turn.lock().unwrap();
                    turn.running[number] = false;
                    turn.pick();
                    ruler.changed.notify_all();
                });
            }
        });
    }

    fn step(&self, me: usize) {
        let mut chance = CHANCE.get();
        let switch = chance.below(6) == 0;
        CHANCE.set(chance);
        if switch {
            let mut turn = self.turn.lock().unwrap();
            turn.pick();
            if turn.next != me {
                self.changed.notify_all();
                self.wait(me, turn);
            }
        }
    }

    fn wait(&self, me: usize, mut turn: std::sync::MutexGuard<'_, Turn>) {
        while turn.next != me {
            turn = self.changed.wait(turn).unwrap();
        }
    }
}

impl Turn {
    fn pick(&mut self) {
        let alive: Vec<usize> = (0..self.running.len()).filter(|number| self.running[*number]).collect();
        if !alive.is_empty() {
            self.next = alive[self.random.below(alive.len() as u64) as usize];
        }
    }
}

struct Stepped(AtomicU64);

impl Cell for Stepped {
    fn get(&self) -> u64 {
        step();
        self.0.get()
    }

    fn replace(&self, old: u64, new: u64) -> bool {
        step();
        self.0.replace(old, new)
    }
}

fn step() {
    let ruler = RULER.with_borrow(Clone::clone);
    if let Some(ruler) = ruler {
        ruler.step(ME.get());
    }
}

fn stepped() -> Table<Stepped> {
    let words = words_needed(1, 1);
    Table::over(Box::leak((0..words).map(|_| Stepped(AtomicU64::new(0))).collect()), 1)
}

/// One client's two buckets, in any state: free, held by windows that are over, by clients below half, by full ones.
fn any_occupation(table: Table<Stepped>, all: &[Limit], random: &mut Random) {
    for number in 0..random.below(17) {
        match random.below(4) {
            0 => _ = table.decide(neighbour(number), &all[2..], all, Now::at(40_000)),
            1 => (0..all[2].count).for_each(|_| _ = table.decide(neighbour(number), &all[2..], all, Now::at(40_000))),
            _ => _ = table.decide(neighbour(number), &all[..1], all, Now::at(1_000)),
        }
    }
}

/// What one of the threads does: mostly requests of the client who is watched, among its neighbours and a sweep.
fn body(table: Table<Stepped>, all: Vec<Limit>, mut random: Random, admitted: Arc<AtomicUsize>) -> Body {
    Box::new(move || {
        for _ in 0..4 {
            let now = Now::at(50_000 + random.below(3));
            match random.below(6) {
                0..3 => {
                    let tally = table.decide(neighbour(100), &all[..2], &all, now);
                    admitted.fetch_add(usize::from(tally.admitted), SeqCst);
                }
                3 => _ = table.sweep(0, 100, &all, now),
                _ => _ = table.decide(neighbour(200 + random.below(8)), &all[random.below(3) as usize..], &all, now),
            }
        }
    })
}

/// Whatever the order of steps, and whoever holds the places: the watched client, whom nobody may forget once it has
/// counted, is never admitted once too often, and what it holds is what was admitted.
#[test]
fn no_order_of_steps_admits_one_too_many() {
    let rounds: u64 = std::env::var("LIMIT_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_500);
    for seed in 1..=rounds {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.below(1);
        let table = stepped();
        let all = limits(&[(3, 10), (1 + random.below(2) as u32, 3_600), (5, 3_601)]);
        any_occupation(table, &all, &mut random);
        let admitted = Arc::new(AtomicUsize::new(0));
        let bodies = (0..3).map(|_| body(table, all.clone(), Random(random.below(1 << 50) | 1), admitted.clone()));
        let bodies: Vec<Body> = bodies.collect();
        Scheduler::run(random, bodies);
        let admitted = admitted.load(SeqCst) as u32;
        let standings = table.standings(neighbour(100), &all[..2], Now::at(50_002));
        assert!(admitted <= all[1].count, "seed {seed}: {admitted} of {}", all[1].count);
        if table.pressure().overflowed == 0 {
            assert!(standings[..2].iter().all(|s| s.count == admitted), "seed {seed}: {admitted}, {standings:?}");
        }
    }
}
