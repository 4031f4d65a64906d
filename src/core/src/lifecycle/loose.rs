//! Words about a process of which nobody knows yet whose it is: the kernel's own log may be read before the event that tells
//! of the process's beginning.

use std::collections::VecDeque;
use std::time::Duration;

use crate::evidence::Fact;
use crate::time::{Now, Wall};

/// How long a word waits for its process. No number is given to another process so soon.
const LIFE: Duration = Duration::from_secs(10);

/// Words that wait.
const MOST: usize = 256;

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Loose(VecDeque<Word>);

#[derive(Debug)]
struct Word {
    pid: u32,
    at: Wall,
    fact: Fact,
    heard: Now,
}

impl Loose {
    /// Nobody is known to have this process.
    pub fn add(&mut self, now: Now, pid: u32, at: Wall, fact: Fact) {
        self.sweep(now);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(Word { pid, at, fact, heard: now });
    }

    /// Whose it is is known now.
    pub fn take(&mut self, now: Now, pid: u32) -> Vec<(Wall, Fact)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.sweep(now);
        let (its, others) = std::mem::take(&mut self.0).into_iter().partition(|word: &Word| word.pid == pid);
        self.0 = others;
        let its: VecDeque<Word> = its;
        its.into_iter().map(|word| (word.at, word.fact)).collect()
    }

    fn sweep(&mut self, now: Now) {
        self.0.retain(|word| now.mono.since(word.heard.mono) <= LIFE);
    }
}
