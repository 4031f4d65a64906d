//! One heap for all threads.

/// Lets all threads share one heap; to be called before there are other threads, or it does only half.
///
/// By itself the C library gives each thread one of its own, up to eight times as many as there are cores. Samples,
/// documents and replies are made on one thread and freed on another, and each heap keeps room for the most that it ever
/// held: with thousands of domains twice the memory. Threads that would wait for the one heap are few here.
pub fn share_one_heap() {
    // SAFETY: it takes two numbers and no pointer, and glibc guards what it sets with the heap's own lock.
    let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    debug_assert_eq!(set, 1, "glibc knows the parameter");
}
