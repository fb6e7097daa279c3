//! Whether a stored answer may be served (RFC 9111, 4), and whether it may stand in for an
//! origin that fails (4.2.4; RFC 5861).

use super::control::Control;
use super::record::Stored;
use crate::ports::OriginError;

/// What to do with the stored answer that a request selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    Serve,
    /// Serve it, and ask the origin after that.
    ServeAndAsk,
    /// It is stale, or must always be validated.
    Stale,
    /// It is fresh, but not what the request wants.
    Unwanted,
}

/// `stale_ms`: how long past its freshness the policy allows it, which is an agreement
/// with the origin outside of HTTP (4.2.4).
pub fn judge(stored: &Stored, asked: &Control, stale_ms: u64, now_ms: u64) -> Reuse {
    let control = Control::of_response(&stored.headers);
    // 5.2.2.4: with no-cache never without the origin's word.
    if control.no_cache {
        return Reuse::Stale;
    }
    // 5.2.1.4: the request's no-cache asks for that word.
    if asked.no_cache {
        return Reuse::Unwanted;
    }
    let age_ms = stored.age_ms(now_ms);
    let is_fresh = age_ms < stored.fresh_ms;
    // 5.2.1.1: not older than the request wants. RFC 8246, 2: a fresh answer that never
    // changes is not validated for a reload, which says max-age=0.
    if let Some(max_age_s) = asked.max_age_s {
        let is_reload = max_age_s == 0 && control.immutable && is_fresh;
        if age_ms >= max_age_s * 1000 && !is_reload && asked.max_stale_s.is_none() {
            return if is_fresh {
                Reuse::Unwanted
            } else {
                Reuse::Stale
            };
        }
    }
    // 5.2.1.3: fresh for at least so long.
    let left_ms = stored.fresh_ms.saturating_sub(age_ms);
    if is_fresh && left_ms < asked.min_fresh_s.unwrap_or(0) * 1000 {
        return Reuse::Unwanted;
    }
    if is_fresh {
        return Reuse::Serve;
    }
    // 4.2.4: stale only if no directive forbids it, and the client or the origin allows it.
    if control.forbids_stale() || asked.min_fresh_s.is_some() {
        return Reuse::Stale;
    }
    let past_ms = age_ms - stored.fresh_ms;
    // 5.2.1.2: the request's max-stale.
    let wanted = |max_stale_s: u64| past_ms <= max_stale_s.saturating_mul(1000);
    if asked.max_stale_s.is_some_and(wanted) {
        return Reuse::Serve;
    }
    // RFC 5861, 3.
    if past_ms < stale_ms.max(control.stale_while_revalidate_s * 1000) {
        return Reuse::ServeAndAsk;
    }
    Reuse::Stale
}

/// How an origin failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    NoAnswer(OriginError),
    Status(u16),
}

/// Whether a stored answer is served in place of that failure.
pub fn stands_in(
    stored: &Stored,
    asked: &Control,
    trouble: Trouble,
    stale_ms: u64,
    now_ms: u64,
) -> bool {
    let control = Control::of_response(&stored.headers);
    // 4.2.4, 5.2.2.2: a cache that is cut off must not serve it either. 5.2.1.4: nor one
    // that a request wants validated.
    if control.forbids_stale() || asked.no_cache {
        return false;
    }
    let past_ms = stored.age_ms(now_ms).saturating_sub(stored.fresh_ms);
    // RFC 5861, 4: on an answer or on a request.
    let allowed_s = control.stale_if_error_s.max(asked.stale_if_error_s);
    match trouble {
        // 4.2.4: a cache that is cut off may serve what is stale.
        Trouble::NoAnswer(_) => true,
        Trouble::Status(500 | 502 | 503 | 504) => past_ms < stale_ms.max(allowed_s * 1000),
        Trouble::Status(_) => false,
    }
}
