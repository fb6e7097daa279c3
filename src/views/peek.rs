//! What a cron run finds without the lock: one trip that changes nothing.

use super::pending::{days, kinds, seen};
use super::record::State;
use super::{BACKOFF, MANY_PENDING, STATE};
use crate::deferred;
use crate::gateway::Gateway;
use crate::limit::time_ms;
use crate::ports::{Ports, Store};
use crate::redis::{Batch, Command, Reply};

/// Whether a pass is due; not, when Redis does not say.
pub async fn is_due<P: Ports>(gateway: &Gateway, ports: &P) -> bool {
    look(gateway, ports).await.unwrap_or(false)
}

async fn look<P: Ports>(gateway: &Gateway, ports: &P) -> Option<bool> {
    let kinds = kinds(&gateway.policy);
    let now_ms = ports.now_ms();
    let mut commands = vec![
        Command::new("MGET").arg(STATE).arg(BACKOFF),
        Command::new("TIME"),
    ];
    commands.extend(kinds.iter().map(|kind| seen(kind, days(now_ms))));
    let batch = Batch::pipeline(commands);
    let timeout_ms = deferred::timeout_ms(gateway);
    let replies = ports.pipeline(Store::Limits(0), &batch, timeout_ms).await;
    let replies = replies
        .inspect_err(|error| ports.log_failed_trip(error))
        .ok()?;
    let mut replies = replies.iter();
    let (found, time) = (replies.next()?.as_list()?, replies.next()?);
    let now_ms = time_ms(time)?;
    let state = found
        .first()
        .and_then(Reply::as_bytes)
        .and_then(State::read);
    let Some(state) = state else {
        // Nothing was ever sent: the first run sees whether there is something.
        return Some(!kinds.is_empty());
    };
    let (_, until_ms) = backoff(found.get(1));
    if now_ms < until_ms {
        return Some(false);
    }
    let pending = kinds.iter().zip(replies).map(|(kind, seen)| {
        let seen = seen.as_int().and_then(|seen| u64::try_from(seen).ok());
        state.pending(kind, seen.unwrap_or(0))
    });
    Some(
        state.pass.is_some()
            || gateway.settings.views.is_due(state.begun_ms, now_ms)
            || pending.sum::<u64>() > MANY_PENDING,
    )
}

/// How often the origin refused, and until when it is left alone.
pub fn backoff(reply: Option<&Reply>) -> (u32, u64) {
    let text = reply.and_then(Reply::as_str).unwrap_or("");
    let (times, until_ms) = text.split_once(' ').unwrap_or_default();
    (times.parse().unwrap_or(0), until_ms.parse().unwrap_or(0))
}
