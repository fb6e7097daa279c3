//! What only shows when all routes are looked at: names given twice, routes that are
//! never reached, keys that two routes share, limits that share a count.

use super::super::bounds::MAX_INHERITED;
use super::super::error::Faults;
use super::super::field::Field;
use super::super::percent::occurs_in_component;
use super::super::route::compare_paths;
use super::super::types::{Limit, PathTemplate, Per, Piece, Segment, Template};
use super::route::{Draft, Matched};

/// A name means its first route.
pub fn index_of(name: &str, drafts: &[Draft<'_>]) -> Option<usize> {
    drafts
        .iter()
        .position(|draft| draft.name.as_deref() == Some(name))
}

pub fn names(drafts: &[Draft<'_>], faults: &mut Faults) {
    for (index, draft) in drafts.iter().enumerate() {
        let Some(name) = &draft.name else { continue };
        if index_of(name, drafts) != Some(index) {
            let message = format!("another route is called `{name}` already");
            fault(
                draft.field.child("name"),
                faults,
                message,
                "give each route its own name",
            );
        }
    }
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
        .filter_map(|draft| Some((draft, draft.cache.as_ref()?)))
        // Keys of `http` mode are made of the route's name and the URL.
        .filter(|(_, rule)| !rule.by_origin)
        .map(|(draft, rule)| (draft, tokens(&rule.key)))
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
    let (a, b) = (
        a.get(alike..).unwrap_or_default(),
        b.get(alike..).unwrap_or_default(),
    );
    // Row by row of the pairs of places: which places in `b` some text reaches together
    // with this place in `a`.
    let mut here = vec![false; b.len() + 1];
    if let Some(start) = here.first_mut() {
        *start = true;
    }
    for i in 0..=a.len() {
        let left = a.get(i);
        let mut next = vec![false; b.len() + 1];
        let mut comes_from_left = false;
        for (j, is_reached) in here.iter().enumerate() {
            let is_here = *is_reached || comes_from_left;
            let right = b.get(j);
            comes_from_left = is_here && passes(right, left);
            if !is_here {
                continue;
            }
            let to = match (left, right) {
                (None, None) => return true,
                (Some(Token::Byte(x)), Some(Token::Byte(y))) if x == y => j + 1,
                _ if passes(left, right) => j,
                _ => continue,
            };
            if let Some(place) = next.get_mut(to) {
                *place = true;
            }
        }
        if !next.contains(&true) {
            return false;
        }
        here = next;
    }
    false
}

/// Whether a token is left behind while the other template stays where it is: a value
/// ends, or the other's value takes the character.
fn passes(token: Option<&Token>, other: Option<&Token>) -> bool {
    match token {
        Some(Token::Value) => true,
        Some(Token::Byte(byte)) => other == Some(&Token::Value) && occurs_in_component(*byte),
        None => false,
    }
}

/// Limits with `per = "all"` and one name are one count, so they must be one limit.
fn shared_counts(drafts: &[Draft<'_>], defaults: &[Limit], faults: &mut Faults) {
    let mut known: Vec<&Limit> = defaults
        .iter()
        .filter(|limit| limit.per == Per::All)
        .collect();
    for draft in drafts {
        let Some(Some(limits)) = &draft.limits else {
            continue;
        };
        for (index, limit) in limits.iter().enumerate() {
            if limit.per != Per::All {
                continue;
            }
            let Some(first) = known.iter().find(|known| known.name == limit.name) else {
                known.push(limit);
                continue;
            };
            if !is_one_count(first, limit) {
                let message = format!(
                    "another limit `{}` with `per = \"all\"` shares this count and differs",
                    limit.name
                );
                let limit = draft.field.child("limit").and_then(|list| list.item(index));
                let help = "make both the same in all but `cost`, or give another name";
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
