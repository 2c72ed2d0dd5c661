//! The stacks that a hung worker's threads left, as [`crate::sys::stack`] writes them.

use crate::sys::stack::{FRAMES_MAX, RECORD_WORDS, RECORDS_AT, THREADS_MAX};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed};

/// One thread's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Its thread, as it wrote it.
    pub thread: u64,
    /// Innermost first.
    pub addresses: Vec<u64>,
}

/// The stacks that are whole. Nothing of it is believed but for display.
pub(super) fn read(words: &[AtomicU64]) -> Vec<Stack> {
    let taken = (words[0].load(Relaxed) as usize).min(THREADS_MAX);
    let records = words[RECORDS_AT..].chunks_exact(RECORD_WORDS).take(taken);
    let whole = records.filter_map(|record| {
        let count = record[1].load(Acquire).checked_sub(1)?.min(FRAMES_MAX as u64) as usize;
        let addresses = record[2..][..count].iter().map(|word| word.load(Relaxed)).collect();
        Some(Stack { thread: record[0].load(Relaxed), addresses })
    });
    whole.collect()
}

/// Nobody left one: for the next life of the slot.
pub(super) fn clear(words: &[AtomicU64]) {
    let taken = (words[0].swap(0, Relaxed) as usize).min(THREADS_MAX);
    words[RECORDS_AT..].chunks_exact(RECORD_WORDS).take(taken).for_each(|record| record[1].store(0, Relaxed));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stack::WORDS;

    #[test]
    fn only_what_is_whole_is_read() {
        let words: Vec<AtomicU64> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        words[0].store(3, Relaxed);
        let record = |number: usize| &words[RECORDS_AT + number * RECORD_WORDS..][..RECORD_WORDS];
        record(0)[0].store(7, Relaxed);
        record(0)[2].store(0xabc, Relaxed);
        record(0)[1].store(2, Relaxed);
        record(2)[1].store(u64::MAX, Relaxed);
        let stacks = read(&words);
        assert_eq!(stacks[0], Stack { thread: 7, addresses: vec![0xabc] });
        assert_eq!((stacks.len(), stacks[1].addresses.len()), (2, FRAMES_MAX));
        clear(&words);
        assert!(read(&words).is_empty());
    }
}
