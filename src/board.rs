//! The board: what every process of the tree shows the others, in shared memory.
//!
//! ```text
//! [ header | ends | log | engine | senders ]  [ slot 0: worker words | lane 0 | lane 1 | … ]  [ slot 1 … ]  [ held, slot by slot ]  [ stacks ]
//! ```
//!
//! One writer a word: the master writes header and ends, a worker writes its own slot, its runtime threads their own lanes, the log process and the
//! engine their section. Readers take each word as it is; nothing here is a lock, and nothing read here is trusted:
//! the master shows it, and never indexes, signals or opens by it.

pub mod ends;
pub mod held;
pub mod stacks;
pub mod tally;

use crate::sys::{clock, shm::Words, stack};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Worker slots; a reload needs twice the workers for a while.
pub const SLOTS_MAX: usize = 128;
/// Runtime threads a worker may have.
pub const LANES_MAX: usize = 16;

const HEADER_WORDS: usize = 16;
const ENDS_WORDS: usize = ends::WORDS.next_multiple_of(16);
const LOG_WORDS: usize = 64;
const ENGINE_WORDS: usize = 16;
/// For each sender of log records: emitted, dropped, and the number that the log process expects next; a cache line
/// of its own, for workers count side by side.
const SENDER_WORDS: usize = 8;
/// Senders beside the workers: the master and the engine.
const SENDERS_MAX: usize = SLOTS_MAX + 2;
const SLOT_WORDS: usize = 16;
/// Whole cache lines: a lane's writes must not slow its neighbour's. The first two are its life, then its tally.
const LANE_WORDS: usize = TALLY_AT + tally::WORDS.next_multiple_of(16);
const TALLY_AT: usize = 16;
const SLOT_STRIDE: usize = SLOT_WORDS + LANES_MAX * LANE_WORDS;
const ENDS_AT: usize = HEADER_WORDS;
const LOG_AT: usize = ENDS_AT + ENDS_WORDS;
const SLOTS_AT: usize = LOG_AT + LOG_WORDS + ENGINE_WORDS + SENDERS_MAX * SENDER_WORDS;

/// Apart from the slots, for who counts or balances walks over those and not over these.
const HELD_AT: usize = SLOTS_AT + SLOTS_MAX * SLOT_STRIDE;
const STACKS_AT: usize = HELD_AT + SLOTS_MAX * held::WORDS;
const WORDS: usize = STACKS_AT + SLOTS_MAX * stack::WORDS;

/// What two programs that share a board must agree on; an upgrade to one that does not is refused.
pub const LAYOUT: [usize; 4] = [SLOTS_AT, SLOTS_MAX, SLOT_STRIDE, WORDS];

/// A lane that has not turned for so long does not take connections.
const LIVE_MS_MAX: u64 = 100;
/// A parked lane turns once a second, to beat; it may be late by half of that.
const PARKED_MS_MAX: u64 = 1_500;

/// The whole board. Cheap to copy: it is one reference into memory that lives as long as the process.
#[derive(Clone, Copy)]
pub struct Board {
    words: &'static [AtomicU64],
    file: BorrowedFd<'static>,
}

impl Board {
    /// A new board, all zero.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub fn create() -> io::Result<Board> {
        Ok(Board::over(Words::create("chatcorn-board", WORDS)?))
    }

    /// The board over words that another process created (the engine gets them by an exec).
    ///
    /// # Errors
    /// Not sealed shared memory, or too small to be a board.
    pub fn adopt(file: std::os::fd::OwnedFd) -> io::Result<Board> {
        let words = Words::map(file)?;
        if words.words().len() < WORDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "shared memory is too small for the board"));
        }
        Ok(Board::over(words))
    }

    fn over(words: Words) -> Board {
        let words: &'static Words = Box::leak(Box::new(words));
        Board { words: words.words(), file: words.as_fd() }
    }

    /// What the master counts.
    pub fn ends(&self) -> ends::Ends {
        ends::Ends::over(&self.words[ENDS_AT..][..ENDS_WORDS])
    }

    /// Words of the log process: records written, dropped and lost, by destination.
    pub fn log(&self) -> &'static [AtomicU64] {
        &self.words[LOG_AT..][..LOG_WORDS]
    }

    /// Words of the model engine: tokens, queue, cache.
    pub fn engine(&self) -> &'static [AtomicU64] {
        &self.words[LOG_AT + LOG_WORDS..][..ENGINE_WORDS]
    }

    /// The words of one sender of log records: emitted, dropped (its own), and the next number the log process expects.
    pub fn sender(&self, sender: Sender) -> &'static [AtomicU64] {
        let at = LOG_AT + LOG_WORDS + ENGINE_WORDS + sender.index() * SENDER_WORDS;
        &self.words[at..][..SENDER_WORDS]
    }

    /// The slot with this number, which the caller keeps below [`SLOTS_MAX`].
    pub fn slot(&self, number: usize) -> Slot {
        let number = number.min(SLOTS_MAX - 1);
        let part = |at: usize, words: usize| &self.words[at + number * words..][..words];
        Slot {
            words: part(SLOTS_AT, SLOT_STRIDE),
            held: part(HELD_AT, held::WORDS),
            stacks: part(STACKS_AT, stack::WORDS),
        }
    }

    /// The slots of all workers that accept, each with its number.
    pub fn ready(&self) -> impl Iterator<Item = (usize, Slot)> + use<> {
        self.opened().filter(|(_, slot)| slot.state() == State::Ready)
    }

    /// The slots that anybody ever used, each with its number.
    pub fn opened(&self) -> impl Iterator<Item = (usize, Slot)> + use<> {
        let board = *self;
        let opened = (self.words[OPENED].load(Relaxed) as usize).min(SLOTS_MAX);
        (0..opened).map(move |number| (number, board.slot(number)))
    }

    /// What the master knows of the engine.
    pub fn engine_state(&self) -> EngineState {
        match self.words[ENGINE_STATE].load(Relaxed) {
            1 => EngineState::Loading,
            2 => EngineState::Ready,
            3 => EngineState::Down,
            _ => EngineState::Absent,
        }
    }

    /// Set by the master alone.
    pub fn set_engine_state(&self, state: EngineState) {
        self.words[ENGINE_STATE].store(state as u64, Relaxed);
    }

    /// True for the first who asks, and for nobody after that.
    pub fn first(&self, what: Once) -> bool {
        let (word, bit) = (&self.words[ONCE], 1 << what as u32);
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
    }

    /// The master opens a slot for a worker that it is about to fork.
    pub fn open(&self, number: usize) -> Slot {
        self.words[OPENED].fetch_max(number as u64 + 1, Relaxed);
        let slot = self.slot(number);
        slot.open();
        slot
    }
}

impl AsFd for Board {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file
    }
}

const ENGINE_STATE: usize = 2;
/// One more than the highest slot ever opened: walks over the board end there.
const OPENED: usize = 3;
/// What happened once: a bit for each [`Once`].
const ONCE: usize = 4;

/// What is told once in the server's life, whichever process comes upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// `X-Forwarded-For` came from a peer that is no trusted proxy.
    ForwardedByStranger = 0,
}

/// The engine, as the workers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineState {
    /// None is configured: an upstream answers.
    Absent = 0,
    /// Started, the model is not loaded yet.
    Loading = 1,
    /// It answers.
    Ready = 2,
    /// It died and is not back yet.
    Down = 3,
}

/// Who sends log records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The master.
    Master,
    /// The engine.
    Engine,
    /// The worker in this slot.
    Slot(usize),
}

impl Sender {
    /// A number below the count of senders, stable over restarts.
    pub fn index(self) -> usize {
        match self {
            Sender::Master => 0,
            Sender::Engine => 1,
            Sender::Slot(number) => 2 + number.min(SLOTS_MAX - 1),
        }
    }
}

/// A worker's life as it shows on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody.
    Empty = 0,
    /// Forked, not ready.
    Booting = 1,
    /// It accepts.
    Ready = 2,
    /// It finishes what it has.
    Draining = 3,
}

/// One worker's words.
#[derive(Clone, Copy)]
pub struct Slot {
    words: &'static [AtomicU64],
    held: &'static [AtomicU64],
    stacks: &'static [AtomicU64],
}

impl Slot {
    const PID: usize = 0;
    const STATE: usize = 1;
    const SINCE_MS: usize = 2;
    const LANES: usize = 3;
    /// Entries of `held` that this life used.
    const HELD: usize = 4;

    /// Everything that belongs to one worker's life becomes zero; the counters of all lives stay.
    fn open(&self) {
        self.words[Self::PID].store(0, Relaxed);
        self.words[Self::STATE].store(State::Booting as u64, Relaxed);
        self.words[Self::SINCE_MS].store(clock::monotonic_ms(), Relaxed);
        self.words[Self::LANES].store(0, Relaxed);
        (0..LANES_MAX).for_each(|lane| self.lane(lane).clear());
        held::clear(self.held, &self.words[Self::HELD]);
        stacks::clear(self.stacks);
    }

    /// The master closes the slot of a worker that it has reaped.
    pub fn close(&self) {
        self.open();
        self.words[Self::STATE].store(State::Empty as u64, Relaxed);
    }

    /// The worker signs in.
    pub fn enter(&self, pid: u32, lanes: usize) {
        self.words[Self::PID].store(u64::from(pid), Relaxed);
        self.words[Self::LANES].store(lanes.min(LANES_MAX) as u64, Relaxed);
    }

    /// The worker's own view of its life.
    pub fn set_state(&self, state: State) {
        self.words[Self::STATE].store(state as u64, Relaxed);
    }

    /// See [`State`].
    pub fn state(&self) -> State {
        match self.words[Self::STATE].load(Relaxed) {
            1 => State::Booting,
            2 => State::Ready,
            3 => State::Draining,
            _ => State::Empty,
        }
    }

    /// Process id as the worker wrote it: for display only.
    pub fn pid(&self) -> u64 {
        self.words[Self::PID].load(Relaxed)
    }

    /// Monotonic milliseconds at which the master opened it.
    pub fn since_ms(&self) -> u64 {
        self.words[Self::SINCE_MS].load(Relaxed)
    }

    /// Lanes that the worker opened.
    pub fn lane_count(&self) -> usize {
        (self.words[Self::LANES].load(Relaxed) as usize).min(LANES_MAX)
    }

    /// How busy the whole worker is. A newcomer's handicap, which melts, keeps it from being given everything at once.
    pub fn weight(&self) -> u64 {
        let (weight, handicap) = self.lanes().fold((0u64, 0), |(weight, handicap), lane| {
            (weight.saturating_add(lane.weight()), u64::max(handicap, lane.handicap()))
        });
        weight.saturating_add(handicap)
    }

    /// The lanes that the worker opened.
    pub fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let slot = *self;
        (0..self.lane_count()).map(move |number| slot.lane(number))
    }

    /// How a lane of this worker, one of so many, shows the requests that it holds.
    pub fn holder(&self, lane: usize, lanes: usize) -> held::Holder {
        held::Holder::new(self.held, &self.words[Self::HELD], lane, lanes)
    }

    /// The requests under way, as the worker wrote them: for display only.
    pub fn held(&self, now_ms: u64) -> Vec<held::Held> {
        held::read(self.held, self.words[Self::HELD].load(Relaxed), now_ms)
    }

    /// Where the worker's threads leave their stacks.
    pub fn stack_words(&self) -> &'static [AtomicU64] {
        self.stacks
    }

    /// The stacks that they left: for display only.
    pub fn stacks(&self) -> Vec<stacks::Stack> {
        stacks::read(self.stacks)
    }

    /// Every lane, those of earlier lives too.
    pub fn all_lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let slot = *self;
        (0..LANES_MAX).map(move |number| slot.lane(number))
    }

    /// The lane with this number, below [`LANES_MAX`].
    pub fn lane(&self, number: usize) -> Lane {
        Lane { words: &self.words[SLOT_WORDS + number.min(LANES_MAX - 1) * LANE_WORDS..][..LANE_WORDS] }
    }
}

/// One runtime thread's words.
#[derive(Clone, Copy)]
pub struct Lane {
    words: &'static [AtomicU64],
}

impl Lane {
    const CONNECTIONS: usize = 0;
    const IN_FLIGHT: usize = 1;
    const HANDICAP: usize = 2;
    const BEAT_MS: usize = 8;
    const PARKED: usize = 9;
    const TURNS: usize = 10;
    /// Counts over all lives of the slot.
    const REQUESTS: usize = 11;

    fn clear(&self) {
        for word in [Self::CONNECTIONS, Self::IN_FLIGHT, Self::HANDICAP, Self::BEAT_MS, Self::PARKED, Self::TURNS] {
            self.words[word].store(0, Relaxed);
        }
    }

    /// Its requests' counters.
    pub fn tally(&self) -> tally::Tally {
        tally::Tally::over(&self.words[TALLY_AT..])
    }

    /// One connection more.
    pub fn connected(&self) {
        self.words[Self::CONNECTIONS].fetch_add(1, Relaxed);
    }

    /// One connection less.
    pub fn disconnected(&self) {
        self.words[Self::CONNECTIONS].fetch_sub(1, Relaxed);
    }

    /// One request begun.
    pub fn request_begun(&self) {
        self.words[Self::IN_FLIGHT].fetch_add(1, Relaxed);
        self.words[Self::REQUESTS].fetch_add(1, Relaxed);
    }

    /// One request ended, however it ended.
    pub fn request_ended(&self) {
        self.words[Self::IN_FLIGHT].fetch_sub(1, Relaxed);
    }

    /// Connections now.
    pub fn connections(&self) -> u64 {
        self.words[Self::CONNECTIONS].load(Relaxed)
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> u64 {
        self.words[Self::IN_FLIGHT].load(Relaxed)
    }

    /// Requests begun, over all lives of the slot.
    pub fn requests(&self) -> u64 {
        self.words[Self::REQUESTS].load(Relaxed)
    }

    /// How busy: connections, and those with a request count twice.
    pub fn weight(&self) -> u64 {
        self.connections().saturating_add(self.in_flight())
    }

    fn handicap(&self) -> u64 {
        self.words[Self::HANDICAP].load(Relaxed)
    }

    /// What a newcomer is taken to carry already.
    pub fn set_handicap(&self, connections: u64) {
        self.words[Self::HANDICAP].store(connections, Relaxed);
    }

    /// Halves the handicap; called about once a second.
    pub fn melt_handicap(&self) {
        let word = &self.words[Self::HANDICAP];
        word.store(word.load(Relaxed) / 2, Relaxed);
    }

    /// The loop turned: it is alive now.
    pub fn turn(&self, now_ms: u64) {
        self.words[Self::PARKED].store(0, Relaxed);
        self.words[Self::BEAT_MS].store(now_ms, Relaxed);
        self.words[Self::TURNS].fetch_add(1, Relaxed);
    }

    /// The loop has nothing to do and waits for the kernel.
    pub fn park(&self) {
        self.words[Self::PARKED].store(1, Relaxed);
    }

    /// True when both are the same loop's words.
    pub fn same(&self, other: &Lane) -> bool {
        std::ptr::eq(self.words, other.words)
    }

    /// How often the loop turned.
    pub fn turns(&self) -> u64 {
        self.words[Self::TURNS].load(Relaxed)
    }

    /// Milliseconds since the loop turned.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.words[Self::BEAT_MS].load(Relaxed))
    }

    /// True for a loop that would take a connection if one came.
    pub fn live(&self, now_ms: u64) -> bool {
        let parked = self.words[Self::PARKED].load(Relaxed) != 0;
        self.silent_ms(now_ms) <= if parked { PARKED_MS_MAX } else { LIVE_MS_MAX }
    }
}
