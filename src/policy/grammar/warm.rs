//! What a cache rule says of times before and after an entry's end: `warm` and `patience`.

use super::super::bounds::*;
use super::super::error::{Faults, nearest};
use super::super::field::{Field, Table, list, quote};
use super::super::key::Values;
use super::super::measure::show_ms;
use super::super::percent::encode_component;
use super::super::template::PathValues;
use super::super::types::{CacheRule, PathTemplate, QueryParameter, Warm};
use super::route::{Draft, Matched};

/// The outer `None`: there is a fault.
pub fn rule(
    table: &Table<'_>,
    ttl_ms: Option<u64>,
    matched: Option<&Matched>,
    query: Option<&[QueryParameter]>,
    faults: &mut Faults,
) -> Option<Option<Warm>> {
    let Some(field) = table.get("warm") else {
        return Some(None);
    };
    let warm = field.table("`warm`", &["every", "values", "top"], faults)?;
    let every_ms = warm
        .need("every", "say how often: every = \"10m\"", faults)
        .and_then(|field| every(&field, ttl_ms, faults));
    let top = match warm.get("top") {
        Some(field) => field.integer(1..=MAX_WARM_KEYS as u64, faults),
        None => Some(0),
    };
    let given = warm.get("values");
    let values = match &given {
        Some(field) => values(field, matched, query, faults),
        None => Some(Vec::new()),
    };
    let (top, values) = (usize::try_from(top?).ok()?, values?);
    if given.is_some() || top == 0 {
        let placeholders = matched.map(Matched::placeholders).unwrap_or_default();
        let is_missing = |name: &&str| values.iter().all(|(known, _)| known != name);
        let missing: Vec<&str> = placeholders.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            let message = format!("`warm` has no values for {}", list(&missing));
            let help = "list them: values = { id = [\"a\", \"b\"] }, or write top = 20 alone";
            given
                .as_ref()
                .unwrap_or(&field)
                .fault(faults, message, help);
            return None;
        }
    }
    let keys = entries(&values, top);
    if keys > MAX_WARM_KEYS {
        let message = format!("`warm` is for {keys} entries");
        let help = format!("at most {MAX_WARM_KEYS} of one route are possible");
        field.fault(faults, message, help);
        return None;
    }
    Some(Some(Warm {
        every_ms: every_ms?,
        values,
        top,
    }))
}

/// How many entries these are.
fn entries(values: &[(String, Vec<String>)], top: usize) -> usize {
    let combinations = values.iter().fold(1, |product: usize, (_, values)| {
        product.saturating_mul(values.len())
    });
    match values.is_empty() && top > 0 {
        true => top,
        false => combinations.saturating_add(top),
    }
}

fn every(field: &Field<'_>, ttl_ms: Option<u64>, faults: &mut Faults) -> Option<u64> {
    let every_ms = field.duration(MIN_TTL_MS..=MAX_LIFE_MS, faults)?;
    if let Some(ttl_ms) = ttl_ms
        && every_ms >= ttl_ms
    {
        let message = format!(
            "`warm.every` is {} and `ttl` {}: the entry would end first",
            show_ms(every_ms),
            show_ms(ttl_ms)
        );
        field.fault(faults, message, "write less than `ttl`");
        return None;
    }
    Some(every_ms)
}

/// `{ parent_id = ["education", "business"], sort = ["views"] }`
fn values(
    field: &Field<'_>,
    matched: Option<&Matched>,
    query: Option<&[QueryParameter]>,
    faults: &mut Faults,
) -> Option<Vec<(String, Vec<String>)>> {
    const HELP: &str = "write lists by placeholder or parameter: { id = [\"a\", \"b\"] }";
    let listed = query.unwrap_or_default().iter();
    let known: Vec<&str> = (matched.map(Matched::placeholders).unwrap_or_default())
        .into_iter()
        .chain(listed.map(|parameter| parameter.name.as_str()))
        .collect();
    let mut all = Vec::new();
    let mut is_whole = true;
    for (name, member) in field.members(faults, HELP)? {
        // Those of a `match` or `query` with faults are not known.
        if matched.is_some() && query.is_some() && !known.contains(&name) {
            let help = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if known.is_empty() => "this route has no placeholders; remove it".to_owned(),
                None => format!("this route has {}", list(&known)),
            };
            let message = format!(
                "{} is neither a placeholder nor a listed parameter of this route",
                quote(name)
            );
            member.fault_at_name(faults, message, help);
            is_whole = false;
        }
        match texts(&member, faults) {
            Some(texts) => all.push((name.to_owned(), texts)),
            None => is_whole = false,
        }
    }
    is_whole.then_some(all)
}

fn texts(field: &Field<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let items = field.list(MAX_WARM_KEYS, faults)?;
    if items.is_empty() {
        field.fault(
            faults,
            format!("{} has no values", field.label()),
            "list some, or remove it",
        );
        return None;
    }
    let mut texts: Vec<String> = Vec::with_capacity(items.len());
    let mut is_whole = true;
    for item in &items {
        let text = item.text("write values in quotes", faults)?;
        let fault = match text.len() {
            1..=MAX_VALUE_BYTES if texts.iter().all(|known| known != text) => None,
            1..=MAX_VALUE_BYTES => {
                Some((format!("{} is there twice", quote(text)), "leave it out"))
            }
            bytes => Some((
                format!("{} has {bytes} bytes", item.label()),
                "1 to 256 are possible",
            )),
        };
        if let Some((message, help)) = fault {
            item.fault(faults, message, help);
            is_whole = false;
        }
        texts.push(text.to_owned());
    }
    is_whole.then_some(texts)
}

/// The outer `None`: there is a fault.
pub fn patience(
    table: &Table<'_>,
    stale_ms: Option<u64>,
    faults: &mut Faults,
) -> Option<Option<u64>> {
    let Some(field) = table.get("patience") else {
        return Some(None);
    };
    let patience_ms = field.duration(MIN_PATIENCE_MS..=MAX_PATIENCE_MS, faults)?;
    if stale_ms == Some(0) {
        let message = "`patience` is never used: without `stale` there is no older answer";
        field.fault_at_name(faults, message, "add `stale`, or remove it");
        return None;
    }
    Some(Some(patience_ms))
}

/// Every entry that is kept warm has a path and a key.
pub fn check(table: &Table<'_>, matched: Option<&Matched>, rule: &CacheRule, faults: &mut Faults) {
    let (Some(matched), Some(warm), Some(field)) = (matched, &rule.warm, table.get("warm")) else {
        return;
    };
    for combination in warm.combinations() {
        let (path, query) = request(&matched.path, &combination);
        let selected = rule.select(Some(&query));
        let of = Values {
            path: &path,
            selected: selected.as_ref(),
            user: None,
            body: None,
            response: None,
        };
        let renders = matched.path.render(&path).is_some()
            && rule.key.render(&of).is_some()
            && rule.tags.iter().all(|tag| tag.render(&of).is_some());
        if !renders {
            let values: Vec<&str> = combination.iter().map(|(_, value)| *value).collect();
            field.fault(
                faults,
                format!("the values {} make no path or no key", list(&values)),
                "use values that are one segment of a path and not too long",
            );
            return;
        }
    }
}

/// The request for a combination: its placeholders and its query.
pub fn request(path: &PathTemplate, combination: &[(&str, &str)]) -> (PathValues, String) {
    let mut values = PathValues::default();
    let mut query = String::new();
    for (name, value) in combination {
        if path.placeholders().any(|known| known == *name) {
            values.insert((*name).to_owned(), (*value).to_owned());
            continue;
        }
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(name);
        query.push('=');
        query.push_str(&encode_component(value));
    }
    (values, query)
}

/// All routes together are for no more entries than a run can look at.
pub fn total(drafts: &[Draft<'_>], faults: &mut Faults) {
    let mut sum = 0;
    for draft in drafts {
        let Some(warm) = draft.cache.as_ref().and_then(|rule| rule.warm.as_ref()) else {
            continue;
        };
        sum += entries(&warm.values, warm.top);
        let field = draft.cache_field.as_ref();
        if sum > MAX_WARM_TOTAL
            && let Some(field) = field.and_then(|field| field.child("warm"))
        {
            let message = format!("`warm` of all routes up to here is for {sum} entries");
            let help = format!("at most {MAX_WARM_TOTAL} are possible");
            field.fault(faults, message, help);
            return;
        }
    }
}
