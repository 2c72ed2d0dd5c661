//! From logits to the next token: greedy at temperature 0, else nucleus sampling with a seed.

use super::slot::Token;

/// Candidates this much less likely than the best (in units of the temperature's logits) are left out: together
/// less than one in ten thousand for a vocabulary of 50,000, and most of the work.
const TAIL: f32 = 20.0;

/// How a request wants its tokens drawn.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    top_p: f32,
    random: Random,
    candidates: Vec<(f32, Token)>,
}

impl Sampler {
    /// `temperature` 0 is greedy; `top_p` over 0 up to 1; the same `seed` draws the same tokens from the same logits.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Sampler {
        Sampler { temperature, top_p, random: Random(seed), candidates: Vec::new() }
    }

    /// The next token. Logits that are not numbers are never chosen; token 0 when there is nothing to choose.
    pub fn next(&mut self, logits: &[f32]) -> Token {
        let (best, highest) = best(logits);
        if self.temperature <= 0.0 || !highest.is_finite() {
            return best;
        }
        self.gather(logits, highest);
        let total = self.cut_to_nucleus();
        self.draw(total).unwrap_or(best)
    }

    /// The next token of those that fit, as likely as they are among themselves; `None` when none does.
    ///
    /// Mostly the first draw fits and no other token is asked about.
    pub fn next_that(&mut self, logits: &[f32], mut fits: impl FnMut(Token) -> bool) -> Option<Token> {
        let first = self.next(logits);
        if fits(first) {
            return Some(first);
        }
        let fitting = |(id, logit): (usize, &f32)| if fits(id as Token) { *logit } else { f32::NEG_INFINITY };
        let fitting: Vec<f32> = logits.iter().enumerate().map(fitting).collect();
        let token = self.next(&fitting);
        fitting.get(token as usize).is_some_and(|logit| logit.is_finite()).then_some(token)
    }

    /// Weights of all candidates that count, relative to the best one's, which is 1.
    fn gather(&mut self, logits: &[f32], highest: f32) {
        let (scale, lowest) = (1.0 / self.temperature, highest - TAIL * self.temperature);
        self.candidates.clear();
        let counting = logits.iter().enumerate().filter(|(_, logit)| **logit >= lowest);
        self.candidates.extend(counting.map(|(id, logit)| (((logit - highest) * scale).exp(), id as Token)));
    }

    /// Leaves the fewest most likely candidates that make up `top_p`, and returns their weight.
    fn cut_to_nucleus(&mut self) -> f32 {
        let total: f32 = self.candidates.iter().map(|(weight, _)| weight).sum();
        if self.top_p >= 1.0 {
            return total;
        }
        self.candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut sum = 0.0;
        let enough = self.candidates.iter().position(|(weight, _)| {
            sum += weight;
            sum >= self.top_p * total
        });
        self.candidates.truncate(enough.map_or(self.candidates.len(), |index| index + 1));
        sum
    }

    fn draw(&mut self, total: f32) -> Option<Token> {
        let mut left = self.random.unit() * total;
        for (weight, token) in &self.candidates {
            left -= weight;
            if left < 0.0 {
                return Some(*token);
            }
        }
        self.candidates.last().map(|(_, token)| *token)
    }
}

fn best(logits: &[f32]) -> (Token, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id as Token, *logit);
        }
    }
    best
}

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to draw tokens, and the same on every machine.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// From 0 up to, not including, 1.
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn greedy_takes_the_first_best() {
        assert_eq!(Sampler::new(0.0, 1.0, 1).next(&[0.0, 3.0, f32::NAN, 3.0]), 1);
        assert_eq!(Sampler::new(1.0, 1.0, 1).next(&[f32::NEG_INFINITY; 3]), 0);
    }

    #[test]
    fn draws_follow_the_weights() {
        let mut sampler = Sampler::new(1.0, 1.0, 7);
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY];
        let ones = (0..10_000).filter(|_| sampler.next(&logits) == 1).count();
        assert!((7_300..7_700).contains(&ones), "{ones} of 10000, 7500 expected");
    }

    #[test]
    fn of_those_that_fit_draws_follow_the_weights() {
        let mut sampler = Sampler::new(1.0, 1.0, 7);
        let logits = [0.0, 3f32.ln(), 4f32.ln(), f32::NAN];
        let ones = (0..10_000).filter(|_| sampler.next_that(&logits, |token| token < 2) == Some(1)).count();
        assert!((7_300..7_700).contains(&ones), "{ones} of 10000, 7500 expected");
        assert_eq!(sampler.next_that(&logits, |token| token == 3), None);
        assert_eq!(Sampler::new(0.0, 1.0, 1).next_that(&logits, |token| token == 0), Some(0));
    }

    #[test]
    fn a_small_nucleus_is_greedy() {
        let mut sampler = Sampler::new(2.0, 0.01, 3);
        assert!((0..100).all(|_| sampler.next(&[1.0, 1.5, 0.0]) == 1));
    }

    proptest! {
        #[test]
        fn the_same_seed_draws_the_same(
            logits in prop::collection::vec(-30f32..30.0, 1..50), seed: u64, temperature in 0f32..2.0, top_p in 0.01f32..1.0,
        ) {
            let draw = || {
                let mut sampler = Sampler::new(temperature, top_p, seed);
                (0..20).map(|_| sampler.next(&logits)).collect::<Vec<_>>()
            };
            let drawn = draw();
            prop_assert_eq!(&drawn, &draw());
            prop_assert!(drawn.iter().all(|token| (*token as usize) < logits.len()));
        }
    }
}
