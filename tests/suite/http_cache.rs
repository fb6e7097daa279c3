//! The cache of `mode = "http"`: its judgements, each by what the RFC says.

mod judgement;
mod record;
mod sf;
mod wire;

use edgeweir::cache::http::freshness::Span;
use edgeweir::http::Headers;

/// Sat, 21 Mar 2026 12:00:00 GMT.
pub const NOW_S: u64 = 1_774_094_400;
pub const NOW_MS: u64 = NOW_S * 1000;

/// `Name: value` on each line.
pub fn headers(text: &str) -> Headers {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name, value.trim()))
        .collect()
}

/// Asked and answered in the same millisecond.
pub fn at(now_ms: u64) -> Span {
    Span {
        asked_ms: now_ms,
        answered_ms: now_ms,
    }
}
