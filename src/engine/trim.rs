//! Which of a conversation's oldest turns are left out, so that the rest fits. Pure.
//!
//! One turn more or less a request would move the prompt's beginning each time, and the prefix that a slot remembers
//! would be worth nothing. So turns are left out in blocks: the beginning stays where it is for several turns.

use crate::chat::wire::{Message, Role};
use std::ops::Range;

/// More bytes than a token of plain text ever stands for in the mean: what is beyond needs no counting.
pub const TOKEN_BYTES: usize = 12;

/// The messages that may be left out: what lies between the instructions at the beginning and the last message.
pub fn turns(messages: &[Message]) -> Range<usize> {
    let first = messages.iter().take_while(|message| message.role == Role::System).count();
    first..messages.len().saturating_sub(1).max(first)
}

/// How many of the oldest messages are left out, two by two. `bytes` are theirs, oldest first; `tokens` counts the
/// whole conversation without so many; `room` is what may be left of it.
pub fn left_out(bytes: &[usize], room: usize, tokens: impl Fn(usize) -> usize) -> usize {
    let whole = |count: usize| count.next_multiple_of(2).min(bytes.len());
    let mut kept = 0;
    let light = |size: &&usize| {
        kept += **size;
        kept <= room * TOKEN_BYTES
    };
    let counted = bytes.iter().rev().take_while(light).count();
    let mut fewest = whole(bytes.len() - counted);
    if tokens(fewest) > room {
        let mut most = bytes.len();
        // Without `fewest` it does not fit, without `most` it does or nothing will.
        while fewest + 2 < most {
            let middle = whole(fewest + (most - fewest) / 2).min(most - 1);
            let middle = if middle <= fewest { fewest + 2 } else { middle };
            if tokens(middle) > room { fewest = middle } else { most = middle }
        }
        fewest = most;
    }
    let out: usize = bytes[..fewest].iter().sum();
    // A block is as many bytes as the room has tokens: about a quarter of it in English.
    let goal = out.next_multiple_of(room.max(1));
    let mut begins = 0;
    let inside = |size: &&usize| {
        let inside = begins < goal;
        begins += **size;
        inside
    };
    let block = bytes.iter().take_while(inside).count();
    // The newest turn stays when it fits.
    let newest = bytes.len().saturating_sub(2).max(fewest);
    if fewest == 0 { 0 } else { whole(block).clamp(fewest, newest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(bytes: &[usize], room: usize, out: usize) -> bool {
        bytes[out..].iter().sum::<usize>().div_ceil(4) <= room
    }

    fn out(bytes: &[usize], room: usize) -> usize {
        left_out(bytes, room, |out| bytes[out..].iter().sum::<usize>().div_ceil(4))
    }

    #[test]
    fn what_fits_stays_and_the_oldest_goes_in_blocks() {
        assert_eq!(out(&[10; 10], 100), 0);
        assert_eq!(out(&[], 0), 0);
        let moves: Vec<usize> = (10..40).map(|turns| out(&vec![20; 2 * turns], 100)).collect();
        assert!(moves.is_sorted() && moves.iter().all(|out| out.is_multiple_of(2)), "{moves:?}");
        let mut places = moves.clone();
        places.dedup();
        assert!(places.len() <= moves.len() / 2, "the beginning moves at every other turn at most: {moves:?}");
    }

    #[test]
    fn instructions_and_the_last_message_are_no_turns() {
        let message = |role| Message::new(role, "x");
        let talk = [Role::System, Role::User, Role::Assistant, Role::User].map(message);
        assert_eq!((turns(&talk), turns(&talk[..1]), turns(&talk[3..]), turns(&[])), (1..3, 1..1, 0..0, 0..0));
    }

    proptest! {
        #[test]
        fn as_much_is_left_out_as_needed_and_a_block_more_at_most(
            turns in proptest::collection::vec(0usize..300, 0..60), room in 1usize..400,
        ) {
            let bytes: Vec<usize> = turns.iter().flat_map(|size| [*size, size / 2]).collect();
            let out = out(&bytes, room);
            prop_assert!(out.is_multiple_of(2) && out <= bytes.len());
            prop_assert!(fits(&bytes, room, out) || out == bytes.len());
            let needed = (0..=bytes.len()).step_by(2).find(|out| fits(&bytes, room, *out)).unwrap_or(bytes.len());
            prop_assert!(out >= needed);
            let more: usize = bytes[needed..out].iter().sum();
            prop_assert!(more <= room + 450, "{more} bytes more than needed");
        }
    }
}
