//! What a failed trip says about Redis: which kind of failure it is, and whether
//! Redis cannot be used or has merely refused this batch.
//!
//! Statuses and texts are those of Upstash, serverless-redis-http and Redis itself.
//! No detail quotes an answer: an error may quote a key.

use super::codec::{self, Decoded};
use super::known::Known;
use super::rest::Answer;
use super::{Command, RedisError, RedisErrorKind, Reply};

/// A failed trip and what it says about Redis.
pub(super) struct Failure {
    pub(super) error: RedisError,
    /// Redis cannot be used, as opposed to: it answered, but not to our liking.
    pub(super) is_outage: bool,
    pub(super) is_sent: bool,
}

impl Failure {
    pub(super) fn outage(kind: RedisErrorKind, detail: impl Into<String>) -> Self {
        Self {
            error: RedisError::new(kind, detail),
            is_outage: true,
            is_sent: true,
        }
    }

    /// Redis' own refusal of a batch, by what its error says.
    pub(super) fn refused(kind: RedisErrorKind, detail: impl Into<String>) -> Self {
        use RedisErrorKind::{Full, ReadOnly, Rejected, TooLarge};
        Self {
            is_outage: !matches!(kind, Rejected | TooLarge | Full | ReadOnly),
            ..Self::outage(kind, detail)
        }
    }

    pub(super) fn not_sent() -> Self {
        Self {
            is_outage: false,
            is_sent: false,
            ..Self::outage(RedisErrorKind::TooLarge, "the request is too large")
        }
    }
}

/// What an answer that came in time says.
pub(super) fn judge(
    answer: &Answer,
    commands: &[Command],
    known: &mut Known,
) -> Result<Vec<Reply>, Failure> {
    match answer.status {
        200 => match codec::decode_known(&answer.body, commands, known) {
            Ok(Decoded::Replies(replies)) => match refused_as_a_whole(&replies) {
                Some(kind) => Err(Failure::refused(kind, "every command was refused")),
                None => Ok(replies),
            },
            Ok(Decoded::Refused(text)) => Err(match classify(&text) {
                Some(kind) => Failure::refused(kind, "the batch was refused"),
                None => Failure::outage(RedisErrorKind::Malformed, "one error for all commands"),
            }),
            Err(error) => Err(Failure::outage(RedisErrorKind::Malformed, error.as_str())),
        },
        400 => Err(match codec::decode(&answer.body, commands.len()) {
            Ok(Decoded::Refused(text)) => Failure::refused(
                classify(&text).unwrap_or(RedisErrorKind::Rejected),
                "the batch was refused with status 400",
            ),
            _ => Failure::outage(RedisErrorKind::Status, "status 400 without an error"),
        }),
        401 => Err(Failure::outage(
            RedisErrorKind::Unauthorized,
            "the token was refused",
        )),
        413 => Err(Failure::refused(RedisErrorKind::TooLarge, "status 413")),
        429 => Err(Failure::outage(RedisErrorKind::Quota, "status 429")),
        status => Err(Failure::outage(
            RedisErrorKind::Status,
            format!("status {status}"),
        )),
    }
}

/// The kind of the first error when every command failed for a reason that is not
/// its own.
fn refused_as_a_whole(replies: &[Reply]) -> Option<RedisErrorKind> {
    let mut kinds = replies.iter().map(|reply| match reply {
        Reply::Error(text) => classify(text).filter(|kind| *kind != RedisErrorKind::TooLarge),
        _ => None,
    });
    let first = kinds.next()??;
    kinds.all(|kind| kind.is_some()).then_some(first)
}

/// What an error text of Redis or Upstash means, when it is about the database and
/// not about one command. Only its beginning counts: what follows may quote a key.
pub fn classify(text: &str) -> Option<RedisErrorKind> {
    const WRAPPERS: [&str; 2] = ["EXECABORT Transaction discarded because of: ", "ERR "];
    const PHRASES: [(&str, RedisErrorKind); 15] = [
        ("max daily request limit exceeded", RedisErrorKind::Quota),
        ("max requests limit exceeded", RedisErrorKind::Quota),
        ("max concurrent connections exceeded", RedisErrorKind::Quota),
        ("max request size exceeded", RedisErrorKind::TooLarge),
        ("max single record size exceeded", RedisErrorKind::TooLarge),
        ("max key size exceeded", RedisErrorKind::TooLarge),
        ("DB capacity quota exceeded", RedisErrorKind::Full),
        ("OOM ", RedisErrorKind::Full),
        ("READONLY", RedisErrorKind::ReadOnly),
        ("NOREPLICAS", RedisErrorKind::ReadOnly),
        ("MISCONF", RedisErrorKind::ReadOnly),
        // The read-only token of Upstash says this to a write.
        ("NOPERM", RedisErrorKind::ReadOnly),
        ("WRONGPASS", RedisErrorKind::Unauthorized),
        ("NOAUTH", RedisErrorKind::Unauthorized),
        ("Unauthorized", RedisErrorKind::Unauthorized),
    ];
    let mut rest = text;
    for wrapper in WRAPPERS {
        rest = rest.strip_prefix(wrapper).unwrap_or(rest);
    }
    PHRASES
        .iter()
        .find(|(phrase, _)| rest.starts_with(phrase))
        .map(|(_, kind)| *kind)
}
