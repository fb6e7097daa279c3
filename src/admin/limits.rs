//! `/-/limits/{route}`: what one id has used, beginning it anew, and other sizes.
//!
//! Limits that count by something else than the id are left out. A limit over all
//! requests (`by = "global"`) is shown with every id, but only `id=global` resets it,
//! and one with `per = "all"` is reset only with `all=true`: both are others' counts too.
//! A reset of an address where a limit has a penalty ends its ban, too, on all routes, also if
//! no limit counts it: a ban is always of an address.

use super::named::Named;
use super::query::Query;
use super::{answer_json, bad, object};
use crate::admission::Limited;
use crate::controls::{self, Change, override_field, reset_field};
use crate::failure::{Failure, whole_seconds};
use crate::gateway::Gateway;
use crate::http::{Request, Response};
use crate::json::{Map, Value, json};
use crate::limit::{self, Charge};
use crate::penalty;
use crate::policy::{By, Limit, Per};
use crate::ports::Ports;
use crate::redis::Reply;
use crate::visit::Visit;

pub async fn answer<P: Ports>(
    visit: &Visit<'_, P>,
    request: &Request,
    route: &str,
    body: &[u8],
) -> Result<Response<P::Body>, Failure> {
    let limited = Limited::named(visit.gateway, route)
        .ok_or_else(|| bad("no route has that name; `*` stands for all that match none"))?;
    let query = request.query.as_deref();
    let report = match request.method.as_str() {
        "PUT" => {
            let query = Query::parse(query, &["limit", "id"])?;
            set(visit, &limited, &query, body).await?
        }
        "DELETE" => {
            let query = Query::parse(query, &["id", "all", "override", "limit"])?;
            match query.of_override {
                true => unset(visit, &limited, &query).await?,
                false => reset(visit, &limited, &query).await?,
            }
        }
        _ => peek(visit, &limited, &Query::parse(query, &["id"])?).await?,
    };
    Ok(answer_json(&report))
}

/// The limits that count an id, as that id's requests are charged.
fn charges<'p>(
    gateway: &Gateway,
    limited: &Limited<'p>,
    wants: impl Fn(&Limit) -> Option<String>,
) -> Vec<Charge<'p>> {
    let controls = gateway.controls.borrow();
    let charge = |limit: &'p Limit| Some(limited.charge(controls.copy(), limit, wants(limit)?));
    limited.limits.iter().filter_map(charge).collect()
}

fn not_counted() -> Failure {
    bad("no limit of this route counts by that `id`")
}

async fn peek<P: Ports>(
    visit: &Visit<'_, P>,
    limited: &Limited<'_>,
    query: &Query,
) -> Result<Value<'static>, Failure> {
    let gateway = visit.gateway;
    let named = (query.id.as_deref())
        .map(|id| Named::parse(id, gateway))
        .transpose()?;
    // What operators say now, whatever this isolate knew.
    let fields = controls::read(visit).await?;
    let charges = charges(gateway, limited, |limit| match limit.by {
        By::Global => Some("global".to_owned()),
        _ => named.as_ref()?.id(gateway, limit),
    });
    if charges.is_empty() {
        return Err(not_counted());
    }
    let timeout_ms = visit.redis_timeout_ms();
    let quotas = limit::peek(&gateway.limits, visit, timeout_ms, &charges).await;
    let quotas = quotas.map_err(|_| Failure::RedisUnavailable)?;
    let limits = charges.iter().zip(quotas).map(|(charge, quota)| {
        let mut shown = Map::new();
        let mut show = |name, value| shown.insert(name, value);
        show("name", json!(quota.name));
        show("requests", json!(quota.requests));
        show("window", json!(whole_seconds(quota.window_ms)));
        show(
            "used",
            json!(quota.capacity.saturating_sub(u64::from(quota.remaining))),
        );
        show("remaining", json!(quota.remaining));
        show("reset", json!(whole_seconds(quota.reset_ms)));
        let field = |id| override_field(charge.limit, limited.name, id);
        let of_id = field(Some(charge.id.as_str()));
        if let Some(value) = value_of(&fields, &of_id) {
            show("override", json!({ "of": "id", "requests": value }));
        } else if let Some(value) = value_of(&fields, &field(None)) {
            show("override", json!({ "of": "route", "requests": value }));
        }
        Value::Object(shown)
    });
    let limits: Vec<Value<'_>> = limits.collect();
    Ok(json!({ "route": limited.name, "limits": limits }))
}

fn value_of(fields: &Reply, name: &str) -> Option<u32> {
    let pairs = fields.as_list()?.chunks_exact(2);
    let mut pairs = pairs.filter(|pair| pair.first().and_then(Reply::as_str) == Some(name));
    pairs.next()?.last()?.as_str()?.parse().ok()
}

async fn reset<P: Ports>(
    visit: &Visit<'_, P>,
    limited: &Limited<'_>,
    query: &Query,
) -> Result<Value<'static>, Failure> {
    if query.limit.is_some() {
        return Err(bad(
            "`limit` goes with `override=true`; a reset is of all limits of an id",
        ));
    }
    let Some(id) = &query.id else {
        return Err(bad("say whose counts begin anew: `id`"));
    };
    let gateway = visit.gateway;
    let named = Named::parse(id, gateway)?;
    let charges = charges(gateway, limited, |limit| {
        let is_own = query.all || limit.per == Per::Route;
        named.id(gateway, limit).filter(|_| is_own)
    });
    let is_punishing = limited.limits.iter().any(|limit| limit.penalty.is_some());
    let banned = named.banned(gateway).filter(|_| is_punishing);
    if charges.is_empty() && banned.is_none() {
        return Err(not_counted());
    }
    let (limits, timeout_ms) = (&gateway.limits, visit.redis_timeout_ms());
    let done = limit::reset(limits, visit, timeout_ms, &charges).await;
    done.map_err(|_| Failure::RedisUnavailable)?;
    // Each isolate knows something of its own.
    let mut change = Change::default();
    let mut told: Vec<&str> = Vec::new();
    for Charge { id, .. } in &charges {
        if !told.contains(&id.as_str()) {
            told.push(id);
            let random = visit.ports.random();
            change.set.push(reset_field(random, limited.name, id));
        }
    }
    if let Some(ip) = banned {
        change.beside.push(penalty::reset(&ip));
        gateway.penalties.borrow_mut().forget(&ip);
    }
    change.make(visit).await?;
    let names: Vec<&str> = charges
        .iter()
        .map(|charge| charge.limit.name.as_str())
        .collect();
    Ok(json!({ "route": limited.name, "reset": names }))
}

/// The limit that a call names, and the id under it if it names one.
fn target<'p>(
    gateway: &Gateway,
    limited: &Limited<'p>,
    query: &Query,
) -> Result<(&'p Limit, Option<String>), Failure> {
    let wanted = query.limit.as_deref();
    let mut limits = limited.limits.iter();
    let limit = limits
        .find(|limit| Some(limit.name.as_str()) == wanted)
        .ok_or_else(|| bad("`limit` must be the name of a limit of this route"))?;
    let id = match &query.id {
        None => None,
        Some(text) => {
            let id = Named::parse(text, gateway)?.id(gateway, limit);
            Some(id.ok_or_else(|| bad("this limit does not count by that `id`"))?)
        }
    };
    Ok((limit, id))
}

async fn set<P: Ports>(
    visit: &Visit<'_, P>,
    limited: &Limited<'_>,
    query: &Query,
    body: &[u8],
) -> Result<Value<'static>, Failure> {
    let (limit, id) = target(visit.gateway, limited, query)?;
    let members = object(body)?;
    let (least, most) = controls::sizes(limit);
    let requests = members
        .get("requests")
        .filter(|_| members.len() == 1)
        .and_then(Value::as_u64)
        .filter(|requests| (least..=most).contains(requests))
        .ok_or_else(|| {
            let mut detail = String::from("the body must be {\"requests\": N}, N from ");
            detail.push_str(&least.to_string());
            detail.push_str(" to ");
            detail.push_str(&most.to_string());
            bad(&detail)
        })?;
    let field = override_field(limit, limited.name, id.as_deref());
    let change = Change {
        set: vec![(field, requests.to_string())],
        ..Change::default()
    };
    change.make(visit).await?;
    Ok(report(limited, limit, id, "requests", json!(requests)))
}

async fn unset<P: Ports>(
    visit: &Visit<'_, P>,
    limited: &Limited<'_>,
    query: &Query,
) -> Result<Value<'static>, Failure> {
    if query.all {
        return Err(bad("`all` goes with a reset, not with `override=true`"));
    }
    let (limit, id) = target(visit.gateway, limited, query)?;
    let change = Change {
        remove: vec![override_field(limit, limited.name, id.as_deref())],
        ..Change::default()
    };
    let gone = change.make(visit).await?;
    Ok(report(limited, limit, id, "removed", json!(gone > 0)))
}

fn report(
    limited: &Limited<'_>,
    limit: &Limit,
    id: Option<String>,
    member: &'static str,
    value: Value<'static>,
) -> Value<'static> {
    let mut shown = Map::new();
    shown.insert("route", json!(limited.name));
    shown.insert("limit", json!(&limit.name));
    if let Some(id) = id {
        shown.insert("id", json!(id));
    }
    shown.insert(member, value);
    Value::Object(shown)
}
