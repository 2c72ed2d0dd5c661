//! Who takes the next connection: the least busy loop that lives. Pure but for the board.
//!
//! The kernel wakes every loop that waits on a shared socket, and the first one up wins: plain shared accept gave 7
//! of 8 kept connections to one worker. So a loop takes one only while no live loop carries less; who declines looks
//! again in a millisecond.

use crate::board::{Board, Lane};
use std::time::Duration;

/// How long a less busy loop is waited for before it is left out until it turns again.
const PATIENCE: Duration = Duration::from_millis(20);
/// A newcomer counts as carrying all but so many of what the others carry, and less each second.
const NEWCOMER_GAP_MAX: u64 = 4;

/// One loop's view of all.
pub struct Balance {
    board: Board,
    own: Lane,
    slot: usize,
    connections_max: u64,
    blocked_since: Option<Duration>,
    /// Loops that did not take what was theirs, with their turns then.
    suspects: Vec<(Lane, u64)>,
}

impl Balance {
    /// For the loop `own` of the worker in `slot`, which holds at most `connections_max` connections.
    pub fn new(board: Board, own: Lane, slot: usize, connections_max: u64) -> Balance {
        Balance { board, own, slot, connections_max, blocked_since: None, suspects: Vec::new() }
    }

    /// Sets this loop's handicap: it must not be given everything because it is new.
    pub fn enter(&self) {
        let least = self.board.lanes().map(|lane| lane.weight()).min().unwrap_or(0);
        self.own.set_handicap(least.saturating_sub(NEWCOMER_GAP_MAX));
    }

    /// True when this loop should take a connection that waits.
    pub fn takes(&mut self, now: Duration) -> bool {
        if self.worker_connections() >= self.connections_max {
            return false;
        }
        let own = self.own.weight();
        let now_ms = now.as_millis() as u64;
        self.suspects.retain(|(lane, turns)| lane.turns() == *turns);
        let lighter: Vec<Lane> = self.lighter(own, now_ms).collect();
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

    fn lighter(&self, own: u64, now_ms: u64) -> impl Iterator<Item = Lane> {
        let suspected = |lane: &Lane| self.suspects.iter().any(|(suspect, _)| suspect.same(lane));
        self.board.lanes().filter(move |lane| lane.weight() < own && lane.live(now_ms) && !suspected(lane))
    }

    fn worker_connections(&self) -> u64 {
        let slot = self.board.slot(self.slot);
        (0..slot.lane_count()).map(|number| slot.lane(number).connections()).sum()
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
        one.connected();
        assert!(!Balance::new(board, one, 0, 10).takes(MS * 1001));
        assert!(Balance::new(board, two, 1, 10).takes(MS * 1001));
        two.connected();
        assert!(Balance::new(board, one, 0, 10).takes(MS * 1001));
    }

    #[test]
    fn a_loop_that_does_not_turn_is_left_out() {
        let (board, one, two) = two_workers();
        one.connected();
        let mut balance = Balance::new(board, one, 0, 10);
        assert!(balance.takes(MS * 1200), "silent for 200 ms, so not live");
        two.turn(1200);
        two.park();
        assert!(!balance.takes(MS * 1300), "parked loops are silent");
        assert!(!balance.takes(MS * 1321), "patience ends here");
        assert!(balance.takes(MS * 1322), "a suspect is left out");
        two.turn(1330);
        assert!(!balance.takes(MS * 1331), "it turned, so it counts again");
    }

    #[test]
    fn a_full_worker_declines() {
        let (board, one, _) = two_workers();
        one.connected();
        assert!(!Balance::new(board, one, 0, 1).takes(MS * 5000));
    }

    #[test]
    fn a_newcomer_is_handicapped() {
        let (board, one, two) = two_workers();
        (0..10).for_each(|_| one.connected());
        Balance::new(board, two, 1, 100).enter();
        assert_eq!(two.weight(), 0, "the least busy carries nothing: itself");
        board.slot(1).set_state(State::Booting);
        Balance::new(board, two, 1, 100).enter();
        assert_eq!(two.weight(), 6);
        two.melt_handicap();
        assert_eq!(two.weight(), 3);
    }
}
