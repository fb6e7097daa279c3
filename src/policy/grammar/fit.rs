//! Whether the sizes of a limit go together, for those who write a policy and for the
//! variables that override it. Each check says what is wrong and what would fit.

use super::super::bounds::*;
use super::super::measure::show_ms;
use super::super::types::Algorithm;

/// A window that is too short, and the shortest one.
pub fn window(algorithm: Algorithm, window_ms: u64, redis_ms: u64) -> Option<(String, u64)> {
    let sliding = algorithm == Algorithm::SlidingWindow;
    let least = match sliding {
        true => min_window_ms(redis_ms),
        false => MIN_WINDOW_MS,
    };
    if window_ms >= least {
        return None;
    }
    let mut message = String::from("a window of ");
    message.push_str(&show_ms(window_ms));
    message.push_str(" is shorter than ");
    if sliding {
        message.push_str("10 buckets of ");
    }
    message.push_str(&show_ms(match sliding {
        true => bucket_ms(window_ms, redis_ms),
        false => least,
    }));
    Some((message, least))
}

/// A limit that is too large for a log or too small for a lease, and what to do.
pub fn requests(algorithm: Algorithm, lease: bool, requests: u32) -> Option<(String, String)> {
    let (why, fits) = if algorithm == Algorithm::SlidingLog && requests > MAX_LOG_REQUESTS {
        (
            "too large for a sliding log, which keeps each of them",
            format!("at most {MAX_LOG_REQUESTS}"),
        )
    } else if lease && requests < MIN_LEASED_REQUESTS {
        (
            "too small to lease",
            format!("at least {MIN_LEASED_REQUESTS}"),
        )
    } else {
        return None;
    };
    Some((format!("a limit of {requests} is {why}"), fits))
}

/// The most that one request may cost, and why.
pub fn cost(algorithm: Algorithm, requests: u32) -> (u32, String) {
    match algorithm {
        Algorithm::SlidingLog if requests > MAX_LOG_COST => (
            MAX_LOG_COST,
            format!("a sliding log takes at most {MAX_LOG_COST} at once"),
        ),
        Algorithm::TokenBucket { burst } if burst < requests => (
            burst,
            format!("`burst` is {burst}: no request would ever fit"),
        ),
        _ => (
            requests,
            format!("the limit is {requests}: no request would ever fit"),
        ),
    }
}

/// A bucket that takes longer to fill than the longest window, as its key would live,
/// and the largest that does not.
pub fn burst(algorithm: Algorithm, requests: u32, window_ms: u64) -> Option<(String, u64)> {
    let Algorithm::TokenBucket { burst } = algorithm else {
        return None;
    };
    let most = u64::from(requests).saturating_mul(MAX_WINDOW_MS) / window_ms.max(1);
    (u64::from(burst) > most).then(|| {
        let message = format!("a `burst` of {burst} takes longer than 31 days to come back");
        (message, most)
    })
}
