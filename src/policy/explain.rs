//! What the policy does with one request, and why: lines for people, facts for machines.
//!
//! Both are written side by side, from the same values, so that `npm run policy -- explain`
//! and `GET /-/explain` cannot disagree. Nothing is asked of Redis or the origin, and no
//! visitor is known: ids and values that only a real request has stay placeholders.

/// A line, for the command line alone: its words are not in the upload.
macro_rules! add {
    ($out:expr, $label:expr, $text:expr $(,)?) => {
        if cfg!(feature = "cli") {
            $out.add($label, $text);
        }
    };
}

mod answer;
mod limit;

use std::fmt;

use edgeweir_json::{Map, Value, json};

use super::percent::encode_component;
use super::route::{HEALTH, Resolved, is_own, takes_method};
use super::target::{foldings, normalise};
use super::types::*;

/// Labelled lines; a line without a label goes on with the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub lines: Vec<(&'static str, String)>,
    pub facts: Map<'static>,
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

    fn fact(&mut self, name: &'static str, value: impl Into<Value<'static>>) {
        self.facts.insert(name, value.into());
    }
}

/// Facts of a list of named things.
fn names<'n>(names: impl IntoIterator<Item = &'n str>) -> Value<'static> {
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.into()
}

impl Policy {
    /// Explains a request; `url` is whole, or begins with its path.
    pub fn explain(&self, method: &str, url: &str) -> Explanation {
        let (path, query) = path_and_query(url);
        let resolved = self.resolve(method, path);
        let mut out = Explanation {
            lines: Vec::new(),
            facts: Map::new(),
        };
        add!(out, "request", format!("{method} {url}"));
        out.fact("method", method.to_owned());
        self.explain_path(&mut out, path, &resolved);
        if is_own(&resolved.path) {
            add!(out, "route", "Edgeweir's own, never the origin's");
            out.fact("route", Value::Null);
            match resolved.path == HEALTH {
                true => {
                    add!(out, "limit", "none");
                    out.fact("limits", Vec::<String>::new());
                }
                false => self.explain_limits(&mut out, &resolved),
            }
            add!(out, "answer", "from Edgeweir itself");
            out.fact("answer", "edgeweir");
            return out;
        }
        self.explain_route(&mut out, method, path, &resolved);
        self.explain_limits(&mut out, &resolved);
        answer::explain(&mut out, self, &resolved, query);
        out
    }

    fn explain_path(&self, out: &mut Explanation, raw: &str, resolved: &Resolved<'_>) {
        let is_hostile = normalise(raw).hostile;
        out.fact("path", resolved.path.clone());
        out.fact("hostile", is_hostile);
        if is_hostile {
            out.fact("folded", foldings(raw));
            add!(
                out,
                "path",
                format!("{} goes to the origin as it was sent", resolved.path),
            );
            add!(
                out,
                "",
                "hostile: servers read it in different ways (`//`, `\\`, `;`, an encoded slash,",
            );
            add!(
                out,
                "",
                "backslash or NUL, an invalid code, or not UTF-8), so it matches no cached route",
            );
            add!(
                out,
                "",
                format!("it may be folded into {}", foldings(raw).join(" or ")),
            );
        } else if resolved.path == raw {
            add!(out, "path", format!("{raw} is in normal form"));
        } else {
            add!(
                out,
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
            out.fact("route", Value::Null);
            add!(
                out,
                "route",
                "none matches; it is counted with all unmatched requests",
            );
            return;
        };
        add!(out, "route", format!("{}: {}", route.name, matched(route)));
        out.fact("route", route.name.clone());
        out.fact("match", matched(route));
        out.fact("exact", resolved.exact);
        if !resolved.exact {
            add!(
                out,
                "",
                "its path is not this one, but the origin may fold this one into it, so its",
            );
            add!(out, "", "limits and purges apply; nothing else of it does");
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
                    add!(
                        out,
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
            add!(out, "", "no other route matches");
        }
        out.fact("wins_over", names(beaten));
        let mut placeholders: Vec<Value<'static>> = Vec::new();
        for (name, value) in resolved.values.iter() {
            add!(out, "", format!("{{{name}}} is {value:?}"));
            placeholders.push(json!({ "name": name.to_owned(), "value": value.to_owned() }));
        }
        out.fact("placeholders", placeholders);
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
        out.fact("limited_as", name.to_owned());
        if resolved.limited_as.map(|route| &route.name) != resolved.route.map(|route| &route.name) {
            add!(
                out,
                "limit",
                format!("those of {name}, which the origin may fold this path into"),
            );
        }
        let limits_facts: Vec<Value<'static>> = limits
            .iter()
            .map(|limit| limit::explain(out, limit, name, &self.defaults))
            .collect();
        out.fact("limits", limits_facts);
        if limits.is_empty() {
            add!(out, "limit", "none");
        } else {
            let (word, text) = match redis_down {
                RedisDown::Local => ("local", "without Redis: this isolate's own counts (local)"),
                RedisDown::Open => ("open", "without Redis: admitted (open)"),
                RedisDown::Closed => ("closed", "without Redis: 503 (closed)"),
            };
            out.fact("redis_down", word);
            add!(out, "", text);
        }
        for switch in switches {
            add!(out, "switch", switched_off(*switch));
        }
        if !switches.is_empty() {
            let variable = |switch: &Switch| switched_off(*switch).split(' ').next();
            out.fact("switches", names(switches.iter().filter_map(variable)));
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
    // Searching for a text of several characters would be code that nothing else needs.
    let whole = url
        .split_once(':')
        .filter(|(scheme, _)| !scheme.contains(['/', '?']))
        .and_then(|(_, rest)| rest.strip_prefix("//"));
    let target = match whole {
        Some(rest) => {
            let start = rest.find(['/', '?']).unwrap_or(rest.len());
            rest.get(start..).unwrap_or_default()
        }
        None => url,
    };
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}
