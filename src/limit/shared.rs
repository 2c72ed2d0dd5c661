//! What all workers share: one sealed memory file, made by the master before it forks and handed on by an upgrade.
//!
//! ```text
//! [ head, one page: magic, layout, seed, breaker, directory of limits ] [ table ] [ carry ]
//! ```
//!
//! `carry` is a second, smaller table: what was admitted here while Redis was away, owed to it on its return.

use super::breaker::Breaker;
use super::name::Name;
use super::plan::{Plan, Rules, limits_needed};
use super::table::{Hash, LIMITS_MAX, LINE, Pressure, Table, words_needed};
use super::word::{Limit, Now};
use crate::sys::shm::Words;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// "chatlim" and the version of this layout.
const MAGIC: u64 = 0x0001_6d69_6c74_6168;
/// The carry table's part of the table.
const CARRY_PART: usize = 8;
const CARRY_BYTES_MIN: usize = 64 << 10;
const HEAD_WORDS: usize = 512;

const AT_MAGIC: usize = 0;
const AT_LINES: usize = 1;
const AT_TABLE_WORDS: usize = 2;
const AT_SEED: usize = 3;
const AT_DIRECTORY: usize = 16;
const AT_BREAKER: usize = 64;
const AT_WORDS: usize = 72;

/// Single words that workers share, each in a line of its own.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// Until when [`Shared::carry`] may hold something, monotonic milliseconds.
    CarryUntil = 0,
    /// Until when a window may be known better here than in Redis.
    MendUntil = 1,
    /// When a worker last lost Redis: what it told before may be gone with a failover.
    LostAt = 2,
    /// When Redis was last found to have lost everything.
    EmptiedAt = 3,
    /// Which life of the data in Redis is known; 0 none yet.
    Life = 4,
    /// Counter: calls to Redis.
    Calls = 5,
    /// Counter: calls that failed.
    Failures = 6,
    /// Counter: decisions in place of Redis.
    Standby = 7,
    /// Counter: the breaker opened.
    Opened = 8,
    /// Counter: the breaker closed.
    Closed = 9,
}

/// What happened since the memory was made, by all workers.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// See [`Pressure`].
    pub pressure: Pressure,
    /// Redis is not asked now.
    pub breaker_open: bool,
    /// See [`Word::Calls`].
    pub calls: u64,
    /// See [`Word::Failures`].
    pub failures: u64,
    /// See [`Word::Standby`].
    pub standby: u64,
    /// See [`Word::Opened`].
    pub opened: u64,
    /// See [`Word::Closed`].
    pub closed: u64,
}

/// The shared memory, and the rules it is used by.
#[derive(Clone, Copy)]
pub struct Shared {
    words: &'static [AtomicU64],
    file: BorrowedFd<'static>,
    /// Every client's counts.
    pub table: Table<AtomicU64>,
    /// Counts that Redis has not heard of.
    pub carry: Table<AtomicU64>,
    /// The compiled plan.
    pub rules: &'static Rules,
    seed: [u64; 2],
}

impl Shared {
    /// New shared memory for `plan`; the master calls it before it forks.
    ///
    /// # Errors
    /// Out of memory, descriptors or randomness; more limits than fit a client.
    pub fn create(plan: &Plan) -> io::Result<Shared> {
        let lines = if limits_needed(plan) < LINE { 1 } else { 2 };
        let table_words = words_needed(plan.table_bytes, lines);
        let carry_words = words_needed((plan.table_bytes / CARRY_PART).max(CARRY_BYTES_MIN), lines);
        let words = Words::create("chatcorn-limits", HEAD_WORDS + table_words + carry_words)?;
        let head = words.words();
        head[AT_LINES].store(lines as u64, SeqCst);
        head[AT_TABLE_WORDS].store(table_words as u64, SeqCst);
        for word in &head[AT_SEED..AT_SEED + 2] {
            word.store(getrandom::u64().map_err(io::Error::other)?, SeqCst);
        }
        head[AT_MAGIC].store(MAGIC, SeqCst);
        Shared::over(words, plan)
    }

    /// Shared memory that the former program of an upgrade made. Its size stays what it was.
    ///
    /// # Errors
    /// Not such memory, of another layout, or with fewer words than `plan` has limits.
    pub fn adopt(file: OwnedFd, plan: &Plan) -> io::Result<Shared> {
        Shared::over(Words::map(file)?, plan)
    }

    /// Whether such memory could be adopted for `plan`; nothing in it changes.
    ///
    /// # Errors
    /// As [`Shared::adopt`].
    pub fn fits(file: OwnedFd, plan: &Plan) -> io::Result<()> {
        let words = Words::map(file)?;
        shape(words.words())?;
        rules(words.words(), plan, &[]).map(drop)
    }

    /// The same memory under another plan: counts of limits that both have are kept. Rules that are `known` are taken
    /// in place of new ones, which stay in memory for the process's life.
    ///
    /// # Errors
    /// More limits than fit a client.
    pub fn reload(&self, plan: &Plan, known: &[&'static Rules]) -> io::Result<Shared> {
        let (rules, numbers) = rules(self.words, plan, &self.rules.all)?;
        self.enter(&numbers);
        Ok(Shared { rules: kept(rules, known), ..*self })
    }

    fn over(words: Words, plan: &Plan) -> io::Result<Shared> {
        let words: &'static Words = Box::leak(Box::new(words));
        let (file, words) = (words.as_fd(), words.words());
        let (lines, table_words) = shape(words)?;
        let (head, body) = words.split_at(HEAD_WORDS);
        let (table, carry) = body.split_at(table_words);
        let seed = [head[AT_SEED].load(SeqCst), head[AT_SEED + 1].load(SeqCst)];
        let (table, carry) = (Table::over(table, lines), Table::over(carry, lines));
        let (rules, numbers) = rules(words, plan, &[])?;
        let shared = Shared { words, file, table, carry, rules: kept(rules, &[]), seed };
        shared.enter(&numbers);
        Ok(shared)
    }

    /// Writes down which limit each word counts for. What another limit counted in it is cleared: it would be read as
    /// this one's. The master alone compiles, so the directory has one writer.
    fn enter(&self, numbers: &[u32]) {
        for (at, (cell, id)) in directory(self.words).iter().zip(numbers).enumerate() {
            let former = cell.swap(u64::from(*id), SeqCst);
            if former != 0 && former != u64::from(*id) {
                [self.table, self.carry].iter().for_each(|table| table.clear(at + 1));
            }
        }
    }

    /// The client's place in the table: a keyed hash of its name.
    #[inline]
    pub fn hash(&self, name: Name) -> Hash {
        Hash::new(name.hash(self.seed))
    }

    /// The breaker before Redis.
    pub fn breaker(&self) -> Breaker {
        Breaker(&self.words[AT_BREAKER])
    }

    /// A shared word.
    pub fn word(&self, word: Word) -> &'static AtomicU64 {
        &self.words[AT_WORDS + word as usize * LINE]
    }

    /// Raises a shared word to `value`.
    pub fn raise(&self, word: Word, value: u64) {
        self.word(word).fetch_max(value, SeqCst);
    }

    /// See [`Pressure`].
    pub fn pressure(&self) -> Pressure {
        self.table.pressure()
    }

    /// See [`Counts`].
    pub fn counts(&self) -> Counts {
        let word = |word| self.word(word).load(SeqCst);
        Counts {
            pressure: self.pressure(),
            breaker_open: self.breaker().is_open(),
            calls: word(Word::Calls),
            failures: word(Word::Failures),
            standby: word(Word::Standby),
            opened: word(Word::Opened),
            closed: word(Word::Closed),
        }
    }

    /// Sweeps up to `count` slots of the table from `from` on; where to go on, 0 after the last. The master calls it
    /// so that the whole table is swept at least once an hour: a few thousand slots a second are cheap and enough.
    pub fn sweep(&self, from: usize, count: usize, now_ms: u64) -> usize {
        let (now, all) = (Now::at(now_ms), &self.rules.all);
        if from == 0 {
            self.carry.sweep(0, usize::MAX, all, now);
        }
        self.table.sweep(from, count, all, now)
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file
    }
}

/// Cache lines of a client and words of the table, of memory that is what it should be.
fn shape(words: &[AtomicU64]) -> io::Result<(usize, usize)> {
    let head = |at: usize| words.get(at).map_or(0, |word| word.load(SeqCst));
    let (lines, table_words) = (head(AT_LINES) as usize, head(AT_TABLE_WORDS) as usize);
    let body = words.len().checked_sub(HEAD_WORDS);
    let least = words_needed(1, 2);
    let fits = body.is_some_and(|body| table_words >= least && body.saturating_sub(table_words) >= least);
    match head(AT_MAGIC) == MAGIC && (1..=2).contains(&lines) && fits {
        true => Ok((lines, table_words)),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "shared memory of another layout")),
    }
}

/// The rules of `plan` after `former` ones, and the directory that says which limit each word of a client counts for.
fn rules(words: &[AtomicU64], plan: &Plan, former: &[Limit]) -> io::Result<(Rules, Vec<u32>)> {
    let mut directory: Vec<u32> = directory(words).iter().map(|cell| cell.load(SeqCst) as u32).collect();
    Ok((Rules::compile_after(former, plan, &mut directory)?, directory))
}

fn directory(words: &[AtomicU64]) -> &[AtomicU64] {
    let lines = (words[AT_LINES].load(SeqCst) as usize).clamp(1, 2);
    &words[AT_DIRECTORY..][..(lines * LINE - 1).min(LIMITS_MAX)]
}

/// The rules, for the process's life; where the same are `known`, those.
fn kept(rules: Rules, known: &[&'static Rules]) -> &'static Rules {
    let same = known.iter().find(|known| ***known == rules).copied();
    same.unwrap_or_else(|| Box::leak(Box::new(rules)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::plan::Endpoint;
    use crate::limit::quota;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn admit(shared: &Shared, now_ms: u64) -> bool {
        let limits = &shared.rules.route(Endpoint::Chat).limits;
        shared.table.admit(
            shared.hash(Name::new(b'k', b"me")),
            limits,
            &shared.rules.all,
            Now::at(now_ms),
            &mut Default::default(),
        )
    }

    #[test]
    fn counts_outlive_a_reload_and_an_upgrade() {
        let shared = Shared::create(&Plan::default()).unwrap();
        (0..10).for_each(|_| assert!(admit(&shared, 1_000)));
        assert!(!admit(&shared, 1_000));
        let more = Plan { default: quota::parse("12/minute;1/2 seconds").unwrap(), chat: vec![], ..Plan::default() };
        let reloaded =
            shared.reload(&Plan { default: quota::parse("12/minute").unwrap(), ..more.clone() }, &[]).unwrap();
        assert!(admit(&reloaded, 1_000) && admit(&reloaded, 1_000) && !admit(&reloaded, 1_000));
        let upgraded = Shared::adopt(shared.as_fd().try_clone_to_owned().unwrap(), &more).unwrap();
        assert!(!admit(&upgraded, 1_000));
        assert!(admit(&upgraded, 62_000));
    }

    #[test]
    fn a_word_that_another_limit_had_counts_from_nothing() {
        let plan = |default: &str, tokens: &str| Plan {
            default: quota::parse(default).unwrap(),
            tokens: quota::parse_tokens(tokens).unwrap(),
            chat: vec![],
            ..Plan::default()
        };
        let first = "9/40 seconds;9/50 seconds;9/60 seconds;9/2 hours;9/3 hours;9/4 hours";
        let mut shared = Shared::create(&plan(first, "")).unwrap();
        (0..9).for_each(|_| assert!(admit(&shared, 1_000)));
        let others = "1/41 seconds;1/51 seconds;1/2 minutes;1/5 hours;1/6 hours";
        for (default, tokens) in [(others, ""), ("1/3 minutes", "5/day;5/2 days;5/3 days;5/4 days;5/5 days")] {
            shared = shared.reload(&plan(default, tokens), &[]).unwrap();
            let (name, rules) = (shared.hash(Name::new(b'k', b"me")), shared.rules);
            let held = shared.table.standings(name, &rules.all[..rules.all.len().min(8)], Now::at(1_001));
            assert!(held.iter().all(|standing| standing.count == 0), "{held:?}");
            assert!(admit(&shared, 1_001));
        }
    }

    /// Windows in seconds that reloads choose from, of each length of tick.
    const WINDOWS: [u32; 12] = [1, 2, 5, 30, 60, 90, 600, 3_600, 3_601, 7_200, 86_400, 604_800];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
        /// A limit that stays keeps its count; one that was away has its own or none.
        #[test]
        fn a_limit_counts_its_own_whatever_is_reloaded(
            steps in prop::collection::vec((any::<bool>(), 1u16..1 << 12, 0u64..400), 1..60),
        ) {
            let plan = |bits: u16| {
                let chosen = WINDOWS.into_iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).take(6);
                let default = chosen.map(|(_, window_s)| quota::Quota { count: 1_000, window_s }).collect();
                Plan { default, chat: vec![], table_bytes: 1 << 16, ..Plan::default() }
            };
            let mut shared = Shared::create(&plan(0b1111_1100_0000)).unwrap();
            // Of each window when it began, what it counted, and whether it was away since.
            let mut model: HashMap<u64, (u64, u32, bool)> = HashMap::new();
            let mut now_ms = 1_000_000;
            for (reloads, bits, pause) in steps {
                now_ms += pause * 100;
                if reloads {
                    shared = shared.reload(&plan(bits), &[]).unwrap();
                }
                let limits = &shared.rules.route(Endpoint::Api).limits;
                for (window_ms, known) in &mut model {
                    known.2 |= limits.iter().all(|limit| limit.window_ms != *window_ms);
                }
                prop_assert!(admit(&shared, now_ms));
                let held = shared.table.standings(shared.hash(Name::new(b'k', b"me")), limits, Now::at(now_ms));
                for (limit, standing) in limits.iter().zip(&held) {
                    let known = model.entry(limit.window_ms).or_insert((now_ms, 0, false));
                    let over = now_ms >= known.0 + limit.window_ms || (known.2 && standing.count == 1);
                    *known = if over { (now_ms, 1, false) } else { (known.0, known.1 + 1, false) };
                    prop_assert_eq!((limit.window_ms, standing.count), (limit.window_ms, known.1));
                }
            }
        }
    }

    #[test]
    fn a_plan_that_was_compiled_before_takes_no_more_memory() {
        let first = Shared::create(&Plan::default()).unwrap();
        let other = Plan { default: quota::parse("12/minute").unwrap(), ..Plan::default() };
        let second = first.reload(&other, &[first.rules]).unwrap();
        assert!(!std::ptr::eq(first.rules, second.rules));
        let known = [first.rules, second.rules];
        for (plan, rules) in [(&Plan::default(), first.rules), (&other, second.rules)] {
            assert!(std::ptr::eq(second.reload(plan, &known).unwrap().rules, rules));
        }
    }

    #[test]
    fn strange_memory_is_not_adopted() {
        let words = Words::create("test", 100_000).unwrap();
        assert!(Shared::adopt(words.as_fd().try_clone_to_owned().unwrap(), &Plan::default()).is_err());
        let small = Words::create("test", 8).unwrap();
        assert!(Shared::adopt(small.as_fd().try_clone_to_owned().unwrap(), &Plan::default()).is_err());
        let shared = Shared::create(&Plan::default()).unwrap();
        shared.words[AT_TABLE_WORDS].store(u64::MAX, SeqCst);
        assert!(Shared::adopt(shared.as_fd().try_clone_to_owned().unwrap(), &Plan::default()).is_err());
    }

    #[test]
    fn a_million_clients_take_at_most_90_mib() {
        // 0.75 of the places.
        let words = words_needed(1_000_000 * 64 * 3 / 4, 1);
        assert!(words * 8 <= 90 << 20, "{}", words * 8);
    }
}
