//! The entry that a write's answer becomes: which route's, and where the values of its
//! path come from.

use super::super::error::{Faults, nearest};
use super::super::field::{Field, list, quote};
use super::super::node::Value;
use super::super::template::Scope;
use super::super::types::{CacheRule, FillRule, Form, Given, Piece, Template};
use super::route::{Draft, Matched};
use super::whole::index_of;

const HELP: &str = "name the route that reads: fill = \"book\", or { route = \"book\", with = { id = \"{response:/id}\" } }";

/// The rule of a route that has `fill`.
pub fn rule(draft: &Draft<'_>, drafts: &[Draft<'_>], faults: &mut Faults) -> Option<FillRule> {
    let field = draft.fill_field.as_ref()?;
    let (of, with) = match &field.node.value {
        Value::Text(_) => (field.clone(), None),
        _ => {
            let table = field.table("`fill`", &["route", "with"], faults)?;
            (table.need("route", HELP, faults)?, table.get("with"))
        }
    };
    let name = of.text(HELP, faults)?;
    let Some(route) = index_of(name, drafts) else {
        let names = drafts.iter().filter_map(|draft| draft.name.as_deref());
        let help = match nearest(name, names) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name one of this policy's routes".to_owned(),
        };
        of.fault(faults, format!("no route is called {}", quote(name)), help);
        return None;
    };
    let target = drafts.get(route)?;
    if target.cache_field.is_none() {
        let message = format!("the route `{name}` has no `cache`");
        of.fault(faults, message, "fill only routes that are cached");
        return None;
    }
    let (rule, read) = (target.cache.as_ref()?, target.matched.as_ref()?);
    if let Some((message, help)) = unfit(name, rule) {
        of.fault(faults, message, help);
        return None;
    }
    let given = match &with {
        Some(with) => given(with, name, read, draft.matched.as_ref(), faults)?,
        None => Vec::new(),
    };
    let written = draft.matched.as_ref()?.placeholders();
    let mut all = Vec::new();
    for placeholder in read.placeholders() {
        let of_with = given.iter().find(|(known, _)| known == placeholder);
        let value = match of_with {
            Some((_, value)) => value.clone(),
            None if written.contains(&placeholder) => Given::Path(placeholder.to_owned()),
            None => {
                let message = format!(
                    "the route `{name}` needs `{{{placeholder}}}`, which the path of this one has not"
                );
                let help = format!(
                    "say where it is: {{ route = \"{name}\", with = {{ {placeholder} = \"{{response:/id}}\" }} }}"
                );
                of.fault(faults, message, help);
                return None;
            }
        };
        all.push((placeholder.to_owned(), value));
    }
    let late: Vec<&str> = all
        .iter()
        .filter(|(_, given)| matches!(given, Given::Response(_)))
        .map(|(name, _)| name.as_str())
        .collect();
    let is_early = |tag: &Template| late.iter().all(|name| !tag.uses(name));
    if !late.is_empty() && !rule.tags.iter().any(is_early) {
        let message = format!(
            "the route `{name}` has no tag that is known before the answer: a flush of Redis meanwhile would not be noticed"
        );
        let help = format!("give `{name}` a tag without {}", list(&late));
        of.fault(faults, message, help);
        return None;
    }
    Some(FillRule { route, with: all })
}

/// Why a route's entries cannot be a write's answer.
fn unfit(name: &str, rule: &CacheRule) -> Option<(String, &'static str)> {
    if rule.by_origin {
        return Some((
            format!("the route `{name}` is cached by its origin's headers"),
            "fill only routes with `mode = \"policy\"`",
        ));
    }
    if rule.form != Form::Plain {
        return Some((
            format!("the route `{name}` keeps its entries packed or encrypted"),
            "fill only routes whose entries are plain JSON",
        ));
    }
    if rule.forward_credentials {
        return Some((
            format!("the route `{name}` keeps no answer to credentials, which a write may have"),
            "fill only routes without `credentials = \"forward\"`",
        ));
    }
    let open: Vec<&str> = rule
        .query
        .iter()
        .filter(|parameter| parameter.default.is_none())
        .map(|parameter| parameter.name.as_str())
        .collect();
    (!open.is_empty()).then(|| {
        (
            format!(
                "the key of the route `{name}` needs {} of a query, which a write has not",
                list(&open)
            ),
            "give each a default, or fill another route",
        )
    })
}

/// `{ id = "{response:/id}" }`
fn given(
    with: &Field<'_>,
    name: &str,
    read: &Matched,
    written: Option<&Matched>,
    faults: &mut Faults,
) -> Option<Vec<(String, Given)>> {
    const VALUE: &str = "write one placeholder: \"{response:/id}\" or \"{id}\" of this path";
    let scope = Scope {
        values: written.map(Matched::placeholders),
        hash: false,
        user: false,
        json: true,
        why: VALUE,
    };
    let mut given = Vec::new();
    for (placeholder, field) in with.members(faults, "write { id = \"{response:/id}\" }")? {
        if !read.placeholders().contains(&placeholder) {
            let message = format!(
                "the route `{name}` has no placeholder {}",
                quote(placeholder)
            );
            field.fault_at_name(faults, message, "remove it");
            return None;
        }
        let template = match Template::parse(field.text(VALUE, faults)?, &scope) {
            Ok(template) => template,
            Err((message, help)) => {
                field.fault(faults, message, help);
                return None;
            }
        };
        let value = match template.pieces.as_slice() {
            [Piece::Value(name)] => Given::Path(name.clone()),
            [Piece::Response(pointer)] => Given::Response(pointer.clone()),
            _ => {
                let message = format!("{} is not one value", quote(&template.text()));
                field.fault(faults, message, VALUE);
                return None;
            }
        };
        given.push((placeholder.to_owned(), value));
    }
    Some(given)
}
