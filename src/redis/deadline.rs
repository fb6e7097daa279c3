//! A trip's deadline, in time that the isolate was awake.
//!
//! An isolate that is busy, or held up by its machine, comes back to find its timer and
//! an answer that arrived long ago at the same moment. By the clock that trip failed,
//! but Redis did not: taken for an outage it would send a whole burst to the origin.
//! So the wait is cut into slices, and a slice that ends late does not count: an answer
//! takes several turns of the isolate, and each of them was late too. No clock of its
//! own, no transport.

use crate::ports::Clock;

/// Longer than most trips, also where many are under way, so that one timer serves them; a third of
/// the usual timeout.
const SLICE_MS: u64 = 50;

/// A timer of an idle isolate is a millisecond or two late.
const ON_TIME_MS: u64 = 5;

/// How much of being held up one trip is forgiven. A cold isolate that shares a core
/// with three others was seen to take half of this for its first burst.
pub const MAX_STALL_MS: u64 = 2_000;

/// Returns once the isolate has been awake for `timeout_ms`, at the latest when
/// `MAX_STALL_MS` more have passed.
pub async fn awake<C: Clock>(clock: &C, timeout_ms: u64) {
    let begun_ms = clock.now_ms();
    let mut left_ms = timeout_ms;
    while left_ms > 0 && !is_over(begun_ms, clock.now_ms(), timeout_ms) {
        let slice_ms = left_ms.min(SLICE_MS);
        let asleep_ms = clock.now_ms();
        clock.sleep(slice_ms).await;
        let took_ms = clock.now_ms().saturating_sub(asleep_ms);
        if took_ms <= slice_ms + ON_TIME_MS {
            // A clock that stands still or is set back must not make the wait endless.
            left_ms = left_ms.saturating_sub(took_ms.max(slice_ms));
        }
    }
}

/// Whether a trip that began then has used its stall too.
pub fn is_over(begun_ms: u64, now_ms: u64, timeout_ms: u64) -> bool {
    now_ms.saturating_sub(begun_ms) >= timeout_ms.saturating_add(MAX_STALL_MS)
}
