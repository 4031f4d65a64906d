//! Which process the threads of a QEMU belong to, noted while they are there.
//!
//! The kernel names the thread that a fault ends, mostly that of a virtual processor, and not its process. The thread is
//! gone an instant later, and often before anybody can look it up; so those of each QEMU are looked up at its start.
//! Threads that begin later are not known here, and are told by their own number.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Threads kept of one process. A QEMU has one for each virtual processor, and a few besides.
const THREADS_MAX: usize = 4096;

/// Shared by who learns of processes and who hears of their threads.
#[derive(Clone, Debug, Default)]
pub struct Threads {
    /// By thread.
    known: Arc<Mutex<HashMap<u32, u32>>>,
}

impl Threads {
    /// Notes the threads that this process has now, and forgets those of processes that are gone.
    pub fn note(&self, process: u32) {
        let found: Vec<u32> = std::fs::read_dir(task_folder(process))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .take(THREADS_MAX)
            .collect();
        let mut known = self.known();
        let mut there: HashMap<u32, bool> = HashMap::new();
        known
            .retain(|_, of| *of != process && *there.entry(*of).or_insert_with(|| task_folder(*of).exists()));
        known.extend(found.into_iter().map(|thread| (thread, process)));
    }

    /// The process of this thread; the number itself where it is not known to be a thread of another.
    pub fn process_of(&self, thread: u32) -> u32 {
        self.known().get(&thread).copied().unwrap_or(thread)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn what_is_gone_is_forgotten_with_the_next_one() {
        let threads = Threads::default();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let gone = child.id();
        threads.note(gone);
        assert_eq!(threads.known().get(&gone), Some(&gone));
        child.kill().unwrap();
        child.wait().unwrap();
        threads.note(std::process::id());
        assert_eq!(threads.known().get(&gone), None);
    }
}
