//! Looks for lines that are slow to redact: an evolution of short recipes, of which the slowest are changed a little, cut
//! and joined, again and again, on islands first and together in the end.

use crate::{INPUTS, cpu, ordinary, rate};
use chatcorn::log::redact::{Redactor, Trail};
use std::hint::black_box;
use std::time::{Duration, SystemTime};

/// Tries of one search at 1 KiB, unless told.
pub(crate) const TRIES: usize = 40_000;
/// Tries of the search at each shorter length.
const SHORT_TRIES: usize = 4_000;
const LENGTHS: [usize; 7] = [8, 16, 32, 64, 128, 256, 512];
const WHOLE: usize = 1024;
const ISLANDS: usize = 5;
/// So many of a population live.
const LIVING: usize = 24;
const PIECE_BYTES_MAX: usize = 72;

/// A piece that is repeated, and another that the rest of the line is made of.
#[derive(Clone, PartialEq)]
struct Recipe {
    first: Vec<u8>,
    then: Vec<u8>,
    /// Of 256: how much of the line the first takes.
    share: usize,
}

impl Recipe {
    fn line(&self, length: usize) -> Vec<u8> {
        let first = length * self.share / 256;
        let head = self.first.iter().cycle().take(first);
        head.chain(self.then.iter().cycle().take(length - first)).copied().collect()
    }

    fn shown(&self) -> String {
        match self.share {
            0 => format!("\"{}\"", self.then.escape_ascii()),
            share => format!("{share}/256 \"{}\", \"{}\"", self.first.escape_ascii(), self.then.escape_ascii()),
        }
    }
}

/// The search: its dice, its words, and who lives.
struct Hunt<'a> {
    redactor: &'a Redactor,
    dice: u64,
    words: Vec<Vec<u8>>,
    length: usize,
    living: Vec<(f64, Recipe)>,
    /// Looks for lines that take more than they are charged, and not for slow ones.
    audits: bool,
}

/// How often the slowest are measured beside ordinary lines.
const TURNS: usize = 31;

/// The slowest line of 1 KiB that a search of so many tries finds, as a multiple of the ordinary cost; prints the slowest
/// few. Each is measured in turns with ordinary lines, for the machine's own speed changes; of the turns the median
/// counts.
pub(crate) fn hunt(redactor: &Redactor, tries: usize) -> f64 {
    let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64) | 1;
    println!("\nfound by {tries} tries at slower ones (seed {seed}):");
    let mut hunt = Hunt::new(redactor, seed, WHOLE);
    hunt.run(tries);
    let beside = ordinary();
    let mut slowest = Vec::new();
    for (_, recipe) in hunt.living.into_iter().take(8) {
        let (line, mut turns) = (recipe.line(WHOLE), Vec::new());
        for _ in 0..TURNS {
            let usual = beside.iter().map(|line| nanoseconds(redactor, line)).sum::<f64>() / beside.len() as f64;
            let slow = nanoseconds(redactor, &line);
            turns.push((slow / usual, slow, usual));
        }
        turns.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (times, slow, usual) = turns[TURNS / 2];
        let charged = charged(redactor, &line);
        let taken = slow * WHOLE as f64;
        println!(
            "{:<36} {:>8.0}  {times:>5.2}x of {:.0}; {taken:.0} ns taken, {charged:.0} charged",
            recipe.shown(),
            1e3 / slow,
            1e3 / usual
        );
        slowest.push(times);
    }
    slowest.into_iter().fold(0.0, f64::max)
}

/// The same for shorter lines, each length beside ordinary lines cut to it: a call costs something before its first
/// byte.
pub(crate) fn hunt_short(redactor: &Redactor) {
    println!("\n{:<36} {:>8}  {:>6}  {:>6}", "shorter lines", "MB/s", "worst", "cost");
    for length in LENGTHS {
        let pieces: Vec<Vec<u8>> =
            ordinary().iter().flat_map(|line| line.chunks_exact(length)).map(<[u8]>::to_vec).collect();
        let normal = rate(redactor, &pieces);
        let mut hunt = Hunt::new(redactor, 0x9e37_79b9_7f4a_7c15 ^ length as u64, length);
        hunt.run(SHORT_TRIES);
        let worst = &hunt.living[0].1;
        let slow = 1e3 / (0..20).map(|_| nanoseconds(redactor, &worst.line(length))).fold(f64::MAX, f64::min);
        println!("{length:<36} {normal:>8.0}  {slow:>6.0}  {:>5.1}x  {}", normal / slow, worst.shown());
    }
}

impl Hunt<'_> {
    fn new(redactor: &Redactor, seed: u64, length: usize) -> Hunt<'_> {
        let literals = chatcorn::log::redact::literals();
        let pieces = GLUE.iter().chain(INPUTS.iter().map(|(_, piece)| piece)).map(|piece| piece.as_bytes().to_vec());
        let words = literals.into_iter().map(String::into_bytes).chain(pieces).collect();
        Hunt { redactor, dice: seed, words, length, living: Vec::new(), audits: false }
    }

    fn run(&mut self, tries: usize) {
        let mut landed = Vec::new();
        for _ in 0..ISLANDS {
            self.living.clear();
            (0..tries / (ISLANDS + 1)).for_each(|round| self.step(round < 300));
            landed.append(&mut self.living);
        }
        self.living = landed;
        (0..tries / (ISLANDS + 1)).for_each(|_| self.step(false));
        for (cost, recipe) in &mut self.living {
            *cost = cost.min(worth(self.redactor, &recipe.line(self.length), self.audits));
        }
        self.living.sort_by(|a, b| b.0.total_cmp(&a.0));
    }

    fn step(&mut self, fresh: bool) {
        let recipe = if fresh || self.living.len() < 2 { self.fresh() } else { self.child() };
        if recipe.then.is_empty() || recipe.first.is_empty() || self.living.iter().any(|(_, known)| *known == recipe) {
            return;
        }
        let again = self.roll(4 * LIVING);
        if let Some((cost, recipe)) = self.living.get_mut(again) {
            // What was slow because others used the machine is not slow again.
            *cost = cost.min(worth(self.redactor, &recipe.line(self.length), self.audits));
        }
        self.living.push((worth(self.redactor, &recipe.line(self.length), self.audits), recipe));
        self.living.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.living.truncate(LIVING);
    }

    fn fresh(&mut self) -> Recipe {
        let piece: Vec<u8> = (0..1 + self.roll(5)).flat_map(|_| self.word()).collect();
        Recipe { first: piece.clone(), then: piece, share: 0 }
    }

    fn child(&mut self) -> Recipe {
        let parent = self.roll(self.living.len());
        let mut child = self.living[parent].1.clone();
        for _ in 0..1 + self.roll(3) {
            match self.roll(10) {
                0 => child.share = self.roll(256),
                1 => {
                    child.share = 0;
                    child.first = child.then.clone();
                }
                2 => std::mem::swap(&mut child.first, &mut child.then),
                3..5 => child.first = self.changed(child.first),
                _ => child.then = self.changed(child.then),
            }
        }
        child
    }

    /// One small change of a piece, or a part of another one in it.
    fn changed(&mut self, mut piece: Vec<u8>) -> Vec<u8> {
        let (at, to) = (self.roll(piece.len() + 1), self.roll(piece.len() + 1));
        let (at, to) = (at.min(to), at.max(to));
        let other = self.roll(self.living.len());
        match self.roll(7) {
            0 => drop(piece.drain(at..to)),
            1 => drop(piece.splice(at..at, self.word())),
            2 => drop(piece.splice(at..to, self.word())),
            3 => {
                let again = piece[at..to].to_vec();
                drop(piece.splice(to..to, again));
            }
            4 => {
                let part = self.living[other].1.then.clone();
                let from = self.roll(part.len() + 1);
                drop(piece.splice(at.., part[from..].iter().copied()));
            }
            5 if at < piece.len() => drop(piece.remove(at)),
            _ if at < piece.len() => piece[at] = ODD[self.roll(ODD.len())],
            _ => piece.push(ODD[self.roll(ODD.len())]),
        }
        piece.truncate(PIECE_BYTES_MAX);
        piece
    }

    fn word(&mut self) -> Vec<u8> {
        let at = self.roll(self.words.len());
        self.words[at].clone()
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice % sides as u64) as usize
    }
}

/// What a byte costs when nothing is looked at closely, in nanoseconds, and a line.
const PLAIN_BYTE: f64 = 2.25;
const PLAIN_LINE: f64 = 150.0;

/// What one survives by: nanoseconds a byte, or how many times what is charged.
fn worth(redactor: &Redactor, line: &[u8], audits: bool) -> f64 {
    let taken = nanoseconds(redactor, line);
    if audits { taken * line.len() as f64 / charged(redactor, line) } else { taken }
}

fn charged(redactor: &Redactor, line: &[u8]) -> f64 {
    redactor.charge(line) as f64 + PLAIN_LINE + PLAIN_BYTE * line.len() as f64
}

/// The lines of 1 KiB that take most of what they are charged: where the prices are wrong.
pub(crate) fn audit(redactor: &Redactor, tries: usize) {
    let seed = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64) | 1;
    println!("lines that take more than they are charged, {tries} tries (seed {seed}): times, taken, charged, ns");
    let mut hunt = Hunt::new(redactor, seed, WHOLE);
    hunt.audits = true;
    hunt.run(tries);
    for (times, recipe) in &hunt.living {
        let line = recipe.line(WHOLE);
        let taken = nanoseconds(redactor, &line) * WHOLE as f64;
        println!("{times:>5.2} {taken:>7.0} {:>7.0}  {}", charged(redactor, &line), recipe.shown());
    }
}

/// Nanoseconds a byte, the best of a few short looks: enough to choose by. Two lines of a text each time, for the first
/// may leave something open.
fn nanoseconds(redactor: &Redactor, line: &[u8]) -> f64 {
    let times = WHOLE / line.len();
    let look = |_| {
        let begun = cpu();
        for _ in 0..times {
            let mut trail = Trail::default();
            black_box(redactor.line_after(black_box(line), &mut trail));
            black_box(redactor.line_after(black_box(line), &mut trail));
        }
        cpu() - begun
    };
    let best: Duration = (0..5).map(look).min().unwrap_or_default();
    best.as_nanos() as f64 / (2 * times * line.len()) as f64
}

/// Bytes that mean something to somebody.
const ODD: &[u8] =
    b" \t\r\n\"'`\\/%&#;:=<>()[]{}|,.!?@$*~^+-_aAeEfFgGhHkKlLmMnNpPqQrRsStTuUxXyYzZ0123456789\x00\x7f\x80\xc3\xa9\xff";

const GLUE: &[&str] = &[
    " ",
    "=",
    ":",
    ": ",
    "\"",
    "'",
    "\\\"",
    "\\\\\\\"",
    "\\n",
    "\\\\n",
    "\n",
    "a",
    "1",
    "aB3",
    "a1b2c3d4",
    "/",
    "@",
    "?",
    "&",
    "<",
    ">",
    "(",
    "[",
    "{",
    "}",
    "]",
    ")",
    "name=\"",
    "value=\"",
    ",",
    ";",
    "-",
    "--",
    "_",
    ".",
    "%3d",
    "%22",
    "\\u003a",
    "&quot;",
    "x",
    "Digest ",
    "Basic ",
    "BEGIN ",
    "-----END",
    "user:pass",
    "0123456789abcdef",
    "$",
    "|",
    "is ",
    "`",
    "==",
    "\r\n\r\n",
    "\\r\\n\\r\\n",
    "Content-Disposition: form-data; name=",
    "eyJhbGciOiJIUzI1NiJ9.",
    "QWxhZGRpbjpvcGVu",
];
