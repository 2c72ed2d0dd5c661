//! Leaving without losing a request.
//!
//! ```text
//! Drain ─▶ not ready (delay) ─▶ stop accepting, `Connection: close` ─▶ grace ─▶ idle connections closed
//!                                                 └─ nobody left: gone            └─ limit: streams end with an event
//! ```
//! A kept connection that brings one more request within the grace is served: its client had no way to know.

use super::link::ToWorker;
use crate::board::{Slot, State};
use crate::http::leaving::Leaving;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, timeout};

/// How often the connections are counted.
const COUNT_EVERY: Duration = Duration::from_millis(10);
/// What streams get to send their last event.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// The switches that a drain turns, one after the other.
pub struct Switches {
    /// As requests see it.
    pub leaving: Arc<Leaving>,
    /// Ends the accept loops.
    pub stop_accepting: watch::Sender<bool>,
    /// Ends the streams.
    pub ending: watch::Sender<bool>,
}

/// Runs the drain to its end; the caller leaves then.
pub async fn run(message: ToWorker, slot: Slot, switches: &Switches) {
    let ToWorker::Drain { limit, grace, delay } = message else { return };
    switches.leaving.announce();
    sleep(delay).await;
    let began = Instant::now();
    slot.set_state(State::Draining);
    switches.leaving.close_after_answers();
    switches.stop_accepting.send_replace(true);
    if timeout(grace, gone(slot)).await.is_ok() {
        return;
    }
    switches.leaving.shut_idle();
    let rest = limit.saturating_sub(began.elapsed());
    if timeout(rest, gone(slot)).await.is_ok() {
        return;
    }
    switches.ending.send_replace(true);
    let _ = timeout(LAST_WORDS, gone(slot)).await;
}

/// Returns when no connection is left.
async fn gone(slot: Slot) {
    let mut ticks = interval(COUNT_EVERY);
    loop {
        ticks.tick().await;
        let open = (0..slot.lane_count()).map(|number| slot.lane(number).connections()).sum::<u64>();
        if open == 0 {
            return;
        }
    }
}
