//! How many prompt tokens one step may take, so that running streams do not stall.

use std::time::Duration;

/// A running stream waits for about so long for its next token while a prompt is evaluated; a third of the promise
/// (250 ms), for steps vary and a token may bring no text of its own.
const STREAM_STEP: Duration = Duration::from_millis(80);
/// With no running stream, the time until a newcomer or a cancel is seen.
const ALONE_STEP: Duration = Duration::from_millis(300);
/// With no running stream, at least so many: llama.cpp's attention on the CPU works on tiles of 64 tokens, and is
/// half as fast below (`ggml_fa_tile_config`).
const ALONE_TOKENS_MIN: usize = 64;
/// Steps smaller than this say little of what a prompt token costs: the fixed cost of a step hides it.
const TELLING_TOKENS: usize = 16;

/// The measured cost of a prompt token.
#[derive(Debug)]
pub struct Pace {
    token_us: f64,
    chunk_max: usize,
}

impl Pace {
    /// Nothing measured yet: 2 ms a token, an unhurried guess. `chunk_max` is the largest batch in tokens.
    pub fn new(chunk_max: usize) -> Pace {
        Pace { token_us: 2_000.0, chunk_max }
    }

    /// Prompt tokens for the next step, with `streams` that each add their own token to it.
    pub fn chunk(&self, streams: usize) -> usize {
        let (budget, least) = if streams > 0 { (STREAM_STEP, 1) } else { (ALONE_STEP, ALONE_TOKENS_MIN) };
        let tokens = (budget.as_micros() as f64 / self.token_us) as usize;
        tokens.saturating_sub(streams).max(least).min(self.chunk_max.saturating_sub(streams).max(1))
    }

    /// A step of `tokens` took `elapsed`. A costlier one counts at once, a cheaper one by degrees.
    pub fn note(&mut self, tokens: usize, elapsed: Duration) {
        if tokens < TELLING_TOKENS {
            return;
        }
        let measured = elapsed.as_micros() as f64 / tokens as f64;
        let weight = if measured > self.token_us { 0.5 } else { 0.2 };
        self.token_us += weight * (measured - self.token_us);
    }
}

/// Shares `tokens` out among those that want some, evenly, beginning with number `first`; what one does not need
/// goes to the others.
pub fn share(tokens: usize, wanted: &[usize], first: usize) -> Vec<usize> {
    let mut shares = vec![0; wanted.len()];
    let order: Vec<usize> = (0..wanted.len()).map(|step| (first + step) % wanted.len()).collect();
    let mut left = tokens;
    let mut sharers = wanted.iter().filter(|tokens| **tokens > 0).count();
    for index in order.iter().copied().filter(|index| wanted[*index] > 0) {
        shares[index] = wanted[index].min(left.div_ceil(sharers));
        left -= shares[index];
        sharers -= 1;
    }
    for index in order {
        let more = (wanted[index] - shares[index]).min(left);
        shares[index] += more;
        left -= more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_are_even_and_nothing_is_left_over() {
        assert_eq!(share(100, &[0, 500, 500], 0), [0, 50, 50]);
        assert_eq!(share(100, &[500, 10, 0], 0), [90, 10, 0]);
        assert_eq!((share(1, &[9, 9], 0), share(1, &[9, 9], 1)), (vec![1, 0], vec![0, 1]));
    }

    proptest! {
        #[test]
        fn shares_give_all_there_is(tokens in 0..300usize, wanted in prop::collection::vec(0..200usize, 1..6), first in 0..6usize) {
            let shares = share(tokens, &wanted, first);
            prop_assert!(shares.iter().zip(&wanted).all(|(share, wanted)| share <= wanted));
            prop_assert_eq!(shares.iter().sum::<usize>(), tokens.min(wanted.iter().sum()));
        }
    }

    #[test]
    fn chunks_settle_within_the_promise_for_any_machine() {
        for token_us in [100u64, 1_000, 20_000] {
            let mut pace = Pace::new(512);
            for _ in 0..50 {
                let chunk = pace.chunk(2);
                pace.note(
                    chunk.max(TELLING_TOKENS),
                    Duration::from_micros(token_us * chunk.max(TELLING_TOKENS) as u64),
                );
            }
            let step = Duration::from_micros(token_us * (pace.chunk(2) + 2) as u64);
            assert!(step < Duration::from_millis(110), "{token_us} us a token: {step:?}");
            assert!(pace.chunk(0) >= pace.chunk(2));
        }
    }

    #[test]
    fn a_chunk_is_never_empty_nor_over_the_batch() {
        let mut pace = Pace::new(128);
        pace.note(100, Duration::from_secs(1_000));
        assert_eq!((pace.chunk(4), pace.chunk(0)), (1, ALONE_TOKENS_MIN));
        (0..200).for_each(|_| pace.note(100, Duration::from_micros(1)));
        assert_eq!((pace.chunk(0), pace.chunk(4)), (128, 124));
    }
}
