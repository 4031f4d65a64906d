//! Which process the threads of a QEMU belong to, noted while they are there.
//!
//! The kernel names the thread that a fault ends, mostly that of a virtual processor, and not its process. The thread is
//! gone an instant later, and often before anybody can look it up; so those of each QEMU are looked up at its start.
//! Threads that begin later are not known here, and are told by their own number.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Threads kept of one process. A QEMU has one for each virtual processor, and a few besides.
const THREADS_MAX: usize = 4096;

/// Threads that are kept before anybody looks which processes are gone.
const SWEEP_MIN: usize = 256;

/// Shared by who learns of processes and who hears of their threads.
#[derive(Clone, Debug, Default)]
pub struct Threads(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The process of each thread.
    of: HashMap<u32, u32>,
    /// How many were left when it was last looked which processes are gone.
    left: usize,
}

impl Known {
    /// Forgets processes that are gone. Done when there are twice as many threads as the last time, so that however many
    /// VMs there are, each start pays for a look at a few processes at most.
    fn sweep(&mut self) {
        if self.of.len() < SWEEP_MIN.max(2 * self.left) {
            return;
        }
        let there: HashSet<u32> = self.of.values().copied().collect();
        let there: HashSet<u32> =
            there.into_iter().filter(|process| task_folder(*process).exists()).collect();
        self.of.retain(|_, process| there.contains(process));
        self.left = self.of.len();
    }
}

impl Threads {
    /// Notes the threads that this process has now.
    pub fn note(&self, process: u32) {
        let found: Vec<u32> = std::fs::read_dir(task_folder(process))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .take(THREADS_MAX)
            .collect();
        let mut known = self.known();
        known.sweep();
        known.of.extend(found.into_iter().map(|thread| (thread, process)));
    }

    /// The process of this thread; the number itself where it is not known to be a thread of another.
    pub fn process_of(&self, thread: u32) -> u32 {
        self.known().of.get(&thread).copied().unwrap_or(thread)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn task_folder(process: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/task"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_thread_is_known_by_its_process_even_when_it_is_gone() {
        let ((tell, told), (end, ending)) = (channel(), channel::<()>());
        let thread = std::thread::spawn(move || {
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(link.file_name().unwrap().to_str().unwrap().parse().unwrap()).unwrap();
            let _ = ending.recv();
        });
        let number: u32 = told.recv().unwrap();
        let (threads, us) = (Threads::default(), std::process::id());
        assert_eq!(threads.process_of(number), number, "nobody has noted it");
        threads.note(us);
        drop(end);
        thread.join().unwrap();
        assert_eq!((threads.process_of(number), threads.process_of(us)), (us, us));
    }

    #[test]
    fn what_is_gone_is_forgotten_when_there_is_much_of_it() {
        let threads = Threads::default();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let gone = child.id();
        threads.note(gone);
        threads.note(std::process::id());
        assert_eq!(threads.known().of.get(&gone), Some(&gone));
        child.kill().unwrap();
        child.wait().unwrap();
        let crowd = (0..).map(|number| (u32::MAX - number, gone)).take(SWEEP_MIN);
        threads.known().of.extend(crowd);
        threads.note(std::process::id());
        let known = threads.known();
        assert_eq!(known.of.get(&gone), None);
        assert!(known.of.len() < SWEEP_MIN && known.of.contains_key(&std::process::id()), "{known:?}");
    }
}
