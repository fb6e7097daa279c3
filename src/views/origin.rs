//! Batches as the origin gets them.

use crate::deferred;
use crate::gateway::Gateway;
use crate::http::{Body, Headers};
use crate::ports::{Bounded, Fetch, Ports};

/// Where an origin takes batches (CONTRACT, Views).
pub const PATH: &str = "/internal/views/batch";

/// Of an answer with the totals of a thousand items.
const MAX_ANSWER_BYTES: usize = 512 * 1024;

/// Sends a batch. `Some`: the origin has taken it; what it says then is read as far as it
/// fits.
pub async fn post<P: Ports>(
    gateway: &Gateway,
    ports: &P,
    id: &str,
    body: String,
) -> Option<Vec<u8>> {
    let timeout_ms = gateway.policy.defaults.timeout.origin_ms;
    let fetch = Fetch {
        target: PATH.to_owned(),
        headers: Headers::from_iter([
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("content-type", "application/json"),
            ("idempotency-key", id),
            ("user-agent", "edgeweir"),
        ]),
        body: Some(body),
    };
    let response = ports.fetch(&fetch, timeout_ms).await.ok()?;
    let is_taken = (200..300).contains(&response.status);
    let Body::Upstream(body) = response.body else {
        return is_taken.then(Vec::new);
    };
    if !is_taken {
        ports.discard(body);
        return None;
    }
    let timeout_ms = timeout_ms.min(deferred::timeout_ms(gateway));
    match ports.read(body, MAX_ANSWER_BYTES, timeout_ms).await {
        Ok(Bounded::Whole(bytes)) => Some(bytes),
        Ok(Bounded::Longer(body) | Bounded::Slow(body)) => {
            ports.discard(body);
            Some(Vec::new())
        }
        Err(_) => Some(Vec::new()),
    }
}
