//! Whether the sizes of a limit go together, for those who write a policy and for the
//! variables that override it.

use super::super::bounds::*;
use super::super::measure::show_ms;
use super::super::types::{Algorithm, Limit};

/// The sizes of a limit as far as they could be read.
pub struct Sizes {
    pub algorithm: Algorithm,
    pub lease: bool,
    pub requests: Option<u32>,
    pub window_ms: Option<u64>,
    /// The highest.
    pub cost: Option<u32>,
}

/// A size that does not fit, and what would.
pub struct Misfit {
    pub field: &'static str,
    pub message: String,
    /// `at least` or `at most`.
    pub bound: &'static str,
    pub number: u64,
}

const LEAST: &str = "at least";
const MOST: &str = "at most";

impl Sizes {
    pub fn of(limit: &Limit) -> Self {
        Self {
            algorithm: limit.algorithm,
            lease: limit.lease,
            requests: Some(limit.requests),
            window_ms: Some(limit.window_ms),
            cost: Some(limit.cost.miss),
        }
    }

    pub fn misfits(&self, redis_ms: u64) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        let mut add = |field, message, bound, number| {
            misfits.push(Misfit {
                field,
                message,
                bound,
                number,
            });
        };
        if let Some(window_ms) = self.window_ms {
            let sliding = self.algorithm == Algorithm::SlidingWindow;
            let (least, what, part_ms) = match sliding {
                true => {
                    let bucket_ms = bucket_ms(window_ms, redis_ms);
                    (min_window_ms(redis_ms), "10 buckets of ", bucket_ms)
                }
                false => (MIN_WINDOW_MS, "", MIN_WINDOW_MS),
            };
            if window_ms < least {
                let (window, part) = (show_ms(window_ms), show_ms(part_ms));
                let message = format!("a window of {window} is shorter than {what}{part}");
                add("window", message, LEAST, least);
            }
        }
        let Some(requests) = self.requests else {
            return misfits;
        };
        let wide = u64::from(requests);
        let window_ms = self.window_ms.unwrap_or(MAX_WINDOW_MS);
        let (why, bound, number) = match self.algorithm {
            Algorithm::SlidingLog => (
                "too large for a sliding log, which keeps each of them",
                MOST,
                u64::from(MAX_LOG_REQUESTS),
            ),
            Algorithm::TokenBucket { .. } => (
                "too large for a token bucket with this window",
                MOST,
                window_ms.saturating_mul(MAX_BUCKET_RATE),
            ),
            _ if self.lease => ("too small to lease", LEAST, u64::from(MIN_LEASED_REQUESTS)),
            _ => ("", LEAST, 0),
        };
        if (bound == MOST && wide > number) || (bound == LEAST && wide < number) {
            let message = format!("a limit of {requests} is {why}");
            add("requests", message, bound, number);
        }
        let (most, why) = match self.algorithm {
            Algorithm::SlidingLog if requests > MAX_LOG_COST => {
                (MAX_LOG_COST, "a sliding log's most at once")
            }
            Algorithm::TokenBucket { burst } if burst < requests => (burst, "the `burst`"),
            _ => (requests, "the limit"),
        };
        if let Some(cost) = self.cost
            && cost > most
        {
            let message = format!("is {cost} and {why} {most}: no request would ever fit");
            add("cost", message, MOST, u64::from(most));
        }
        if let Algorithm::TokenBucket { burst } = self.algorithm {
            // Its key lives until then.
            let most = wide.saturating_mul(MAX_WINDOW_MS) / window_ms.max(1);
            if u64::from(burst) > most {
                let message =
                    format!("a `burst` of {burst} takes longer than 31 days to come back");
                add("burst", message, MOST, most);
            }
        }
        misfits
    }
}
