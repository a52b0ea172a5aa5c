//! What a run tries of a list that is too long for every run: all of it in the long trials (`cargo xtask test --full`), and
//! otherwise a part that is another each time. The seed is printed, so that a choice can be made again.
//!
//! A test that samples takes this file in by its path; by itself it is the test of the choice.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Are the long trials wanted?
pub fn full() -> bool {
    std::env::var_os("CROFT_TEST_FULL").is_some()
}

/// Chances, and the seed that they come from.
#[derive(Debug)]
pub struct Sample(u64);

impl Sample {
    /// By the seed in `CROFT_TEST_SEED`, or any.
    pub fn by_chance() -> Sample {
        let told = std::env::var("CROFT_TEST_SEED").ok().map(|text| text.parse().expect("CROFT_TEST_SEED is a number"));
        // A hasher's keys are random.
        let seed = told.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        // A test runner shows it with a failure.
        if !full() {
            println!("CROFT_TEST_SEED={seed} tries the same ones again");
        }
        Sample(seed | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % limit
    }

    /// So many of them, in their order.
    pub fn of<T>(&mut self, mut all: Vec<T>, count: usize) -> Vec<T> {
        while !full() && all.len() > count {
            all.remove(self.below(all.len()));
        }
        all
    }

    /// How far to the next of numbered ones: each, or one of `every` on average.
    pub fn step(&mut self, every: usize) -> usize {
        if full() { 1 } else { 1 + self.below(2 * every - 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_chooses_alike_and_another_does_not() {
        if full() {
            assert_eq!(Sample::by_chance().of(vec![1, 2, 3], 1), [1, 2, 3]);
            assert_eq!(Sample::by_chance().step(9), 1);
            return;
        }
        let chosen = |seed| Sample(seed).of((0..100).collect::<Vec<_>>(), 10);
        assert_eq!(chosen(7), chosen(7));
        assert_ne!(chosen(7), chosen(9));
        assert_eq!(chosen(7).len(), 10);
        assert!(chosen(7).is_sorted());
        assert_eq!(Sample::by_chance().of(vec![1, 2], 10), [1, 2]);
        let steps: Vec<usize> = {
            let mut sample = Sample(7);
            (0..500).map(|_| sample.step(3)).collect()
        };
        assert_eq!((steps.iter().min(), steps.iter().max()), (Some(&1), Some(&5)));
    }
}
