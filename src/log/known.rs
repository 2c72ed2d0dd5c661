//! Access lines that differ only in numbers from one that the redactor has read: it need not read them again.
//!
//! Between two such lines change the time, the client's address, the status, counts, durations and an id of our own
//! making; what a client chose (method, path, user agent) is the same. The second of a kind is read by its worker, and
//! if there is nothing in it the next ones travel marked (`record`). Reading a line costs the log process more than all
//! else that it does with it. Deliberately absent: marks for lines of an operator's layout or with an operator's
//! patterns, which may look at numbers too.

use super::access::Record;

/// Kinds that a thread remembers: a few clients with a few routes each.
const KINDS: usize = 8;
/// A kind with longer texts is not remembered.
const TEXT_BYTES_MAX: usize = 256;
/// Between the texts; no text has it, for it is not UTF-8.
const BETWEEN: u8 = 0xff;

/// The kinds that a thread has met last.
#[derive(Default)]
pub(super) struct Known {
    generation: u32,
    kinds: [Kind; KINDS],
    /// The place of the next new one.
    next: usize,
}

#[derive(Default)]
struct Kind {
    text: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Met,
    Clean,
    Suspicious,
}

/// What is known of a record's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Nothing; the log process looks.
    New,
    /// Met before and to be judged by the line: then call [`Known::judged`] with this.
    Again(usize),
    /// Nothing in it needs redaction.
    Clean,
}

impl Known {
    /// What is known of this record's kind in the sink of this generation; a new kind is remembered.
    pub(super) fn sight(&mut self, generation: u32, record: &Record<'_>) -> Sight {
        if self.generation != generation {
            *self = Known { generation, ..Known::default() };
        }
        if !record.own_id {
            return Sight::New;
        }
        let texts = texts(record);
        let Some(at) = self.kinds.iter().position(|kind| kind.is(&texts)) else {
            self.meet(&texts);
            return Sight::New;
        };
        match self.kinds[at].state {
            State::Met => Sight::Again(at),
            State::Clean => Sight::Clean,
            State::Suspicious => Sight::New,
        }
    }

    /// Keeps what a look at a line of this kind has found.
    pub(super) fn judged(&mut self, at: usize, clean: bool) {
        self.kinds[at].state = if clean { State::Clean } else { State::Suspicious };
    }

    fn meet(&mut self, texts: &[&str; 5]) {
        if texts.iter().map(|text| text.len() + 1).sum::<usize>() > TEXT_BYTES_MAX {
            return;
        }
        let kind = &mut self.kinds[self.next];
        self.next = (self.next + 1) % KINDS;
        kind.state = State::Met;
        kind.text.clear();
        for text in texts {
            kind.text.extend_from_slice(text.as_bytes());
            kind.text.push(BETWEEN);
        }
    }
}

/// What of a record a client or a verdict decides.
fn texts<'a>(record: &Record<'a>) -> [&'a str; 5] {
    [record.path, record.user_agent.unwrap_or_default(), record.method, record.verdict, record.protocol]
}

impl Kind {
    fn is(&self, texts: &[&str; 5]) -> bool {
        let mut rest = &self.text[..];
        for text in texts {
            match rest.strip_prefix(text.as_bytes()) {
                Some([BETWEEN, after @ ..]) => rest = after,
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::tests::record;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_second_of_a_kind_is_judged_and_the_next_are_known() {
        let (mut known, record) = (Known::default(), record());
        assert_eq!(known.sight(1, &record), Sight::New);
        let Sight::Again(at) = known.sight(1, &record) else { panic!("met before") };
        known.judged(at, true);
        assert_eq!(known.sight(1, &Record { status: 404, worker: 3, bytes_out: 9, ..record.clone() }), Sight::Clean);
        assert_eq!(known.sight(1, &Record { path: "/api/chat2", ..record.clone() }), Sight::New);
        assert_eq!(known.sight(1, &Record { own_id: false, ..record.clone() }), Sight::New);
        assert_eq!(known.sight(2, &record), Sight::New, "another sink has another redactor");
    }

    #[test]
    fn what_is_suspicious_stays_so() {
        let (mut known, record) = (Known::default(), record());
        known.sight(1, &record);
        known.judged(0, false);
        assert_eq!(known.sight(1, &record), Sight::New);
        assert_eq!(known.sight(1, &record), Sight::New);
    }

    proptest! {
        #[test]
        fn only_the_same_texts_are_the_same_kind(path in ".{0,40}", agent in ".{0,40}", other in ".{0,40}") {
            let mut known = Known::default();
            let one = record();
            let one = Record { path: &path, user_agent: Some(&agent), ..one };
            known.sight(1, &one);
            known.judged(0, true);
            prop_assert_eq!(known.sight(1, &one), Sight::Clean);
            let moved = Record { path: &other, ..one.clone() };
            prop_assert_eq!(known.sight(1, &moved) == Sight::Clean, other == path);
            let swapped = Record { path: &agent, user_agent: Some(&path), ..one };
            prop_assert_eq!(known.sight(1, &swapped) == Sight::Clean, agent == path);
        }

        #[test]
        fn it_never_grows(paths in proptest::collection::vec(".{0,300}", 0..40)) {
            let mut known = Known::default();
            for path in &paths {
                known.sight(1, &Record { path, ..record() });
            }
            prop_assert!(known.kinds.iter().all(|kind| kind.text.len() <= TEXT_BYTES_MAX));
        }
    }
}
