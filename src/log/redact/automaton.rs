//! All literals in one table. A byte is one look-up in it, and what a text's walk through it costs is known.
//!
//! The rows are in the order of their price: those where literals end, those close to the start, which every text walks
//! and which stay in the processor's nearest cache, and those deep inside of literals, which a text that was made for it
//! walks from cache line to cache line.

use aho_corasick::automaton::{Automaton as _, StateID};
use aho_corasick::dfa::DFA;
use aho_corasick::{Anchored, BuildError, MatchKind, StartKind};
use std::collections::{HashMap, HashSet};

/// Rows of literals' first bytes are cheap so far from the start.
const CLOSE: u32 = 2;

/// Where a walk stands: the offset of its row.
pub(super) type State = u32;

/// A literal that ends: its number and its length.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) literal: u16,
    pub(super) length: u16,
}

/// The table, and what ends in its first rows.
pub(super) struct Automaton {
    classes: [u8; 256],
    width: u32,
    table: Vec<State>,
    start: State,
    /// Rows before this offset have hits; from the other one on they are deep.
    matching: State,
    deep: State,
    hits: Vec<Hit>,
    /// Of each row that has some, where its hits begin.
    begins: Vec<u32>,
}

impl Automaton {
    /// The automaton of these literals, whatever the case of their letters.
    pub(super) fn of(literals: &[String]) -> Result<Automaton, BuildError> {
        let dfa = DFA::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .start_kind(StartKind::Unanchored)
            .prefilter(false)
            .build(literals)?;
        let (classes, bytes) = classes(literals);
        let mut states = reached(&dfa, &bytes);
        states.sort_by_key(|(state, depth)| if dfa.is_match(*state) { 0 } else { *depth + 1 });
        let width = bytes.len() as u32;
        let offsets: HashMap<StateID, State> =
            (0..).map(|row| row * width).zip(&states).map(|(at, of)| (of.0, at)).collect();
        let ended = states.iter().take_while(|(state, _)| dfa.is_match(*state));
        let (mut hits, mut begins) = (Vec::new(), vec![0]);
        for (state, _) in ended {
            let patterns = (0..dfa.match_len(*state)).map(|index| dfa.match_pattern(*state, index));
            hits.extend(patterns.map(|id| Hit { literal: id.as_usize() as u16, length: dfa.pattern_len(id) as u16 }));
            begins.push(hits.len() as u32);
        }
        let matching = (begins.len() - 1) as u32 * width;
        let close = states.iter().filter(|(state, depth)| dfa.is_match(*state) || *depth <= CLOSE).count();
        let row = |(state, _): &(StateID, u32)| {
            let nexts = bytes.iter().map(|byte| offsets[&dfa.next_state(Anchored::No, *state, *byte)]);
            nexts.collect::<Vec<State>>()
        };
        let table = states.iter().flat_map(row).collect();
        let start = dfa.start_state(Anchored::No).map_or(0, |start| offsets[&start]);
        Ok(Automaton { classes, width, table, start, matching, deep: close as u32 * width, hits, begins })
    }

    pub(super) fn start(&self) -> State {
        self.start
    }

    #[inline]
    pub(super) fn next(&self, state: State, byte: u8) -> State {
        self.table[state as usize + usize::from(self.classes[usize::from(byte)])]
    }

    #[inline]
    pub(super) fn is_match(&self, state: State) -> bool {
        state < self.matching
    }

    #[inline]
    pub(super) fn is_deep(&self, state: State) -> bool {
        state >= self.deep
    }

    /// Where a walk from the start stands after this byte.
    pub(super) fn after(&self, byte: u8) -> State {
        self.next(self.start, byte)
    }

    /// What ends where the walk stands.
    pub(super) fn hits(&self, state: State) -> &[Hit] {
        let row = (state / self.width) as usize;
        &self.hits[self.begins[row] as usize..self.begins[row + 1] as usize]
    }
}

/// Bytes that no literal has are one class; each other is its own, but for a letter's case. A byte of each class.
fn classes(literals: &[String]) -> ([u8; 256], Vec<u8>) {
    let (mut classes, mut bytes) = ([0; 256], vec![0]);
    for byte in literals.iter().flat_map(|literal| literal.bytes()) {
        let small = byte.to_ascii_lowercase();
        if classes[usize::from(small)] == 0 {
            classes[usize::from(small)] = bytes.len() as u8;
            classes[usize::from(small.to_ascii_uppercase())] = bytes.len() as u8;
            bytes.push(small);
        }
    }
    (classes, bytes)
}

/// Every state, and how far it is from the start.
fn reached(dfa: &DFA, bytes: &[u8]) -> Vec<(StateID, u32)> {
    let Ok(start) = dfa.start_state(Anchored::No) else { return Vec::new() };
    let mut states = vec![(start, 0)];
    let mut known = HashSet::from([start]);
    let mut at = 0;
    while let Some((state, depth)) = states.get(at).copied() {
        for byte in bytes {
            let next = dfa.next_state(Anchored::No, state, *byte);
            if known.insert(next) {
                states.push((next, depth + 1));
            }
        }
        at += 1;
    }
    states
}
