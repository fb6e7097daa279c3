//! `GET /-/limits` shows what operators have changed; `POST /-/lists` changes the lists.

use super::{answer_json, bad, object};
use crate::controls::{self, Change, Control, List, subject, subject_field};
use crate::failure::Failure;
use crate::http::Response;
use crate::json::{Map, Value, json};
use crate::names::Names;
use crate::ports::{Clock, Ports, Redis, Store};
use crate::refused;
use crate::visit::Visit;

/// Of those that limits refused most.
const SHOWN: usize = 50;

pub async fn show<P: Ports>(visit: &Visit<'_, P>) -> Result<Response<P::Body>, Failure> {
    let fields = controls::read(visit).await?;
    let mut overrides = Vec::new();
    let mut lists = [Names::new(), Names::new()];
    for (field, control) in controls::controls(&fields).into_iter().flatten() {
        match control {
            Control::Requests {
                route,
                limit,
                id,
                requests,
            } => {
                let mut shown = Map::new();
                shown.insert("route", json!(route));
                shown.insert("limit", json!(limit));
                if let Some(id) = id {
                    shown.insert("id", json!(id));
                }
                shown.insert("requests", json!(requests));
                overrides.push(Value::Object(shown));
            }
            Control::Reset { .. } => {}
            Control::Listed { list, .. } => {
                let [deny, allow] = &mut lists;
                let of = match list {
                    List::Deny => deny,
                    List::Allow => allow,
                };
                of.extend(field.strip_prefix("list:").map(str::to_owned));
            }
        }
    }
    let [deny, allow] = lists.map(|list| json!(list.into_vec()));
    let refused = Value::Array(top_refused(visit).await?);
    let report =
        json!({ "overrides": overrides, "deny": deny, "allow": allow, "refused": refused });
    Ok(answer_json(&report))
}

/// Whom limits refused most in the last hour.
async fn top_refused<P: Ports>(visit: &Visit<'_, P>) -> Result<Vec<Value<'static>>, Failure> {
    let offset_ms = visit.gateway.limits.borrow().clock_offset_ms(0);
    let now_ms = visit.now_ms().saturating_add_signed(offset_ms.unwrap_or(0));
    let batch = refused::top(now_ms);
    let timeout_ms = visit.redis_timeout_ms();
    let answer = visit.pipeline(Store::Limits(0), &batch, timeout_ms).await;
    let replies = answer.map_err(|_| Failure::RedisUnavailable)?;
    let top = refused::judge_top(&replies, SHOWN).ok_or(Failure::RedisUnavailable)?;
    let shown = |top: refused::Top| json!({ "id": top.id, "route": top.route, "limit": top.limit, "count": top.count });
    Ok(top.into_iter().map(shown).collect())
}

/// Each subject is on one list at most: whoever is allowed is denied no more.
pub async fn change<P: Ports>(
    visit: &Visit<'_, P>,
    body: &[u8],
) -> Result<Response<P::Body>, Failure> {
    let mut change = Change::default();
    let mut counts = [0_usize; 3];
    let [denied, allowed, removed] = &mut counts;
    for (member, value) in object(body)?.iter() {
        let fields = fields(value)?;
        let (count, list) = match member {
            "deny" => (&mut *denied, Some(List::Deny)),
            "allow" => (&mut *allowed, Some(List::Allow)),
            "remove" => (&mut *removed, None),
            _ => return Err(bad("known members are deny, allow and remove")),
        };
        *count = fields.len();
        match list {
            Some(list) => {
                let value = |field| (field, list.as_str().to_owned());
                change.set.extend(fields.into_iter().map(value));
            }
            None => change.remove.extend(fields),
        }
    }
    let set = change.set.iter().map(|(field, _)| field);
    let all: Names = set.chain(&change.remove).cloned().collect();
    if all.len() < change.set.len() + change.remove.len() {
        return Err(bad(
            "one of them is named twice; each goes to one list or away",
        ));
    }
    if all.len() > controls::MAX_CONTROLS {
        return Err(bad("at most 1000 in one call"));
    }
    let report = json!({ "deny": *denied, "allow": *allowed, "remove": *removed });
    if !all.is_empty() {
        change.make(visit).await?;
    }
    Ok(answer_json(&report))
}

fn fields(value: &Value<'_>) -> Result<Vec<String>, Failure> {
    let Some(texts) = value.as_array() else {
        return Err(bad("deny, allow and remove are lists of text"));
    };
    let field = |text: &Value<'_>| {
        let subject = subject(text.as_str().unwrap_or_default());
        subject.map(|subject| subject_field(&subject))
    };
    let fields: Result<_, String> = texts.iter().map(field).collect();
    fields.map_err(|problem| bad(&problem))
}
