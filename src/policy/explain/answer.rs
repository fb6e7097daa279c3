//! Where an answer comes from, what of it is kept, and what a write does to the cache.

use super::super::key::Values;
use super::super::measure::{show_bytes, show_ms};
use super::super::percent::{decode, encode_component};
use super::super::route::Resolved;
use super::super::types::*;
use super::{Explanation, names, partial};
use edgeweir_json::{Map, Value, json};

pub fn explain(
    out: &mut Explanation,
    policy: &Policy,
    resolved: &Resolved<'_>,
    query: Option<&str>,
) {
    let Some(route) = resolved.route.filter(|_| resolved.exact) else {
        passes(out);
        if let Some(route) = resolved.limited_as
            && (route.purge.is_some() || route.fill.is_some())
        {
            let text = format!("a 2xx answer purges what {} purges", route.name);
            add!(out, "", text);
            out.fact("purges_like", route.name.clone());
        }
        return;
    };
    match (&route.cache, &route.compose) {
        (Some(rule), _) if rule.by_origin => by_origin(out, route, resolved, query),
        (Some(rule), _) => {
            out.fact("answer", "cache");
            let bypassed = kept(out, route, rule, resolved, query);
            out.fact("looked_up", bypassed.is_none());
            if let Some(why) = bypassed {
                out.fact("why", why);
                add!(out, "cache", format!("bypassed: {why}"));
            }
        }
        (None, Some(parts)) => composed(out, policy, parts),
        (None, None) => passes(out),
    }
    if let Some(rule) = &route.view {
        viewed(out, policy, rule, resolved);
    }
    if let Some(rule) = &route.purge {
        purged(out, rule, resolved);
    }
    if let Some(rule) = &route.fill {
        filled(out, policy, rule, resolved);
    }
}

fn passes(out: &mut Explanation) {
    add!(out, "answer", "passes through to the origin, uncached");
    out.fact("answer", "origin");
    out.fact("looked_up", false);
    let why = match out.facts.get("route") {
        None | Some(Value::Null) => "no route matches",
        _ => "the route has no cache, or the path is not its own",
    };
    out.fact("why", why);
}

fn by_origin(out: &mut Explanation, route: &Route, resolved: &Resolved<'_>, query: Option<&str>) {
    let mut key = format!("http:{}:{{scheme and host}}{}", route.name, resolved.path);
    if let Some(query) = query {
        key.push('?');
        key.push_str(query);
    }
    add!(
        out,
        "cache",
        "by the origin's headers (RFC 9111), keyed by the whole URL",
    );
    add!(out, "", format!("key {key}"));
    add!(
        out,
        "",
        "Cookie and Authorization go to the origin; its headers decide what is shared",
    );
    out.fact("answer", "http");
    out.fact("looked_up", true);
    out.fact("key", key);
    out.fact("ttl_from", "the origin's headers");
}

/// What is kept of a route's answers; the reason when this request bypasses it.
fn kept(
    out: &mut Explanation,
    route: &Route,
    rule: &CacheRule,
    resolved: &Resolved<'_>,
    query: Option<&str>,
) -> Option<&'static str> {
    let Some(selected) = rule.select(query) else {
        return Some("a listed query parameter is not valid, or all are too long");
    };
    let values = Values {
        path: &resolved.values,
        selected: Some(&selected),
        user: Some(SOMEBODY),
        body: None,
        response: None,
    };
    let render = |template: &Template| {
        let text = template.render(&values)?;
        Some(text.replace(&encode_component(SOMEBODY), SOMEBODY))
    };
    let tags: Option<Vec<String>> = rule.tags.iter().map(render).collect();
    let (Some(key), Some(tags)) = (render(&rule.key), tags) else {
        return Some("its key would be too long");
    };
    add!(out, "cache", format!("key {key}"));
    out.fact("key", key);
    if !tags.is_empty() {
        add!(out, "", format!("tags {}", tags.join(", ")));
    }
    out.fact("tags", tags);
    add!(
        out,
        "",
        format!(
            "fresh {}{}, then stale {}; 404 and 410 {}",
            show_ms(rule.ttl_ms),
            (rule.ttl_from).map_or(String::new(), |name| format!(" (the variable {name})")),
            show_ms(rule.stale_ms),
            (rule.negative_ms).map_or("not kept".to_owned(), |ms| format!("kept {}", show_ms(ms)))
        ),
    );
    out.fact("ttl", show_ms(rule.ttl_ms));
    out.fact("ttl_from", rule.ttl_from.unwrap_or("the policy"));
    out.fact("stale", show_ms(rule.stale_ms));
    if let Some(negative_ms) = rule.negative_ms {
        out.fact("negative", show_ms(negative_ms));
    }
    out.fact("l1", show_ms(route.l1_ms()));
    add!(
        out,
        "",
        match route.l1_ms() {
            0 => "l1: none, each hit asks Redis".to_owned(),
            l1_ms => format!(
                "l1: an isolate's own copy, up to {} after Redis confirmed it, when no limit needs a trip",
                show_ms(l1_ms)
            ),
        },
    );
    if let Some(patience_ms) = rule.patience_ms {
        let patience = show_ms(patience_ms);
        add!(
            out,
            "",
            format!("patience: {patience} for the origin, and then the stale one"),
        );
        out.fact("patience", patience);
    }
    if let Some(warm) = &rule.warm {
        warmed(out, warm);
    }
    let size = show_bytes(u64::try_from(rule.max_bytes).unwrap_or(u64::MAX));
    add!(out, "", format!("bodies up to {size}"));
    out.fact("max_size", size);
    parameters(out, &selected.query_string(), query);
    match rule.form {
        Form::Plain => {}
        Form::Packed => add!(
            out,
            "",
            "packed: any content type, gzipped when it pays, expanded for clients without gzip",
        ),
        Form::User => add!(
            out,
            "",
            "of one verified user, encrypted with CACHE_KEY; private outward, in no isolate's memory",
        ),
    }
    let (word, text) = match (rule.form, rule.forward_credentials) {
        (Form::User, _) => (
            "user",
            "his Cookie and Authorization go to the origin; whoever is nobody bypasses the cache",
        ),
        (_, true) => (
            "forward",
            "Cookie and Authorization go to the origin; an answer to either is not kept",
        ),
        (_, false) => (
            "none",
            "fetched without Cookie and Authorization, and served to everybody",
        ),
    };
    out.fact("credentials", word);
    add!(out, "", text);
    let stored = match rule.form {
        Form::Plain => {
            "a 200 with JSON, without Set-Cookie, private, no-store and a Vary on more than Accept-Encoding"
        }
        Form::Packed => {
            "a 200, without Set-Cookie, private, no-store and a Vary on more than Accept-Encoding"
        }
        Form::User => "a 200, without Set-Cookie and no-store",
    };
    add!(out, "", format!("stored: {stored}"));
    out.fact("stored", stored);
    None
}

/// Which entries are kept warm.
fn warmed(out: &mut Explanation, warm: &Warm) {
    let every = show_ms(warm.every_ms);
    let named = |(name, values): &(String, Vec<String>)| format!("{name} {}", values.join(", "));
    let mut which: Vec<String> = warm.values.iter().map(named).collect();
    if warm.top > 0 {
        which.push(format!("the {} most asked of the last hour", warm.top));
    }
    if which.is_empty() {
        which.push("the only entry".to_owned());
    }
    let text = format!("warm: {}, every {every}", which.join("; "));
    add!(out, "", text);
    let mut values: Vec<Value<'static>> = Vec::new();
    for (name, these) in &warm.values {
        values.push(json!({ "name": name.clone(), "values": these.clone() }));
    }
    out.fact(
        "warm",
        json!({ "every": every, "values": values, "top": warm.top }),
    );
}

/// Which parameters of the query reach key and origin.
fn parameters(out: &mut Explanation, kept: &str, query: Option<&str>) {
    if !kept.is_empty() {
        add!(out, "query", format!("kept: {kept}"));
    }
    let dropped: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty() && !kept.split('&').any(|kept| same_parameter(kept, pair)))
        .collect();
    if !dropped.is_empty() {
        let label = if kept.is_empty() { "query" } else { "" };
        add!(out, label, format!("dropped: {}", dropped.join("&")));
    }
    out.fact("query", kept.to_owned());
    out.fact("dropped", names(dropped));
}

/// Stands for a user whom nobody knows yet.
const SOMEBODY: &str = "{user}";

/// Whether a pair of the request's query is one that is kept.
fn same_parameter(kept: &str, pair: &str) -> bool {
    decode(kept, false) == decode(pair, true)
        || (!pair.contains('=') && kept.strip_suffix('=') == Some(pair))
}

fn composed(out: &mut Explanation, policy: &Policy, parts: &[Part]) {
    let answers: usize = parts
        .iter()
        .map(|part| part.each.as_ref().map_or(1, |each| each.values.len()))
        .sum();
    add!(
        out,
        "answer",
        format!("composed of {answers} answers, read in one trip"),
    );
    out.fact("answer", "compose");
    out.fact("looked_up", true);
    let mut facts: Vec<Value<'static>> = Vec::new();
    for part in parts {
        let Some(route) = policy.routes.get(part.route) else {
            continue;
        };
        let key = route
            .cache
            .as_ref()
            .map_or(String::new(), |rule| rule.key.text());
        let mut text = format!("{}: {} ({key})", part.name, route.name);
        let mut fact = Map::new();
        fact.insert("name", part.name.clone().into());
        fact.insert("route", route.name.clone().into());
        fact.insert("key", key.into());
        if let Some(each) = &part.each {
            let values = each.values.join(", ");
            text.push_str(&format!(", for each {} of {values}", each.placeholder));
            fact.insert("each", each.placeholder.clone().into());
            fact.insert("values", each.values.clone().into());
        }
        add!(out, "", text);
        facts.push(Value::Object(fact));
    }
    out.fact("parts", facts);
}

fn viewed(out: &mut Explanation, policy: &Policy, rule: &ViewRule, resolved: &Resolved<'_>) {
    let mut facts: Vec<Value<'static>> = Vec::new();
    for (at, item) in rule.items.iter().enumerate() {
        let shown = partial(&item.id, resolved);
        add!(
            out,
            if at == 0 { "view" } else { "" },
            format!("{} {shown}, once a user (or address) and day", item.kind),
        );
        facts.push(json!({ "kind": item.kind.clone(), "id": shown }));
    }
    if !rule.items.is_empty() {
        let bots = policy.defaults.bots.join(", ");
        add!(
            out,
            "",
            match bots.is_empty() {
                true => "counted after a 2xx answer, not for HEAD".to_owned(),
                false => format!(
                    "counted after a 2xx answer, not for HEAD; not for User-Agents with {bots}"
                ),
            },
        );
    }
    out.fact("views", facts);
    match &rule.merge {
        None => {}
        Some(Merge::Own(pointer)) => {
            add!(
                out,
                "merge",
                format!("pending views of the first are added to {pointer} of the answer"),
            );
            out.fact("merge", json!({ "field": pointer.clone() }));
        }
        Some(Merge::Objects { field, kind, id }) => {
            add!(
                out,
                "merge",
                format!(
                    "pending views of the {kind} under `{id}` are added to `{field}` beside it"
                ),
            );
            out.fact(
                "merge",
                json!({ "field": field.clone(), "kind": kind.clone(), "id": id.clone() }),
            );
        }
    }
}

fn purged(out: &mut Explanation, rule: &PurgeRule, resolved: &Resolved<'_>) {
    add!(
        out,
        "purge",
        "after a 2xx answer, before the answer is passed on",
    );
    let mut facts = Map::new();
    for (name, what, templates) in [
        ("keys", "keys", &rule.keys),
        ("tags", "tags", &rule.tags),
        ("else", "tags when a value is missing:", &rule.otherwise),
    ] {
        let shown: Vec<String> = templates
            .iter()
            .map(|template| partial(template, resolved))
            .collect();
        if !shown.is_empty() {
            add!(out, "", format!("{what} {}", shown.join(", ")));
        }
        facts.insert(name, shown.into());
    }
    out.fact("purge", Value::Object(facts));
}

fn filled(out: &mut Explanation, policy: &Policy, rule: &FillRule, resolved: &Resolved<'_>) {
    let Some((route, cache)) = policy
        .routes
        .get(rule.route)
        .and_then(|route| Some((route, route.cache.as_ref()?)))
    else {
        return;
    };
    add!(
        out,
        "fill",
        format!(
            "a 200 or 201 with JSON becomes the entry of {}; any other 2xx only purges that",
            route.name
        ),
    );
    let mut with: Vec<Value<'static>> = Vec::new();
    for (name, given) in &rule.with {
        let value = match given {
            Given::Path(from) => resolved.values.get(from).unwrap_or_default().to_owned(),
            Given::Response(pointer) => format!("{{response:{pointer}}}"),
        };
        add!(out, "", format!("{{{name}}} is {value}"));
        with.push(json!({ "name": name.clone(), "value": value }));
    }
    let key = cache.key.text();
    add!(
        out,
        "",
        format!("key {key}, fresh {}", show_ms(cache.ttl_ms))
    );
    out.fact(
        "fill",
        json!({ "route": route.name.clone(), "key": key, "with": with }),
    );
}
