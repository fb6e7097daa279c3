//! What the policy does with one request, and why, for people.
//!
//! Nothing is asked of Redis or the origin, and no visitor is known: ids and values
//! that only a real request has stay placeholders.

mod limit;

use std::fmt;

use crate::admin;

use super::key::Values;
use super::measure::{show_bytes, show_ms};
use super::percent::{decode, encode_component};
use super::route::{Resolved, is_own, takes_method};
use super::target::{foldings, normalise};
use super::types::*;

/// Labelled lines; a line without a label goes on with the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub lines: Vec<(&'static str, String)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, text) in &self.lines {
            writeln!(f, "{label:<8}{text}")?;
        }
        Ok(())
    }
}

impl Explanation {
    fn add(&mut self, label: &'static str, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.lines.push((label, text));
        }
    }
}

impl Policy {
    /// Explains a request; `url` is whole, or begins with its path.
    pub fn explain(&self, method: &str, url: &str) -> Explanation {
        let (path, query) = path_and_query(url);
        let resolved = self.resolve(method, path);
        let mut out = Explanation { lines: Vec::new() };
        out.add("request", format!("{method} {url}"));
        self.explain_path(&mut out, path, &resolved);
        if is_own(&resolved.path) {
            out.add("route", "Edgeweir's own, never the origin's");
            match resolved.path == admin::HEALTH {
                true => out.add("limit", "none"),
                false => self.explain_limits(&mut out, &resolved),
            }
            out.add("answer", "from Edgeweir itself");
            return out;
        }
        self.explain_route(&mut out, method, path, &resolved);
        self.explain_limits(&mut out, &resolved);
        match resolved.route.filter(|_| resolved.exact) {
            None => {
                out.add("answer", "passes through to the origin, uncached");
                if let Some(route) = resolved.limited_as.filter(|route| route.purge.is_some()) {
                    out.add(
                        "",
                        format!("a 2xx answer purges what {} purges", route.name),
                    );
                }
            }
            Some(route) => self.explain_answer(&mut out, route, &resolved, query),
        }
        out
    }

    fn explain_path(&self, out: &mut Explanation, raw: &str, resolved: &Resolved<'_>) {
        if normalise(raw).hostile {
            out.add(
                "path",
                format!("{} goes to the origin as it was sent", resolved.path),
            );
            out.add(
                "",
                "hostile: servers read it in different ways (`//`, `\\`, `;`, an encoded slash,",
            );
            out.add(
                "",
                "backslash or NUL, an invalid code, or not UTF-8), so it matches no cached route",
            );
            out.add(
                "",
                format!("it may be folded into {}", foldings(raw).join(" or ")),
            );
        } else if resolved.path == raw {
            out.add("path", format!("{raw} is in normal form"));
        } else {
            out.add(
                "path",
                format!("{} in normal form; that goes to the origin", resolved.path),
            );
        }
    }

    fn explain_route(
        &self,
        out: &mut Explanation,
        method: &str,
        raw: &str,
        resolved: &Resolved<'_>,
    ) {
        let Some(route) = resolved.route else {
            out.add(
                "route",
                "none matches; it is counted with all unmatched requests",
            );
            return;
        };
        out.add("route", format!("{}: {}", route.name, matched(route)));
        if !resolved.exact {
            out.add(
                "",
                "its path is not this one, but the origin may fold this one into it, so its",
            );
            out.add("", "limits and purges apply; nothing else of it does");
        }
        let paths = match resolved.exact {
            true => vec![resolved.path.clone()],
            false => foldings(raw)
                .into_iter()
                .chain([resolved.path.clone()])
                .collect(),
        };
        let mut beaten: Vec<&str> = Vec::new();
        for path in paths {
            for other in self.candidates(method, &path) {
                if other.name != route.name && !beaten.contains(&other.name.as_str()) {
                    beaten.push(&other.name);
                    out.add(
                        "",
                        format!(
                            "wins over {}: {}, because {}",
                            other.name,
                            matched(other),
                            why(route, other, method)
                        ),
                    );
                }
            }
        }
        if beaten.is_empty() {
            out.add("", "no other route matches");
        }
        for (name, value) in resolved.values.iter() {
            out.add("", format!("{{{name}}} is {value:?}"));
        }
    }

    fn explain_limits(&self, out: &mut Explanation, resolved: &Resolved<'_>) {
        let (limits, name, redis_down, switches) = match resolved.limited_as {
            Some(route) => (
                &route.limits,
                route.name.as_str(),
                route.redis_down,
                &route.switches[..],
            ),
            None => (
                &self.defaults.limits,
                "*",
                self.defaults.redis_down,
                &[][..],
            ),
        };
        if resolved.limited_as.map(|route| &route.name) != resolved.route.map(|route| &route.name) {
            out.add(
                "limit",
                format!("those of {name}, which the origin may fold this path into"),
            );
        }
        for limit in limits {
            limit::explain(out, limit, name, &self.defaults);
        }
        if limits.is_empty() {
            out.add("limit", "none");
        } else {
            out.add(
                "",
                match redis_down {
                    RedisDown::Local => "without Redis: this isolate's own counts (local)",
                    RedisDown::Open => "without Redis: admitted (open)",
                    RedisDown::Closed => "without Redis: 503 (closed)",
                },
            );
        }
        for switch in switches {
            out.add("switch", switched_off(*switch));
        }
    }

    fn explain_answer(
        &self,
        out: &mut Explanation,
        route: &Route,
        resolved: &Resolved<'_>,
        query: Option<&str>,
    ) {
        if let Some(rule) = &route.cache {
            explain_cache(out, route, rule, resolved, query);
        } else if let Some(parts) = &route.compose {
            self.explain_parts(out, parts);
        } else {
            out.add("answer", "passes through to the origin, uncached");
        }
        if let Some(rule) = &route.view {
            self.explain_views(out, rule, resolved);
        }
        if let Some(rule) = &route.purge {
            let show = |templates: &[Template]| {
                let shown: Vec<String> = templates
                    .iter()
                    .map(|template| partial(template, resolved))
                    .collect();
                shown.join(", ")
            };
            out.add(
                "purge",
                "after a 2xx answer, before the answer is passed on",
            );
            for (what, templates) in [
                ("keys", &rule.keys),
                ("tags", &rule.tags),
                ("tags when a value is missing:", &rule.otherwise),
            ] {
                if !templates.is_empty() {
                    out.add("", format!("{what} {}", show(templates)));
                }
            }
        }
    }

    fn explain_views(&self, out: &mut Explanation, rule: &ViewRule, resolved: &Resolved<'_>) {
        for (at, item) in rule.items.iter().enumerate() {
            let shown = partial(&item.id, resolved);
            out.add(
                if at == 0 { "view" } else { "" },
                format!("{} {shown}, once a user (or address) and day", item.kind),
            );
        }
        if !rule.items.is_empty() {
            let bots = match self.defaults.bots.is_empty() {
                true => String::new(),
                false => format!(
                    "; not for User-Agents with {}",
                    self.defaults.bots.join(", ")
                ),
            };
            out.add(
                "",
                format!("counted after a 2xx answer, not for HEAD{bots}"),
            );
        }
        match &rule.merge {
            None => {}
            Some(Merge::Own(pointer)) => out.add(
                "merge",
                format!("pending views of the first are added to {pointer} of the answer"),
            ),
            Some(Merge::Objects { field, kind, id }) => out.add(
                "merge",
                format!(
                    "pending views of the {kind} under `{id}` are added to `{field}` beside it"
                ),
            ),
        }
    }

    fn explain_parts(&self, out: &mut Explanation, parts: &[Part]) {
        let answers: usize = parts
            .iter()
            .map(|part| part.each.as_ref().map_or(1, |each| each.values.len()))
            .sum();
        out.add(
            "answer",
            format!("composed of {answers} answers, read in one trip"),
        );
        for part in parts {
            let Some(route) = self.routes.get(part.route) else {
                continue;
            };
            let each = part.each.as_ref().map_or(String::new(), |each| {
                format!(
                    ", for each {} of {}",
                    each.placeholder,
                    each.values.join(", ")
                )
            });
            let key = route
                .cache
                .as_ref()
                .map_or(String::new(), |rule| rule.key.text());
            out.add("", format!("{}: {} ({key}){each}", part.name, route.name));
        }
    }
}

fn switched_off(switch: Switch) -> &'static str {
    match switch {
        Switch::RateLimitRedis => {
            "RATE_LIMIT_REDIS_ENABLED = false: this isolate's own counts, without Redis"
        }
        Switch::ViewTrackingRedis => {
            "VIEW_TRACKING_REDIS_ENABLED = false: views go straight to the origin"
        }
        Switch::NotificationCache => "NOTIFICATION_CACHE_ENABLED = false: nothing is cached",
        Switch::NotificationRateLimit => {
            "NOTIFICATION_RATE_LIMIT_ENABLED = false: there are no limits"
        }
    }
}

fn explain_cache(
    out: &mut Explanation,
    route: &Route,
    rule: &CacheRule,
    resolved: &Resolved<'_>,
    query: Option<&str>,
) {
    if rule.by_origin {
        out.add(
            "cache",
            "by the origin's headers (RFC 9111), keyed by the whole URL",
        );
        out.add(
            "",
            "Cookie and Authorization go to the origin; its headers decide what is shared",
        );
        return;
    }
    let Some(selected) = rule.select(query) else {
        out.add(
            "cache",
            "bypassed: a listed query parameter is not valid, or all are too long",
        );
        return;
    };
    let values = Values {
        path: &resolved.values,
        selected: Some(&selected),
        user: None,
        body: None,
        response: None,
    };
    let tags: Option<Vec<String>> = rule.tags.iter().map(|tag| tag.render(&values)).collect();
    let (Some(key), Some(tags)) = (rule.key.render(&values), tags) else {
        out.add("cache", "bypassed: its key would be too long");
        return;
    };
    out.add("cache", format!("key {key}"));
    if !tags.is_empty() {
        out.add("", format!("tags {}", tags.join(", ")));
    }
    let negative = rule
        .negative_ms
        .map_or("not kept".to_owned(), |ms| format!("kept {}", show_ms(ms)));
    out.add(
        "",
        format!(
            "fresh {}, then stale {}; 404 and 410 {negative}",
            show_ms(rule.ttl_ms),
            show_ms(rule.stale_ms)
        ),
    );
    out.add(
        "",
        match route.l1_ms() {
            0 => "l1: none, each hit asks Redis".to_owned(),
            l1_ms => format!(
                "l1: an isolate's own copy, up to {} after Redis confirmed it, when no limit needs a trip",
                show_ms(l1_ms)
            ),
        },
    );
    let size = u64::try_from(rule.max_bytes).unwrap_or(u64::MAX);
    out.add("", format!("bodies up to {}", show_bytes(size)));
    let kept = selected.query_string();
    if !kept.is_empty() {
        out.add("query", format!("kept: {kept}"));
    }
    let dropped: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty() && !kept.split('&').any(|kept| same_parameter(kept, pair)))
        .collect();
    if !dropped.is_empty() {
        let label = if kept.is_empty() { "query" } else { "" };
        out.add(label, format!("dropped: {}", dropped.join("&")));
    }
    out.add(
        "",
        match rule.forward_credentials {
            true => "Cookie and Authorization go to the origin; an answer to either is not kept",
            false => "fetched without Cookie and Authorization, and served to everybody",
        },
    );
}

/// Whether a pair of the request's query is one that is kept.
fn same_parameter(kept: &str, pair: &str) -> bool {
    decode(kept, false) == decode(pair, true)
        || (!pair.contains('=') && kept.strip_suffix('=') == Some(pair))
}

/// What is known of a template before there is a visitor, a body and an answer.
fn partial(template: &Template, resolved: &Resolved<'_>) -> String {
    let pieces = template.pieces.iter().map(|piece| match piece {
        Piece::Value(name) => match resolved.values.get(name) {
            Some(value) => encode_component(value),
            None => format!("{{{name}}}"),
        },
        piece => Template {
            pieces: vec![piece.clone()],
        }
        .text(),
    });
    pieces.collect()
}

fn matched(route: &Route) -> String {
    let methods = match route.methods.is_empty() {
        true => "*".to_owned(),
        false => route.methods.join("|"),
    };
    format!("{methods} {}", route.path.text())
}

/// Why one of two routes that both match is the more specific one.
fn why(winner: &Route, other: &Route, method: &str) -> String {
    let show = |segment: &Segment| match segment {
        Segment::Literal(text) => format!("`{text}`"),
        Segment::One(name) => format!("{{{name}}}"),
        Segment::Rest(name) => format!("{{{name}...}}"),
    };
    let pairs = winner.path.segments.iter().zip(&other.path.segments);
    let differs = pairs
        .filter(|(a, b)| std::mem::discriminant(*a) != std::mem::discriminant(*b))
        .map(|(a, b)| format!("{} is more specific than {}", show(a), show(b)))
        .next();
    differs.unwrap_or_else(|| match takes_method(&winner.methods, method) {
        Some(2) => format!("it lists {method}"),
        _ => format!("its GET answers {method}"),
    })
}

fn path_and_query(url: &str) -> (&str, Option<&str>) {
    let url = url.split('#').next().unwrap_or_default();
    let target = match url.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            let start = rest.find(['/', '?']).unwrap_or(rest.len());
            rest.get(start..).unwrap_or_default()
        }
        _ => url,
    };
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}
