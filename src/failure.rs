//! The one error at the boundary: a stable code, a status, and a text for the caller.
//!
//! A refusal by a limit is not a failure of ours, but it is answered in the
//! same form (RFC 9457, `application/problem+json`). Nothing here carries an
//! internal text to the caller.

use crate::http::{Body, Headers, Response};
use crate::json::{Map, Value, json};
use crate::limit::Verdict;
use crate::policy::PolicyError;

/// Everything the edge itself answers with instead of the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A limit refused; names of the limits, and milliseconds until it fits.
    QuotaExceeded {
        violated: Vec<String>,
        retry_after_ms: u64,
    },
    /// A list names the visitor; which one, he is not told.
    Denied,
    /// The address is banned for what it did before; names of the limits whose penalty it
    /// is, and milliseconds until the ban ends.
    AbnormalUsage {
        violated: Vec<String>,
        retry_after_ms: u64,
    },
    /// Redis is down on a route that is closed then.
    ReducedCapacity,
    OriginUnreachable,
    OriginTimeout,
    /// The request wants only what is cached, and it is not (RFC 9111, 5.2.1.7).
    NotCached,
    /// A required variable is missing or malformed; `problem` holds no value.
    Misconfigured {
        variable: String,
        problem: String,
    },
    /// `POLICY` is wrong: each error with its JSON pointer.
    BadPolicy {
        errors: Vec<Value<'static>>,
    },
    /// Under `/-/`, or an admin path without `ADMIN_TOKEN`.
    NotFound,
    MethodNotAllowed {
        allow: &'static str,
    },
    Unauthorized,
    BadRequest {
        detail: String,
    },
    /// The path is longer than `gateway::MAX_PATH_BYTES`.
    UriTooLong,
    /// An admin call could not reach Redis.
    RedisUnavailable,
    /// Another run of the sync has the lock.
    SyncBusy,
    /// The origin did not take a batch of views.
    BatchRefused,
}

impl Failure {
    /// What a verdict of the limits is answered with; `None`: it admits.
    pub fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Admitted => None,
            Verdict::Refused {
                retry_after_ms,
                violated,
            } => Some(Self::QuotaExceeded {
                violated,
                retry_after_ms,
            }),
            Verdict::Unavailable => Some(Self::ReducedCapacity),
        }
    }

    /// What is wrong with `POLICY`, or with a variable that changes it.
    pub fn bad_policy(errors: Vec<PolicyError>) -> Self {
        let of_variable = |error: &PolicyError| error.line.is_none() && !error.pointer.is_empty();
        if let Some(first) = errors.first().filter(|_| errors.iter().all(of_variable)) {
            let mut problem = format!("is wrong: {}; {}", first.message, first.help);
            for other in errors.iter().skip(1) {
                problem.push_str(&format!(
                    ". {} is wrong too: {}",
                    other.pointer, other.message
                ));
            }
            return Self::Misconfigured {
                variable: first.pointer.clone(),
                problem,
            };
        }
        let member = |error: PolicyError| json!({ "pointer": error.pointer, "message": error.message, "help": error.help });
        Self::BadPolicy {
            errors: errors.into_iter().map(member).collect(),
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::QuotaExceeded { .. } | Self::AbnormalUsage { .. } => 429,
            Self::Denied => 403,
            Self::ReducedCapacity
            | Self::Misconfigured { .. }
            | Self::BadPolicy { .. }
            | Self::RedisUnavailable
            | Self::SyncBusy => 503,
            Self::OriginUnreachable | Self::BatchRefused => 502,
            Self::OriginTimeout | Self::NotCached => 504,
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::Unauthorized => 401,
            Self::BadRequest { .. } => 400,
            Self::UriTooLong => 414,
        }
    }

    /// Problem types that IANA registers; the others have none of their own
    /// (RFC 9457, 4.2.1).
    fn type_uri(&self) -> &'static str {
        match self {
            Self::QuotaExceeded { .. } => {
                "https://iana.org/assignments/http-problem-types#quota-exceeded"
            }
            Self::AbnormalUsage { .. } => {
                "https://iana.org/assignments/http-problem-types#abnormal-usage-detected"
            }
            Self::ReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            _ => "about:blank",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::QuotaExceeded { .. } => {
                "Request cannot be satisfied as assigned quota has been exceeded"
            }
            Self::AbnormalUsage { .. } => {
                "Request not satisfied due to detection of abnormal request pattern"
            }
            Self::ReducedCapacity => {
                "Request cannot be satisfied due to temporary server capacity constraints"
            }
            Self::Denied => "Forbidden",
            Self::OriginUnreachable | Self::BatchRefused => "Bad Gateway",
            Self::OriginTimeout | Self::NotCached => "Gateway Timeout",
            Self::Misconfigured { .. }
            | Self::BadPolicy { .. }
            | Self::RedisUnavailable
            | Self::SyncBusy => "Service Unavailable",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed { .. } => "Method Not Allowed",
            Self::Unauthorized => "Unauthorized",
            Self::BadRequest { .. } => "Bad Request",
            Self::UriTooLong => "URI Too Long",
        }
    }

    /// The text for the caller; it is fit for the log too.
    pub fn detail(&self) -> String {
        match self {
            Self::QuotaExceeded { retry_after_ms, .. } => format!(
                "This request fits again in {} seconds.",
                whole_seconds(*retry_after_ms)
            ),
            Self::Denied => "This request is not allowed.".to_owned(),
            Self::AbnormalUsage { retry_after_ms, .. } => format!(
                "This client's requests follow an abnormal pattern; none is served for {} seconds.",
                whole_seconds(*retry_after_ms)
            ),
            Self::ReducedCapacity => {
                "The limits of this route cannot be checked at the moment.".to_owned()
            }
            Self::OriginUnreachable => "The origin could not be reached.".to_owned(),
            Self::OriginTimeout => "The origin did not answer in time.".to_owned(),
            Self::NotCached => "Nothing is cached that this request may get.".to_owned(),
            Self::Misconfigured { variable, problem } => {
                format!("The variable {variable} {problem}.")
            }
            Self::BadPolicy { errors } => {
                let first = errors.first().unwrap_or(&Value::Null);
                let text = |member: &str| first.get(member).and_then(Value::as_str).unwrap_or("");
                format!(
                    "The variable POLICY has {} error(s); the first, at \"{}\": {}; {}.",
                    errors.len(),
                    text("pointer"),
                    text("message"),
                    text("help")
                )
            }
            Self::NotFound => "There is nothing here.".to_owned(),
            Self::MethodNotAllowed { allow } => format!("Use {allow}."),
            Self::Unauthorized => "A valid admin token is needed.".to_owned(),
            Self::BadRequest { detail } => detail.clone(),
            Self::UriTooLong => "The path is longer than this server takes.".to_owned(),
            Self::RedisUnavailable => "Redis did not confirm in time.".to_owned(),
            Self::SyncBusy => "Another sync is at work.".to_owned(),
            Self::BatchRefused => "The origin did not take a batch of views; it waits.".to_owned(),
        }
    }

    pub fn into_response<B>(self) -> Response<B> {
        let mut members = Map::new();
        members.insert("type", json!(self.type_uri()));
        members.insert("title", json!(self.title()));
        members.insert("status", json!(self.status()));
        members.insert("detail", json!(self.detail()));
        let mut headers = Headers::new();
        headers.append("content-type", "application/problem+json");
        headers.append("cache-control", "no-store");
        let status = self.status();
        match self {
            Self::QuotaExceeded {
                violated,
                retry_after_ms,
            }
            | Self::AbnormalUsage {
                violated,
                retry_after_ms,
            } => {
                members.insert("violated-policies", json!(violated));
                headers.append("retry-after", whole_seconds(retry_after_ms).to_string());
            }
            Self::ReducedCapacity | Self::RedisUnavailable | Self::SyncBusy => {
                headers.append("retry-after", "5")
            }
            Self::Misconfigured { variable, .. } => {
                members.insert("variable", json!(variable));
            }
            Self::BadPolicy { errors } => {
                members.insert("variable", json!("POLICY"));
                members.insert("errors", Value::Array(errors));
            }
            Self::MethodNotAllowed { allow } => headers.append("allow", allow),
            Self::Unauthorized => headers.append("www-authenticate", "Bearer"),
            _ => {}
        }
        let body = Value::Object(members).text();
        Response {
            status,
            headers,
            body: Body::Bytes(body.into_bytes().into()),
        }
    }
}

/// Whole seconds, rounded up and at least one, so that nobody retries too early.
pub fn whole_seconds(duration_ms: u64) -> u64 {
    duration_ms.div_ceil(1000).max(1)
}
