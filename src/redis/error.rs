//! Why a trip to Redis brought nothing usable.

use std::fmt;

/// Closed list of the ways a trip fails; `as_str` names it in metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RedisErrorKind {
    /// No answer within the deadline. The commands may have run.
    Timeout,
    /// The connection failed or broke. The commands may have run.
    Transport,
    /// 401: the token is wrong.
    Unauthorized,
    /// The plan's request or bandwidth quota is used up.
    Quota,
    /// Redis is out of memory or the database is at its capacity.
    Full,
    /// A replica that takes no writes.
    ReadOnly,
    /// The request or the answer was larger than allowed.
    TooLarge,
    /// 400: the batch itself was refused, no command ran.
    Rejected,
    /// Another status than 200, 400, 401.
    Status,
    /// Not JSON, of another shape, or with too few or too many replies.
    Malformed,
    /// The breaker is open: nothing was sent.
    Open,
}

impl RedisErrorKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Transport => "transport",
            Self::Unauthorized => "unauthorized",
            Self::Quota => "quota",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::TooLarge => "too_large",
            Self::Rejected => "rejected",
            Self::Status => "status",
            Self::Malformed => "malformed",
            Self::Open => "open",
        }
    }
}

/// A failed trip. `detail` is for the log only and never holds a token or key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisError {
    pub kind: RedisErrorKind,
    pub detail: String,
}

impl RedisError {
    pub fn new(kind: RedisErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for RedisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis {}: {}", self.kind.as_str(), self.detail)
    }
}
