//! Random choices that can be made again.

use std::hash::{BuildHasher, RandomState};

/// 64 bits of xorshift.
#[derive(Clone)]
pub struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    pub fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self { seed, state: seed | 1 }
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// One of 0 to `most`.
    pub fn up_to(&mut self, most: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % (most + 1)
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.up_to(many - 1) == 0
    }

    pub fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.up_to(all.len() as u64 - 1)).expect("a small number")]
    }
}
