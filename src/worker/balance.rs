//! Who takes the next connection: the least busy worker that lives, on its first loop that has room. Pure but for the
//! board.
//!
//! The kernel wakes every loop that waits on a shared socket, and the first one up wins: plain shared accept gave 7
//! of 8 kept connections to one worker. So a loop takes one only while no live worker carries less by more than one
//! (then whoever is up first may have it, and nobody sleeps on it); who declines looks again in a millisecond, or when
//! one of its own connections has ended. Within a worker the connections stay together until one loop has [`LANE_LEAD`]
//! more than the next: a loop with many finds several requests each time it is woken, and the second thread sleeps until
//! it is needed (measured with 64 connections and 2 cores: 10 % more requests a second). Where the workers alone keep
//! all cores busy, it is needed late: there more threads than cores only wait for each other.

use crate::board::{Board, Lane, Slot};
use std::time::Duration;

/// Weight that a loop takes before the next one of its worker begins.
const LANE_LEAD: u64 = 32;
/// The same where there is no core for the second loops.
const LANE_LEAD_CROWDED: u64 = 256;
/// A worker may carry so much more than the least busy one and still take a connection.
const SLACK: u64 = 1;
/// How long a less busy loop is waited for before it is left out until it turns again.
const PATIENCE: Duration = Duration::from_millis(50);
/// A newcomer counts as carrying all but so many of what the others carry, and less each second.
const NEWCOMER_GAP_MAX: u64 = 4;

/// One loop's view of all.
pub struct Balance {
    board: Board,
    own: Lane,
    slot: usize,
    /// Among its worker's loops.
    number: u64,
    connections_max: u64,
    lane_lead: u64,
    blocked_since: Option<Duration>,
    /// Loops that did not take what was theirs, with their turns then.
    suspects: Vec<(Lane, u64)>,
}

impl Balance {
    /// For the loop `own` of the worker in `slot`, which holds at most `connections_max` connections. `roomy`: there
    /// are more cores than workers.
    pub fn new(board: Board, own: Lane, slot: usize, connections_max: u64, roomy: bool) -> Balance {
        let lane_lead = if roomy { LANE_LEAD } else { LANE_LEAD_CROWDED };
        let number = board.slot(slot).lanes().position(|lane| lane.same(&own)).unwrap_or_default() as u64;
        Balance { board, own, slot, number, connections_max, lane_lead, blocked_since: None, suspects: Vec::new() }
    }

    /// Sets this loop's handicap: it must not be given everything because it is new.
    pub fn enter(&self) {
        let others = self.board.ready().filter(|(number, _)| *number != self.slot);
        let least = others.map(|(_, slot)| slot.weight()).min().unwrap_or(0);
        self.own.set_handicap(least.saturating_sub(NEWCOMER_GAP_MAX));
    }

    /// True when no earlier loop of its worker is to take what comes: this one watches the door then.
    pub fn needed(&self, now_ms: u64) -> bool {
        self.earlier(now_ms)
            .all(|(number, lane)| lane.weight() + number * self.lane_lead >= self.number * self.lane_lead)
    }

    /// True when an earlier loop has so much room again that this one need not watch the door.
    pub fn superfluous(&self, now_ms: u64) -> bool {
        let threshold = self.number * self.lane_lead;
        self.earlier(now_ms)
            .any(|(number, lane)| lane.weight() + number * self.lane_lead < threshold - self.lane_lead / 2)
    }

    /// True when this loop carries so much that the next one of its worker is needed.
    pub fn has_lead(&self) -> bool {
        self.own.weight() >= self.lane_lead
    }

    /// The live loops of its worker before this one, with their numbers.
    fn earlier(&self, now_ms: u64) -> impl Iterator<Item = (u64, Lane)> {
        let lanes = (0u64..).zip(self.board.slot(self.slot).lanes());
        lanes.take_while(|(_, lane)| !lane.same(&self.own)).filter(move |(_, lane)| lane.live(now_ms))
    }

    /// True when this loop should take a connection that waits.
    pub fn takes(&mut self, now: Duration) -> bool {
        if self.worker_connections() >= self.connections_max {
            return false;
        }
        let now_ms = now.as_millis() as u64;
        self.suspects.retain(|(lane, turns)| lane.turns() == *turns);
        let lighter: Vec<Lane> = self.lighter(now_ms).collect();
        if lighter.is_empty() {
            self.blocked_since = None;
            return true;
        }
        let since = *self.blocked_since.get_or_insert(now);
        if now.saturating_sub(since) >= PATIENCE {
            self.suspects.extend(lighter.iter().map(|lane| (*lane, lane.turns())));
            self.blocked_since = None;
        }
        false
    }

    /// Nothing waits any more.
    pub fn calm(&mut self) {
        self.blocked_since = None;
    }

    /// The live loops that a waiting connection belongs to rather than to this one.
    fn lighter(&self, now_ms: u64) -> impl Iterator<Item = Lane> {
        let worker = self.board.slot(self.slot);
        let weight = worker.weight();
        let suspected = |lane: &Lane| self.suspects.iter().any(|(suspect, _)| suspect.same(lane));
        let less = move |least: u64| least.saturating_add(SLACK) < weight;
        let workers = self.board.ready().filter(move |(number, slot)| *number != self.slot && less(slot.weight()));
        let others = workers.flat_map(|(_, slot)| slot.lanes());
        others.chain(self.siblings(worker)).filter(move |lane| lane.live(now_ms) && !suspected(lane))
    }

    fn siblings(&self, worker: Slot) -> impl Iterator<Item = Lane> {
        let rank = self.own.weight() + self.number * self.lane_lead;
        let ranked = worker.lanes().enumerate();
        ranked
            .filter(move |(number, lane)| lane.weight() + *number as u64 * self.lane_lead < rank)
            .map(|(_, lane)| lane)
    }

    fn worker_connections(&self) -> u64 {
        self.board.slot(self.slot).lanes().map(|lane| lane.connections()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::State;

    const MS: Duration = Duration::from_millis(1);

    fn two_workers() -> (Board, Lane, Lane) {
        let board = Board::create().unwrap();
        for number in 0..2 {
            let slot = board.open(number);
            slot.enter(100 + number as u32, 1);
            slot.set_state(State::Ready);
            slot.lane(0).turn(1000);
        }
        (board, board.slot(0).lane(0), board.slot(1).lane(0))
    }

    #[test]
    fn the_busier_declines_and_the_lighter_takes() {
        let (board, one, two) = two_workers();
        let takes = |lane, slot| Balance::new(board, lane, slot, 100, true).takes(MS * 1001);
        one.connected();
        assert!(takes(one, 0) && takes(two, 1), "one more is no matter");
        one.connected();
        assert!(!takes(one, 0) && takes(two, 1));
        two.connected();
        assert!(takes(one, 0));
    }

    #[test]
    fn a_loop_that_does_not_turn_is_left_out() {
        let (board, one, two) = two_workers();
        (0..2).for_each(|_| one.connected());
        let mut balance = Balance::new(board, one, 0, 10, true);
        assert!(balance.takes(MS * 1200), "silent for 200 ms, so not live");
        two.turn(1200);
        two.park();
        assert!(!balance.takes(MS * 1300), "parked loops are silent");
        assert!(!balance.takes(MS * 1351), "patience ends here");
        assert!(balance.takes(MS * 1352), "a suspect is left out");
        two.turn(1360);
        assert!(!balance.takes(MS * 1361), "it turned, so it counts again");
    }

    #[test]
    fn a_full_worker_declines() {
        let (board, one, _) = two_workers();
        one.connected();
        assert!(!Balance::new(board, one, 0, 1, true).takes(MS * 5000));
    }

    #[test]
    fn a_newcomer_is_handicapped() {
        let (board, one, two) = two_workers();
        (0..10).for_each(|_| one.connected());
        Balance::new(board, two, 1, 100, true).enter();
        assert_eq!(board.slot(1).weight(), 6);
        two.melt_handicap();
        assert_eq!(board.slot(1).weight(), 3);
    }

    #[test]
    fn a_second_loop_waits_until_the_first_has_its_lead() {
        lead_of(LANE_LEAD, true);
        lead_of(LANE_LEAD_CROWDED, false);
    }

    fn lead_of(lead: u64, roomy: bool) {
        let board = Board::create().unwrap();
        let worker = board.open(0);
        worker.enter(100, 2);
        worker.set_state(State::Ready);
        let (first, second) = (worker.lane(0), worker.lane(1));
        let takes = |lane: Lane| Balance::new(board, lane, 0, 1000, roomy).takes(MS * 1001);
        [first, second].iter().for_each(|lane| lane.turn(1000));
        assert!(takes(first) && !takes(second));
        let (mine, its) = (Balance::new(board, first, 0, 1000, roomy), Balance::new(board, second, 0, 1000, roomy));
        assert!(mine.needed(1001) && !mine.superfluous(1001) && !mine.has_lead());
        assert!(!its.needed(1001) && its.superfluous(1001));
        assert!(its.needed(1200) && !its.superfluous(1200), "the first has been silent for 200 ms");
        (0..lead).for_each(|_| first.connected());
        assert!(mine.has_lead() && its.needed(1001) && !its.superfluous(1001));
        assert!(takes(first) && takes(second), "equal: either");
        first.connected();
        assert!(!takes(first) && takes(second));
        (0..lead / 2).for_each(|_| first.disconnected());
        assert!(!its.needed(1001) && !its.superfluous(1001), "no coming and going at the threshold");
    }
}
