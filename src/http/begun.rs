//! Whether a call has begun to change anything: from then on it runs to its end without its client, until then it leaves
//! with it.
//!
//! A client that hangs up costs nothing any more: calls that wait for their turn, or for room, or are only told something,
//! do not pile up behind clients that have long gone. A destroy that was handed on is not cut in half.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};

/// Said by the service when a call goes beyond the point where it can be given up. Clones are of one call.
#[derive(Debug, Clone, Default)]
pub struct Begun(Arc<AtomicBool>);

impl Begun {
    /// From now on it runs to its end.
    pub fn now(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Carries out `call` on a task of its own, whose panic is an error here. When this future is dropped, what has not begun
/// is given up; what needs to wait for nothing has had its chance by then.
pub(super) async fn while_the_client_stays<T: Send + 'static>(
    begun: Begun,
    call: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    let (_stays, left) = oneshot::channel::<()>();
    let task: JoinHandle<Option<T>> = tokio::spawn(async move {
        let mut call = pin!(call);
        tokio::select! {
            biased;
            answer = &mut call => Some(answer),
            _ = left => if begun.is() { Some(call.await) } else { None },
        }
    });
    Ok(task.await?.expect("the client is here and waits"))
}
