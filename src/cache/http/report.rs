//! What an answer says of the cache (RFC 9211).

use super::record::Stored;
use crate::http::Headers;

/// Why a request went on to the origin (RFC 9211, 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Nothing is stored for the URI.
    UriMiss,
    /// Nothing that the request's fields select.
    VaryMiss,
    Stale,
    /// What is stored is fresh, but not what the request wants.
    Request,
    Bypass,
    Method,
}

impl Forward {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Bypass => "bypass",
            Self::Method => "method",
        }
    }
}

/// One member of Cache-Status. Without `forward` it is a hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    pub forward: Option<Forward>,
    /// What the origin said, when the answer has another status.
    pub forward_status: Option<u16>,
    pub stored: bool,
    /// Another request's trip to the origin brought it.
    pub collapsed: bool,
    /// What is left of its freshness, below zero when that is over.
    pub ttl_s: Option<i64>,
    pub detail: Option<&'static str>,
}

impl Report {
    pub fn hit(stored: &Stored, now_ms: u64) -> Self {
        let ttl_s = stored.ttl_s(now_ms);
        Self {
            ttl_s: Some(ttl_s),
            detail: Some(if ttl_s < 0 { "stale" } else { "l2" }),
            ..Self::default()
        }
    }

    pub fn forwarded(forward: Forward, detail: Option<&'static str>) -> Self {
        Self {
            forward: Some(forward),
            detail,
            ..Self::default()
        }
    }

    /// Appends it to what caches further up said. The key is not told: it has the query,
    /// which may be a secret of the visitor's that logs on the way should not have.
    pub fn add_to(&self, headers: &mut Headers) {
        let mut out = "edgeweir".to_owned();
        match self.forward {
            None => out.push_str("; hit"),
            Some(forward) => {
                out.push_str("; fwd=");
                out.push_str(forward.as_str());
            }
        }
        if let Some(status) = self.forward_status {
            out.push_str("; fwd-status=");
            out.push_str(&status.to_string());
        }
        if let Some(ttl_s) = self.ttl_s {
            out.push_str("; ttl=");
            out.push_str(&ttl_s.to_string());
        }
        for (is_so, word) in [(self.stored, "; stored"), (self.collapsed, "; collapsed")] {
            if is_so {
                out.push_str(word);
            }
        }
        if let Some(detail) = self.detail {
            out.push_str("; detail=");
            out.push_str(detail);
        }
        headers.append("cache-status", out);
    }
}
