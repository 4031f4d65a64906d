//! One heap for all threads.

/// Lets all threads share one heap; to be called before there are other threads, or it does only half.
///
/// By itself the C library gives each thread one of its own, up to eight times as many as there are cores. Samples,
/// documents and replies are made on one thread and freed on another, and each heap keeps room for the most that it ever
/// held: with thousands of domains twice the memory. Threads that would wait for the one heap are few here.
///
/// What is large stays outside of it, so that all of it goes back to the system as soon as it is freed: the replies of a
/// big host, of which each new picture makes another. By itself the C library stops doing so after the first of them.
pub fn share_one_heap() {
    for (parameter, value) in [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, LARGE)] {
        // SAFETY: it takes two numbers and no pointer, and glibc guards what it sets with the heap's own lock.
        let set = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(set, 1, "glibc knows the parameter");
    }
}

/// Bytes from which on it is large: a page fault for each of its pages is then little beside writing it.
const LARGE: libc::c_int = 4 << 20;
