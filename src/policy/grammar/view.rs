//! What a route counts as viewed, where pending views are shown, and who is no reader.

use super::super::bounds::{MAX_BOTS, MAX_NAME_BYTES, MAX_VALUE_BYTES, MAX_VIEWS};
use super::super::error::Faults;
use super::super::field::{Field, is_name, quote};
use super::super::node::Value;
use super::super::template::{Scope, json_pointer};
use super::super::types::{CacheRule, Form, Merge, Template, ViewItem, ViewRule};
use super::route::Matched;

/// Parts of the User-Agents of crawlers and of what looks whether a page is there; not of
/// the tools that people test with.
const BOTS: [&str; 11] = [
    "bot",
    "crawl",
    "spider",
    "slurp",
    "facebookexternalhit",
    "preview",
    "monitor",
    "pingdom",
    "headless",
    "lighthouse",
    "archiver",
];

const HELP: &str = "write placeholders by kind: { story = \"{story}\" }";
const MERGE_HELP: &str = "write a field, \"total_views\" or \"/book/total_views\", or { field = \"total_views\", kind = \"book\", id = \"book_id\" }";

pub fn built_in_bots() -> Vec<String> {
    BOTS.map(str::to_owned).to_vec()
}

pub fn bots(field: &Field<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let items = field.list(MAX_BOTS, faults)?;
    let mut bots = Vec::with_capacity(items.len());
    for item in items {
        const HELP: &str = "write a part of a User-Agent: \"bot\"";
        let text = item.text(HELP, faults)?;
        if text.trim().is_empty() || text.len() > MAX_NAME_BYTES {
            let message = format!("{} has {} bytes", item.label(), text.len());
            item.fault(
                faults,
                message,
                format!("1 to {MAX_NAME_BYTES} are possible"),
            );
            return None;
        }
        bots.push(text.to_ascii_lowercase());
    }
    Some(bots)
}

/// `cache`: outer `None`, the route has none; inner, it has faults.
pub fn rule(
    field: &Field<'_>,
    matched: Option<&Matched>,
    cache: Option<Option<&CacheRule>>,
    faults: &mut Faults,
) -> Option<ViewRule> {
    let members = field.members(faults, HELP)?;
    let scope = scope(matched, cache);
    let mut is_whole = true;
    let mut rule = ViewRule {
        items: Vec::new(),
        merge: None,
    };
    let mut merge_field = None;
    for (name, member) in members {
        if name == "merge" {
            rule.merge = merge(&member, faults);
            is_whole &= rule.merge.is_some();
            merge_field = Some(member);
            continue;
        }
        match item(name, &member, &scope, faults) {
            Some(item) => rule.items.push(item),
            None => is_whole = false,
        }
    }
    if rule.items.len() > MAX_VIEWS {
        let message = format!("`view` has {} kinds", rule.items.len());
        field.fault(faults, message, format!("at most {MAX_VIEWS} are possible"));
    }
    if is_whole && rule.items.is_empty() && rule.merge.is_none() {
        field.fault(faults, "`view` counts nothing", HELP);
    }
    if let Some(field) = merge_field {
        let is_kept = cache.is_some_and(|cache| cache.is_none_or(|rule| !rule.by_origin));
        if !is_kept {
            let message = "`merge` is on a route that keeps no answers of its own";
            field.fault_at_name(
                faults,
                message,
                "give the route a `cache` without `mode = \"http\"`, or remove it",
            );
        }
        let is_packed = cache
            .flatten()
            .is_some_and(|rule| rule.form == Form::Packed);
        if is_packed {
            let message =
                "`merge` is on a route with `format = \"packed\"`, whose answers may be gzip";
            field.fault_at_name(
                faults,
                message,
                "keep its entries as plain JSON, or remove it",
            );
        }
        if matches!(rule.merge, Some(Merge::Own(_))) && rule.items.is_empty() && is_whole {
            let message = "`merge` names a field, but the route counts nothing";
            field.fault(
                faults,
                message,
                "say of what: merge = { field = …, kind = …, id = … }",
            );
        }
    }
    is_whole.then_some(rule)
}

fn scope<'a>(matched: Option<&'a Matched>, cache: Option<Option<&'a CacheRule>>) -> Scope<'a> {
    let values = match cache {
        // Its listed parameters are not known.
        Some(None) => None,
        Some(Some(rule)) => matched.map(|matched| {
            let listed = rule.query.iter().map(|parameter| parameter.name.as_str());
            matched.placeholders().into_iter().chain(listed).collect()
        }),
        None => matched.map(Matched::placeholders),
    };
    Scope {
        values,
        hash: false,
        user: false,
        json: false,
        why: "an item is known by placeholders of the path and listed query parameters",
    }
}

fn item(
    name: &str,
    member: &Field<'_>,
    scope: &Scope<'_>,
    faults: &mut Faults,
) -> Option<ViewItem> {
    if !is_name(name) {
        let message = format!("{} is no kind", quote(name));
        member.fault_at_name(
            faults,
            message,
            "write 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit",
        );
        return None;
    }
    let text = member.text(HELP, faults)?;
    let template = match Template::parse(text, scope) {
        Ok(template) => template,
        Err((message, help)) => {
            member.fault(faults, message, help);
            return None;
        }
    };
    if !text.contains('{') {
        let message = format!("{} is one item for every request", member.label());
        member.fault(faults, message, HELP);
        return None;
    }
    Some(ViewItem {
        kind: name.to_owned(),
        id: template,
    })
}

fn merge(field: &Field<'_>, faults: &mut Faults) -> Option<Merge> {
    if let Value::Text(text) = &field.node.value {
        if text.is_empty() || text.len() > MAX_VALUE_BYTES {
            let message = format!("`merge` has {} bytes", text.len());
            field.fault(faults, message, MERGE_HELP);
            return None;
        }
        if text.starts_with('/') {
            return match json_pointer(text) {
                Ok(pointer) => Some(Merge::Own(pointer)),
                Err((message, help)) => {
                    field.fault(faults, message, help);
                    None
                }
            };
        }
        let mut pointer = String::from("/");
        pointer.push_str(&text.replace('~', "~0").replace('/', "~1"));
        return Some(Merge::Own(pointer));
    }
    if !matches!(field.node.value, Value::Table(_)) {
        field.fault(faults, "`merge` is neither a field nor a table", MERGE_HELP);
        return None;
    }
    let table = field.table("`merge`", &["field", "kind", "id"], faults)?;
    let mut text = |name| {
        let field = table.need(name, MERGE_HELP, faults)?;
        let text = field.text(MERGE_HELP, faults)?;
        Some((text.to_owned(), field))
    };
    let (number, kind, id) = (text("field"), text("kind"), text("id"));
    let (kind, kind_field) = kind?;
    if !is_name(&kind) {
        let message = format!("{} is no kind", quote(&kind));
        kind_field.fault(faults, message, MERGE_HELP);
        return None;
    }
    Some(Merge::Objects {
        field: number?.0,
        kind,
        id: id?.0,
    })
}
