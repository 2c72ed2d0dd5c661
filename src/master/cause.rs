//! Why a process ended, in one word, for the metrics. Pure.

use super::death::By;
use super::report::Report;
use super::roster::Child;
use crate::board::ends::Ends;

/// What we say when we end a child, and the word for it, the first that fits.
const TOLD: [(&str, &str); 6] = [
    ("event loop", "hung"),
    ("not ready in time", "boot"),
    ("not end in time", "drain"),
    ("replaced", "replaced"),
    ("recycled", "recycled"),
    ("", "told"),
];

/// One of [`crate::board::ends::CAUSES`].
pub fn cause(child: &Child, by: By) -> &'static str {
    let told = || child.ended_for.as_deref().unwrap_or_default();
    match by {
        By::Us => TOLD.iter().find(|(part, _)| told().contains(part)).map_or("told", |(_, word)| *word),
        By::Oom => "oom",
        By::Outside => "killed",
        By::Fault => "crash",
        By::Itself => "exit",
    }
}

/// Counts what the metrics tell. What ends because the server does is no restart.
pub fn count(ends: Ends, report: &Report) {
    match report {
        Report::Ended { child, evidence, .. }
            if child.ended_for.as_deref().is_none_or(|why| !why.contains("server stops")) =>
        {
            ends.ended(child.kind.as_str(), cause(child, evidence.by));
        }
        Report::Reloaded { .. } => ends.reloaded(true),
        Report::ReloadRefused { .. } => ends.reloaded(false),
        Report::Upgraded => ends.upgraded(true),
        Report::UpgradeRefused { .. } => ends.upgraded(false),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::ends::CAUSES;
    use crate::master::roster::{Kind, Life};
    use std::time::Duration;

    #[test]
    fn every_end_has_a_word_that_is_counted() {
        let child = |why: Option<&'static str>| Child {
            id: 1,
            kind: Kind::Worker,
            pid: 1,
            slot: 0,
            generation: 0,
            life: Life::Ready,
            since: Duration::ZERO,
            was_ready: true,
            ended_for: why.map(Into::into),
            failed: None,
            worn: None,
        };
        let told = [
            (None, By::Outside, "killed"),
            (None, By::Oom, "oom"),
            (None, By::Fault, "crash"),
            (None, By::Itself, "exit"),
            (Some("its event loop did not turn"), By::Us, "hung"),
            (Some("it was not ready in time"), By::Us, "boot"),
            (Some("it did not end in time"), By::Us, "drain"),
            (Some("it was replaced by a reload"), By::Us, "replaced"),
            (Some("it was recycled: it has served 10 requests"), By::Us, "recycled"),
            (Some("something new"), By::Us, "told"),
        ];
        for (why, by, word) in told {
            assert_eq!(cause(&child(why), by), word);
            assert!(CAUSES.contains(&word));
        }
    }
}
