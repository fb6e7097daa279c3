//! The looks at one address after its answers: report, judge, strike.

use std::cell::RefCell;

use super::{LOOK_TIMEOUT_MS, MAX_LOOKS, Moment, Penalties};
use crate::ports::{Clock, Log, Random, Redis, Store};

/// Runs after an answer for which [`Penalties::begin`] said so. Looks at once and then
/// at most once a second while there is news, so the last refusal of a burst is
/// reported too. A look that fails is made again.
pub async fn settle<P: Clock + Random + Redis + Log>(
    penalties: &RefCell<Penalties>,
    ports: &P,
    ip: &str,
    offset_ms: i64,
) {
    // Half of what cannot be guessed is more than a jitter needs.
    let random = || ports.random() as u64;
    let now = || Moment::with_offset(ports.now_ms(), offset_ms);
    for _ in 0..MAX_LOOKS {
        let wait_ms = penalties.borrow_mut().wait_ms(ip, now());
        let Some(wait_ms) = wait_ms else { return };
        if wait_ms > 0 {
            ports.sleep(wait_ms).await;
        }
        let batch = penalties.borrow_mut().flush(ip, now(), random());
        let Some(batch) = batch else { break };
        let answer = ports
            .pipeline(Store::Limits(0), &batch, LOOK_TIMEOUT_MS)
            .await;
        let next = match answer {
            Ok(replies) => {
                let mut penalties = penalties.borrow_mut();
                penalties.judge_flush(ip, &replies, now(), random())
            }
            Err(error) => {
                ports.log_failed_trip(&error);
                continue;
            }
        };
        if let Some(batch) = next
            && let Err(error) = ports
                .pipeline(Store::Limits(0), &batch, LOOK_TIMEOUT_MS)
                .await
        {
            ports.log_failed_trip(&error);
        }
    }
    penalties.borrow_mut().end(ip);
}
