//! What only shows when all routes are looked at: names given twice, routes that are
//! never reached, keys that two routes share, limits that share a count.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bounds::MAX_INHERITED;
use super::super::error::Faults;
use super::super::field::Field;
use super::super::percent::occurs_in_component;
use super::super::route::compare_paths;
use super::super::types::{Limit, PathTemplate, Per, Piece, Segment, Template};
use super::Names;
use super::route::{Draft, Matched};

/// Routes by name; the first of each name counts.
pub fn names(drafts: &[Draft<'_>], faults: &mut Faults) -> Names {
    let mut names = Names::new();
    for (index, draft) in drafts.iter().enumerate() {
        let Some(name) = &draft.name else { continue };
        if names.contains_key(name) {
            let message = format!("another route is called `{name}` already");
            fault(
                draft.field.child("name"),
                faults,
                message,
                "give each route its own name",
            );
        } else {
            names.insert(name.clone(), index);
        }
    }
    names
}

/// At a field that is known to be there.
fn fault(field: Option<Field<'_>>, faults: &mut Faults, message: String, help: &str) {
    if let Some(field) = field {
        field.fault(faults, message, help);
    }
}

pub fn check(drafts: &[Draft<'_>], defaults: &[Limit], faults: &mut Faults) {
    shadowed(drafts, faults);
    shared_keys(drafts, faults);
    shared_counts(drafts, defaults, faults);
}

/// Two routes for the same requests: which of them is meant cannot be known.
fn shadowed(drafts: &[Draft<'_>], faults: &mut Faults) {
    for (index, draft) in drafts.iter().enumerate() {
        let Some(matched) = &draft.matched else {
            continue;
        };
        for earlier in drafts.iter().take(index) {
            let Some(other) = &earlier.matched else {
                continue;
            };
            if !same_paths(&matched.path, &other.path) {
                continue;
            }
            let Some(shared) = shared_methods(matched, other) else {
                continue;
            };
            let message = format!(
                "{shared} {} is matched by {} already",
                matched.path.text(),
                earlier.called()
            );
            let help = "remove one of the two routes, or the method from one";
            fault(draft.field.child("match"), faults, message, help);
        }
    }
}

/// Whether two paths match exactly the same.
fn same_paths(a: &PathTemplate, b: &PathTemplate) -> bool {
    a.segments.len() == b.segments.len()
        && compare_paths(a, b).is_eq()
        && a.segments.iter().zip(&b.segments).all(|pair| match pair {
            (Segment::Literal(a), Segment::Literal(b)) => a == b,
            (Segment::Literal(_), _) | (_, Segment::Literal(_)) => false,
            _ => true,
        })
}

/// Methods that both list, or `*` when both take any. A listed one beats `*`.
fn shared_methods(a: &Matched, b: &Matched) -> Option<String> {
    if a.methods.is_empty() && b.methods.is_empty() {
        return Some("*".to_owned());
    }
    let shared: Vec<&str> = a
        .methods
        .iter()
        .filter(|method| b.methods.contains(method))
        .map(String::as_str)
        .collect();
    (!shared.is_empty()).then(|| shared.join("|"))
}

/// Two routes must not serve each other's entries, whatever values are put in.
fn shared_keys(drafts: &[Draft<'_>], faults: &mut Faults) {
    let keys: Vec<(&Draft<'_>, Vec<Token>)> = drafts
        .iter()
        .filter_map(|draft| Some((draft, tokens(&draft.cache.as_ref()?.key))))
        .collect();
    for (index, (draft, key)) in keys.iter().enumerate() {
        for (other, other_key) in keys.iter().take(index) {
            if !may_be_equal(key, other_key) {
                continue;
            }
            let message = format!("{} can have the same key", other.called());
            let key = draft
                .cache_field
                .as_ref()
                .and_then(|field| field.child("key"));
            fault(key, faults, message, "give each route keys of its own");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// Any number of characters that encoded values are made of.
    Value,
}

fn tokens(template: &Template) -> Vec<Token> {
    let mut tokens = Vec::new();
    for piece in &template.pieces {
        match piece {
            Piece::Text(text) => tokens.extend(text.bytes().map(Token::Byte)),
            _ => tokens.push(Token::Value),
        }
    }
    tokens
}

/// Whether some text is made by both: a walk over the pairs of places in them.
fn may_be_equal(a: &[Token], b: &[Token]) -> bool {
    // Most keys differ in the text that they begin with.
    let is_text = |token: &Token| matches!(token, Token::Byte(_));
    let alike = a
        .iter()
        .zip(b)
        .take_while(|(x, y)| x == y && is_text(x))
        .count();
    if a.get(alike).is_some_and(is_text) && b.get(alike).is_some_and(is_text) {
        return false;
    }
    let mut seen = BTreeSet::new();
    let mut open = vec![(alike, alike)];
    while let Some((i, j)) = open.pop() {
        if !seen.insert((i, j)) {
            continue;
        }
        match (a.get(i), b.get(j)) {
            (None, None) => return true,
            (Some(Token::Byte(x)), Some(Token::Byte(y))) if x == y => open.push((i + 1, j + 1)),
            (left, right) => {
                if left == Some(&Token::Value) {
                    open.push((i + 1, j));
                    if matches!(right, Some(Token::Byte(byte)) if occurs_in_component(*byte)) {
                        open.push((i, j + 1));
                    }
                }
                if right == Some(&Token::Value) {
                    open.push((i, j + 1));
                    if matches!(left, Some(Token::Byte(byte)) if occurs_in_component(*byte)) {
                        open.push((i + 1, j));
                    }
                }
            }
        }
    }
    false
}

/// Limits with `per = "all"` and one name are one count, so they must be one limit.
fn shared_counts(drafts: &[Draft<'_>], defaults: &[Limit], faults: &mut Faults) {
    let mut known: BTreeMap<&str, &Limit> = BTreeMap::new();
    for limit in defaults.iter().filter(|limit| limit.per == Per::All) {
        known.insert(&limit.name, limit);
    }
    for draft in drafts {
        let Some(Some(limits)) = &draft.limits else {
            continue;
        };
        for (index, limit) in limits.iter().enumerate() {
            if limit.per != Per::All {
                continue;
            }
            let first = *known.entry(&limit.name).or_insert(limit);
            if !is_one_count(first, limit) {
                let message = format!(
                    "another limit `{}` with `per = \"all\"` shares this count and differs",
                    limit.name
                );
                let limit = draft.field.child("limit").and_then(|list| list.item(index));
                let help = "make both the same in all but `cost` (leased costs are one number), or give another name";
                fault(limit, faults, message, help);
            }
        }
    }
}

/// Whether two limits differ in nothing but their names and costs.
fn is_one_count(a: &Limit, b: &Limit) -> bool {
    a.requests == b.requests
        && a.window_ms == b.window_ms
        && a.by == b.by
        && a.algorithm == b.algorithm
        && a.lease == b.lease
        && a.shadow == b.shadow
        && a.penalty == b.penalty
        && a.rollout == b.rollout
        && a.allow == b.allow
        && a.deny == b.deny
}

/// Every route that inherits the default limits has their lists in memory.
pub fn inherited(
    drafts: &[Draft<'_>],
    defaults: &[Limit],
    list: Option<Field<'_>>,
    faults: &mut Faults,
) {
    let entries = defaults
        .iter()
        .map(|limit| limit.allow.len() + limit.deny.len())
        .sum::<usize>();
    let routes = drafts
        .iter()
        .filter(|draft| matches!(draft.limits, Some(None)))
        .count();
    if entries.saturating_mul(routes) > MAX_INHERITED {
        let message = format!("{routes} routes inherit {entries} entries of `allow` and `deny`");
        let help = format!(
            "at most {} are possible for so many routes",
            MAX_INHERITED / routes.max(1)
        );
        fault(list, faults, message, &help);
    }
}
