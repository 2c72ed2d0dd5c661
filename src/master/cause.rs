//! Why a process ended, in one word, for the metrics. Pure.

use super::report::Report;
use super::roster::Child;
use crate::board::ends::Ends;
use crate::sys::wait::How;
use nix::sys::signal::Signal;

/// What we say when we end a child, and the word for it, the first that fits.
const TOLD: [(&str, &str); 8] = [
    ("memory", "oom"),
    ("event loop", "hung"),
    ("not ready in time", "boot"),
    ("not end in time", "drain"),
    ("replaced", "replaced"),
    ("max-requests", "recycled"),
    ("max-rss", "recycled"),
    ("", "told"),
];

/// One of [`crate::board::ends::CAUSES`].
pub fn cause(child: &Child, how: How) -> &'static str {
    match (child.ended_for.as_deref(), how) {
        (Some(why), _) => TOLD.iter().find(|(part, _)| why.contains(part)).map_or("told", |(_, word)| *word),
        (None, How::Signal(signal)) if signal == Signal::SIGKILL as i32 => "killed",
        (None, How::Signal(_)) => "crash",
        (None, How::Code(_)) => "exit",
    }
}

/// Counts what the metrics tell. What ends because the server does is no restart.
pub fn count(ends: Ends, report: &Report) {
    match report {
        Report::Ended { child, how, .. }
            if child.ended_for.as_deref().is_none_or(|why| !why.contains("server stops")) =>
        {
            ends.ended(child.kind.as_str(), cause(child, *how));
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
        };
        let told = [
            (None, How::Signal(9), "killed"),
            (None, How::Signal(6), "crash"),
            (None, How::Code(1), "exit"),
            (Some("its event loop did not turn"), How::Signal(9), "hung"),
            (Some("it was not ready in time"), How::Signal(9), "boot"),
            (Some("it did not end in time"), How::Signal(9), "drain"),
            (Some("it was replaced by a reload"), How::Code(0), "replaced"),
            (Some("something new"), How::Code(0), "told"),
        ];
        for (why, how, word) in told {
            assert_eq!(cause(&child(why), how), word);
            assert!(CAUSES.contains(&word));
        }
    }
}
