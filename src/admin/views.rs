//! `/-/views/{kind}/{id}`, which is open, and `/-/views/sync`.

use super::{answer_json, bad};
use crate::failure::Failure;
use crate::http::{Request, Response};
use crate::json::{Map, json};
use crate::policy::percent::decode;
use crate::policy::{Merge, Policy};
use crate::ports::Ports;
use crate::views::item::Item;
use crate::views::pending;
use crate::views::sync::{self, Outcome};
use crate::visit::Visit;

pub const SYNC: &str = "/-/views/sync";
const PREFIX: &str = "/-/views/";

/// What follows the prefix, if it is about one item.
pub fn item_of(path: &str) -> Option<(&str, &str)> {
    let (kind, id) = path.strip_prefix(PREFIX)?.split_once('/')?;
    (!id.contains('/')).then_some((kind, id))
}

/// What is pending of an item, and what it has in all.
pub async fn show<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    (kind, id): (&str, &str),
) -> Result<Response<P::Body>, Failure> {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Err(Failure::MethodNotAllowed { allow: "GET, HEAD" });
    }
    if !is_counted(&visit.gateway.policy, kind) {
        return Err(Failure::NotFound);
    }
    let item = decode(id, false).and_then(|id| Item::new(kind, &id));
    let item = item.ok_or_else(|| bad("an id has 1 to 128 bytes, percent-encoded"))?;
    let (pending, total) = match visit.gateway.settings.without_redis {
        true => (0, None),
        false => {
            let found = pending::of_item(visit, &item).await;
            found.ok_or(Failure::RedisUnavailable)?
        }
    };
    let mut report = Map::new();
    report.insert("pending", json!(pending));
    report.insert(
        "total",
        total.map_or(crate::json::Value::Null, |total| json!(total)),
    );
    Ok(answer_json(&crate::json::Value::Object(report)))
}

/// Whether a route of the policy counts or shows a kind.
fn is_counted(policy: &Policy, kind: &str) -> bool {
    let mut rules = policy.routes.iter().filter_map(|route| route.view.as_ref());
    rules.any(|rule| {
        let is_shown =
            matches!(&rule.merge, Some(Merge::Objects { kind: shown, .. }) if shown == kind);
        is_shown || rule.items.iter().any(|item| item.kind == kind)
    })
}

/// Sends what is pending, and answers when that is done.
pub async fn sync<P: Ports>(visit: &Visit<'_, P>) -> Result<Response<P::Body>, Failure> {
    let gateway = visit.gateway;
    let outcome = match gateway.settings.without_redis {
        true => Outcome::Done(sync::Report::default()),
        false => sync::by_hand(gateway, visit.ports).await,
    };
    match outcome {
        Outcome::Done(report) => Ok(answer_json(&json!({
            "batches": report.batches,
            "items": report.items,
            "views": report.views,
            "left": report.left,
        }))),
        Outcome::Busy => Err(Failure::SyncBusy),
        Outcome::OriginFailed(_) => Err(Failure::BatchRefused),
        Outcome::RedisFailed(_) => Err(Failure::RedisUnavailable),
    }
}
