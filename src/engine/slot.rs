//! Which slot takes a new conversation, and what of it is evaluated already.
//!
//! A slot keeps the tokens of the conversation that ran in it last. The next turn of that conversation begins with
//! them, so it belongs there; a new conversation shares at most the system prompt with the others, so it takes the
//! place that was not used for longest and gets a copy of what is shared.

/// Fewer tokens are evaluated again rather than copied: a copy moves a slot's whole memory, tens of megabytes.
pub const COPIED_TOKENS_MIN: usize = 64;

/// A token of the model's vocabulary.
pub type Token = i32;

/// What is known of a slot when a place is sought.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Tokens evaluated in it, oldest first.
    pub tokens: &'a [Token],
    /// A stamp that grows with every use; 0 for never.
    pub used: u64,
    /// No request runs in it.
    pub free: bool,
}

/// Where a conversation goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the slot.
    pub slot: usize,
    /// Tokens at the start of the conversation that need no evaluation.
    pub kept: usize,
    /// The slot that has them, where it is another one.
    pub copy_from: Option<usize>,
}

/// Chooses a place for `prompt`; `None` when no slot is free.
///
/// At least one token is always left to evaluate, for the next one comes from it.
pub fn place(prompt: &[Token], slots: &[Candidate<'_>]) -> Option<Place> {
    let shared = |index: usize| common(prompt, slots[index].tokens).min(prompt.len().saturating_sub(1));
    let free = || (0..slots.len()).filter(|index| slots[*index].free);
    let (best, known) = longest(free().map(|index| (index, shared(index))), slots)?;
    if known > 0 && known * 2 >= slots[best].tokens.len() {
        return Some(with_copy(Place { slot: best, kept: known, copy_from: None }, slots.len(), shared));
    }
    let oldest = free().min_by_key(|index| (slots[*index].used, *index))?;
    Some(with_copy(Place { slot: oldest, kept: shared(oldest), copy_from: None }, slots.len(), shared))
}

/// The one that shares most; of equals, the one unused for longest.
fn longest(found: impl Iterator<Item = (usize, usize)>, slots: &[Candidate<'_>]) -> Option<(usize, usize)> {
    found.max_by_key(|(index, known)| (*known, std::cmp::Reverse(slots[*index].used), std::cmp::Reverse(*index)))
}

fn with_copy(place: Place, count: usize, shared: impl Fn(usize) -> usize) -> Place {
    let other = (0..count).filter(|index| *index != place.slot).max_by_key(|index| shared(*index));
    match other {
        Some(other) if shared(other) >= place.kept + COPIED_TOKENS_MIN => {
            Place { kept: shared(other), copy_from: Some(other), ..place }
        }
        _ => place,
    }
}

/// Length of the common start of both.
pub fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn free(tokens: &[Token], used: u64) -> Candidate<'_> {
        Candidate { tokens, used, free: true }
    }

    fn busy(tokens: &[Token]) -> Candidate<'_> {
        Candidate { tokens, used: 9, free: false }
    }

    #[test]
    fn the_next_turn_goes_where_the_session_was() {
        let slots = [free(&[1, 2, 9, 9], 1), free(&[1, 2, 3, 4], 2), free(&[], 0)];
        assert_eq!(place(&[1, 2, 3, 4, 5, 6], &slots), Some(Place { slot: 1, kept: 4, copy_from: None }));
    }

    #[test]
    fn a_new_conversation_spares_the_others_and_copies_the_system_prompt() {
        let (old, new): (Vec<Token>, Vec<Token>) = ((0..300).collect(), (0..100).chain([7, 7]).collect());
        let slots = [free(&old, 5), free(&[7, 7], 3)];
        assert_eq!(place(&new, &slots), Some(Place { slot: 1, kept: 100, copy_from: Some(0) }));
        assert_eq!(place(&new[..20], &slots), Some(Place { slot: 1, kept: 0, copy_from: None }));
    }

    #[test]
    fn a_busy_slot_is_copied_from_and_never_taken() {
        let long: Vec<Token> = (0..80).collect();
        let slots = [busy(&long[..70]), free(&[9], 1)];
        assert_eq!(place(&long, &slots), Some(Place { slot: 1, kept: 70, copy_from: Some(0) }));
        assert_eq!(place(&[1], &[busy(&[1])]), None);
    }

    #[test]
    fn the_same_prompt_again_leaves_one_token_to_evaluate() {
        assert_eq!(place(&[1, 2, 3], &[free(&[1, 2, 3], 1)]), Some(Place { slot: 0, kept: 2, copy_from: None }));
    }

    #[test]
    fn of_equals_the_one_unused_for_longest_is_taken() {
        let slots = [free(&[8], 3), free(&[8], 2), free(&[8], 4)];
        assert_eq!(place(&[1, 2], &slots).map(|place| place.slot), Some(1));
    }

    proptest! {
        #[test]
        fn a_place_is_free_and_what_it_keeps_is_true(
            prompt in prop::collection::vec(0..2, 1..12), stretch in 1..30usize,
            slots in prop::collection::vec((prop::collection::vec(0..2, 0..12), 0..5u64, any::<bool>()), 0..5),
        ) {
            let long = |tokens: &[Token]| tokens.iter().flat_map(|token| vec![*token; stretch]).collect::<Vec<_>>();
            let prompt = long(&prompt);
            let slots: Vec<_> = slots.iter().map(|(tokens, used, free)| (long(tokens), *used, *free)).collect();
            let slots: Vec<Candidate<'_>> = slots.iter()
                .map(|(tokens, used, free)| Candidate { tokens, used: *used, free: *free }).collect();
            let found = place(&prompt, &slots);
            prop_assert_eq!(found.is_some(), slots.iter().any(|slot| slot.free));
            if let Some(found) = found {
                prop_assert!(slots[found.slot].free);
                prop_assert!(found.kept < prompt.len());
                let source = found.copy_from.unwrap_or(found.slot);
                prop_assert_eq!(&slots[source].tokens[..found.kept], &prompt[..found.kept]);
                let most = slots.iter().map(|slot| common(&prompt, slot.tokens)).max().unwrap_or(0);
                prop_assert!(found.kept + COPIED_TOKENS_MIN > most.min(prompt.len() - 1));
            }
        }
    }
}
