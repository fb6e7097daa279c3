//! Waiting for several futures of one request at once.
//!
//! `futures_util::future::join_all` brings a scheduler for thousands of futures, 6 KB of
//! the upload; ours are at most a page's parts, so each is simply polled again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// A future by itself, without its type. What a plain hit never comes to waits in one: else its state
/// is part of each request's, and its code part of functions of a hundred kilobytes, of which a
/// hit runs a little here and there.
#[inline(never)]
pub fn boxed<'f, T>(future: impl Future<Output = T> + 'f) -> Pin<Box<dyn Future<Output = T> + 'f>> {
    Box::pin(future)
}

/// What one future has come to.
enum Slot<F: Future> {
    Pending(Pin<Box<F>>),
    Ready(F::Output),
}

/// The outputs of all futures, in their order.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut slots: Vec<Slot<F>> = futures
        .into_iter()
        .map(|future| Slot::Pending(Box::pin(future)))
        .collect();
    poll_fn(|context| {
        let mut is_ready = true;
        for slot in &mut slots {
            if let Slot::Pending(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Ready(output),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    slots
        .into_iter()
        .filter_map(|slot| match slot {
            Slot::Ready(output) => Some(output),
            Slot::Pending(_) => None,
        })
        .collect()
}
