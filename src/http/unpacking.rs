//! Whose turn it is to have its request unpacked: what may take longer than a moment is done on a thread of its own, one at
//! a time and each peer's behind its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::inflate::{InflateError, inflate};
use super::{Share, Turns};

/// What is no longer than this, packed and unpacked, is unpacked at once: within a millisecond, whatever is in it.
const AT_ONCE_PACKED: usize = 2 << 10;
const AT_ONCE_UNPACKED: usize = 32 << 10;

/// Whose turn it is among those that may take longer.
static TURNS: LazyLock<Turns> = LazyLock::new(|| Turns::new(1, 1));

/// Unpacks gzip up to `limit` bytes. Dropped, it ends soon.
pub(super) async fn unpack(packed: Bytes, limit: usize, share: Share) -> Result<Bytes, InflateError> {
    if packed.len() <= AT_ONCE_PACKED {
        let least = limit.min(AT_ONCE_UNPACKED);
        match inflate(&packed, least, &AtomicBool::new(false)) {
            Err(InflateError::TooLarge) if least < limit => {}
            done => return done,
        }
    }
    let _turn = TURNS.take(share).await;
    let left = Left(Arc::default());
    let told = Arc::clone(&left.0);
    let unpacked = tokio::task::spawn_blocking(move || inflate(&packed, limit, &told));
    unpacked.await.unwrap_or(Err(InflateError::Broken))
}

/// Says when it is dropped that nobody waits any more.
struct Left(Arc<AtomicBool>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(plain).unwrap();
        packer.finish().unwrap().into()
    }

    #[tokio::test]
    async fn one_member_up_to_the_limit_is_unpacked_and_nothing_behind_it() {
        let of = |packed: Vec<u8>, limit| unpack(packed.into(), limit, Share::ThisHost);
        for size in [0, 1, 1000, 100_000] {
            let plain: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let packed = gzip(&plain).to_vec();
            assert_eq!(of(packed.clone(), size).await.unwrap(), plain);
            if size > 0 {
                assert_eq!(of(packed.clone(), size - 1).await, Err(InflateError::TooLarge));
            }
            for more in [gzip(b"").to_vec(), gzip(b"x").to_vec(), vec![0], vec![b'x'; 9000]] {
                let twice = [packed.clone(), more].concat();
                assert_eq!(of(twice, 1 << 20).await, Err(InflateError::Broken), "{size}");
            }
            let cut = packed[..packed.len() - 1].to_vec();
            assert_eq!(of(cut, 1 << 20).await, Err(InflateError::Broken), "{size}");
        }
    }

    #[test]
    fn it_ends_when_nobody_waits_any_more() {
        let packed = gzip(&[7; 1 << 20]);
        let left = AtomicBool::new(true);
        assert_eq!(inflate(&packed, 2 << 20, &left), Err(InflateError::Broken));
        left.store(false, Ordering::Relaxed);
        assert_eq!(inflate(&packed, 2 << 20, &left).unwrap().len(), 1 << 20);
    }
}
