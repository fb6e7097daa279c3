//! Changing controls: a change holds once Redis has answered, and here at once.

use super::{KEY, MAX_CONTROLS, TTL_MS, hgetall, record};
use crate::failure::Failure;
use crate::names::Names;
use crate::ports::{Clock, Ports, Redis, Store};
use crate::redis::{Batch, Command, Reply};
use crate::visit::Visit;

/// Fields that are set and fields that go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub set: Vec<(String, String)>,
    pub remove: Vec<String>,
    /// Run with it, in the same moment.
    pub beside: Vec<Command>,
}

impl Change {
    /// Makes it; answers how many fields went. Whatever fails leaves it undone or, when
    /// Redis did not answer, done without a word: to make it once more is harmless.
    pub async fn make<P: Ports>(self, visit: &Visit<'_, P>) -> Result<u64, Failure> {
        let mut added = Vec::new();
        if !self.set.is_empty() {
            let now = read(visit).await?;
            let fields = now.as_list().unwrap_or_default().iter().step_by(2);
            let fields = fields.filter_map(Reply::as_str).map(str::to_owned);
            let fields: Names = fields.collect();
            let is_there = |field: &str| fields.contains(field);
            let names = self.set.iter().map(|(field, _)| field.as_str());
            let names = names.filter(is_counted).filter(|field| !is_there(field));
            added.extend(names.map(str::to_owned));
            let going = self.remove.iter().filter(|field| is_there(field)).count();
            if !added.is_empty() && count(&now) + added.len() > MAX_CONTROLS + going {
                return Err(full());
            }
        }
        let mut commands = Vec::with_capacity(4);
        if !self.remove.is_empty() {
            commands.push(Command::new("HDEL").arg(KEY).args(self.remove));
        }
        let removes = commands.len();
        if !self.set.is_empty() {
            let pairs = self
                .set
                .into_iter()
                .flat_map(|(field, value)| [field, value]);
            commands.push(Command::new("HSET").arg(KEY).args(pairs));
        }
        commands.extend(self.beside);
        let replies = send(visit, commands).await?;
        let now = replies.last().unwrap_or(&Reply::Nil);
        // Others may have added some at the same time.
        if count(now) > MAX_CONTROLS && !added.is_empty() {
            let undo = vec![Command::new("HDEL").arg(KEY).args(added)];
            send(visit, undo).await?;
            return Err(full());
        }
        let gone = replies
            .first()
            .filter(|_| removes > 0)
            .and_then(Reply::as_int);
        Ok(u64::try_from(gone.unwrap_or(0)).unwrap_or(0))
    }
}

/// All fields as Redis has them; this isolate's copy is renewed with them.
pub async fn read<P: Ports>(visit: &Visit<'_, P>) -> Result<Reply, Failure> {
    let replies = trip(visit, Batch::pipeline(vec![hgetall()])).await?;
    replies.into_iter().next().ok_or(Failure::RedisUnavailable)
}

/// Changes, then reads all of it in the same moment.
async fn send<P: Ports>(
    visit: &Visit<'_, P>,
    mut commands: Vec<Command>,
) -> Result<Vec<Reply>, Failure> {
    commands.push(Command::pexpire(KEY, TTL_MS));
    commands.push(hgetall());
    trip(visit, Batch::multi(commands)).await
}

/// The last command reads all fields.
async fn trip<P: Ports>(visit: &Visit<'_, P>, batch: Batch) -> Result<Vec<Reply>, Failure> {
    let timeout_ms = visit.redis_timeout_ms();
    let answer = visit.pipeline(Store::Limits(0), &batch, timeout_ms).await;
    let replies = answer.map_err(|_| Failure::RedisUnavailable)?;
    let fields = replies
        .last()
        .filter(|reply| record::controls(reply).is_some());
    match fields {
        Some(fields) if !replies.iter().any(Reply::is_error) => {
            super::adopt(visit.gateway, fields, visit.now_ms());
        }
        _ => return Err(Failure::RedisUnavailable),
    }
    Ok(replies)
}

/// Resets have places of their own.
fn is_counted(field: &&str) -> bool {
    !field.starts_with("reset:")
}

fn count(fields: &Reply) -> usize {
    let fields = fields.as_list().unwrap_or_default().iter().step_by(2);
    fields.filter_map(Reply::as_str).filter(is_counted).count()
}

fn full() -> Failure {
    Failure::BadRequest {
        detail: format!("there are {MAX_CONTROLS} controls already; remove some first"),
    }
}
