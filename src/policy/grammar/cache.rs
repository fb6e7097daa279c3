//! How a route's answers are kept, and what a write purges.

use super::super::bounds::*;
use super::super::error::Faults;
use super::super::field::{Field, Table, quote};
use super::super::measure::show_ms;
use super::super::node::Value;
use super::super::template::Scope;
use super::super::types::{CacheRule, Piece, PurgeRule, QueryParameter, Template};
use super::route::Matched;
use super::{unbuilt, warm};

const FIELDS: [&str; 14] = [
    "key",
    "query",
    "ttl",
    "stale",
    "tags",
    "l1",
    "negative",
    "max_size",
    "credentials",
    "mode",
    "scope",
    "warm",
    "patience",
    "format",
];

/// What Edgeweir's own keys begin with (CONTRACT, Redis keys).
pub const OWN_KEYS: [&str; 6] = ["ratelimit", "views", "gen", "metrics", "meta", "fill"];
/// The same, and what `http` mode's keys begin with, which may be purged.
const TAKEN_KEYS: [&str; 7] = [
    "ratelimit",
    "views",
    "gen",
    "metrics",
    "meta",
    "fill",
    "http",
];
/// `key:…` is the tag that every entry has for its own key.
const OWN_TAGS: [&str; 1] = ["key"];

pub fn rule(
    field: &Field<'_>,
    matched: Option<&Matched>,
    faults: &mut Faults,
) -> Option<CacheRule> {
    let table = field.table("`cache`", &FIELDS, faults)?;
    unbuilt::cache(&table, faults);
    let by_origin = match table.get("mode") {
        Some(field) => field.choice(&[("policy", false), ("http", true)], faults)?,
        None => false,
    };
    if by_origin {
        return of_origin(&table, matched, faults);
    }
    let query = match table.get("query") {
        Some(field) => query(&field, matched, faults),
        None => Some(Vec::new()),
    };
    let (ttl_ms, stale_ms) = lifetimes(&table, faults);
    let l1_ms = l1(&table, ttl_ms, faults);
    let negative_ms = table
        .get("negative")
        .map(|field| field.duration(MIN_TTL_MS..=MAX_LIFE_MS, faults));
    let warmed = warm::rule(&table, ttl_ms, matched, query.as_deref(), faults);
    let patience_ms = warm::patience(&table, stale_ms, faults);
    let max_bytes = max_bytes(&table, faults);
    let forward = table
        .get("credentials")
        .map(|field| field.choice(&[("forward", true)], faults));
    let scope = scope(matched, query.as_deref());
    let tags = match table.get("tags") {
        Some(field) => tag_list(&field, &scope, faults),
        None => Some(Vec::new()),
    };
    let key = table
        .need("key", "name the entry: key = \"books:{id}\"", faults)
        .and_then(|field| key(&field, matched, query.as_deref(), &scope, faults));
    let rule = CacheRule {
        key: key?,
        ttl_ms: ttl_ms?,
        stale_ms: stale_ms?,
        l1_ms: l1_ms?,
        negative_ms: match negative_ms {
            Some(negative_ms) => Some(negative_ms?),
            None => None,
        },
        max_bytes: max_bytes?,
        tags: tags?,
        query: query?,
        by_origin: false,
        forward_credentials: match forward {
            Some(forward) => forward?,
            None => false,
        },
        warm: warmed?,
        patience_ms: patience_ms?,
    };
    warm::check(&table, matched, &rule, faults);
    Some(rule)
}

/// The rule of `mode = "http"`: most is the origin's to say.
fn of_origin(
    table: &Table<'_>,
    matched: Option<&Matched>,
    faults: &mut Faults,
) -> Option<CacheRule> {
    for name in [
        "key",
        "query",
        "ttl",
        "l1",
        "negative",
        "credentials",
        "warm",
        "patience",
    ] {
        if let Some(field) = table.get(name) {
            let message = format!("`{name}` has no meaning with `mode = \"http\"`");
            field.fault_at_name(faults, message, "remove it: the origin's headers decide");
        }
    }
    let stale_ms = match table.get("stale") {
        Some(field) => field.duration(0..=MAX_LIFE_MS, faults),
        None => Some(0),
    };
    let max_bytes = max_bytes(table, faults);
    let tags = match table.get("tags") {
        Some(field) => tag_list(&field, &scope(matched, Some(&[])), faults),
        None => Some(Vec::new()),
    };
    Some(CacheRule {
        key: Template { pieces: Vec::new() },
        ttl_ms: 0,
        stale_ms: stale_ms?,
        l1_ms: Some(0),
        negative_ms: None,
        max_bytes: max_bytes?,
        tags: tags?,
        query: Vec::new(),
        by_origin: true,
        forward_credentials: false,
        warm: None,
        patience_ms: None,
    })
}

fn max_bytes(table: &Table<'_>, faults: &mut Faults) -> Option<usize> {
    let bytes = match table.get("max_size") {
        Some(field) => field.size(1..=MAX_ENTRY_BYTES, faults),
        None => Some(MAX_ENTRY_BYTES),
    };
    usize::try_from(bytes?).ok()
}

/// `ttl` and `stale`; together no longer than generations live.
fn lifetimes(table: &Table<'_>, faults: &mut Faults) -> (Option<u64>, Option<u64>) {
    let ttl_ms = match table.need("ttl", "say how long it is fresh: ttl = \"15m\"", faults) {
        Some(field) if !unbuilt::variable(&field, faults) => {
            field.duration(MIN_TTL_MS..=MAX_LIFE_MS, faults)
        }
        _ => None,
    };
    let stale = table.get("stale");
    let stale_ms = match &stale {
        Some(field) => field.duration(0..=MAX_LIFE_MS, faults),
        None => Some(0),
    };
    if let (Some(field), Some(ttl_ms), Some(stale_ms)) = (stale, ttl_ms, stale_ms)
        && ttl_ms.saturating_add(stale_ms) > MAX_LIFE_MS
    {
        let message = format!(
            "`ttl` and `stale` are {} together, and the generations that prove an entry live {}",
            show_ms(ttl_ms.saturating_add(stale_ms)),
            show_ms(MAX_LIFE_MS)
        );
        let help = format!(
            "write at most \"{}\"",
            show_ms(MAX_LIFE_MS.saturating_sub(ttl_ms))
        );
        field.fault(faults, message, help);
    }
    (ttl_ms, stale_ms)
}

/// `l1`, no longer than `ttl`; the outer `None`: there is a fault.
fn l1(table: &Table<'_>, ttl_ms: Option<u64>, faults: &mut Faults) -> Option<Option<u64>> {
    let Some(field) = table.get("l1") else {
        return Some(None);
    };
    let l1_ms = field.duration(0..=MAX_L1_MS, faults)?;
    if let Some(ttl_ms) = ttl_ms
        && l1_ms > ttl_ms
    {
        let message = format!(
            "`l1` is {}, and an entry is fresh for {}",
            show_ms(l1_ms),
            show_ms(ttl_ms)
        );
        field.fault(faults, message, "write at most the `ttl`");
        return None;
    }
    Some(Some(l1_ms))
}

fn scope<'a>(matched: Option<&'a Matched>, query: Option<&'a [QueryParameter]>) -> Scope<'a> {
    let values = matched.zip(query).map(|(matched, query)| {
        let listed = query.iter().map(|parameter| parameter.name.as_str());
        matched.placeholders().into_iter().chain(listed).collect()
    });
    Scope {
        values,
        hash: query.is_none_or(|query| !query.is_empty()),
        user: false,
        json: false,
        why: "`{hash}` needs a `query`; `{user}` needs `scope = \"user\"`, which this version does not build yet; bodies are for `purge`",
    }
}

/// A key in which everything that changes the answer has its place.
fn key(
    field: &Field<'_>,
    matched: Option<&Matched>,
    query: Option<&[QueryParameter]>,
    scope: &Scope<'_>,
    faults: &mut Faults,
) -> Option<Template> {
    let key = own_key(field, scope, faults)?;
    let path = matched.map(Matched::placeholders).unwrap_or_default();
    let has_hash = key.pieces.contains(&Piece::Hash);
    let listed = query
        .unwrap_or_default()
        .iter()
        .map(|parameter| parameter.name.as_str());
    for name in path.into_iter().chain(listed.filter(|_| !has_hash)) {
        if !key.uses(name) {
            let message =
                format!("`{{{name}}}` is not in the key: different pages would share one entry");
            field.fault(faults, message, format!("put {{{name}}} into the key"));
        }
    }
    Some(key)
}

/// A key that begins with its own text and can be none of Edgeweir's.
fn own_key(field: &Field<'_>, scope: &Scope<'_>, faults: &mut Faults) -> Option<Template> {
    let key = template(field, scope, faults)?;
    if !matches!(key.pieces.first(), Some(Piece::Text(_))) {
        let message = format!("the key {} begins with a value", quote(&key.text()));
        field.fault(
            faults,
            message,
            "begin it with a text of its own: \"books:{id}\"",
        );
        return None;
    }
    not_ours(field, key, &TAKEN_KEYS, faults)
}

fn tag(field: &Field<'_>, scope: &Scope<'_>, faults: &mut Faults) -> Option<Template> {
    let tag = template(field, scope, faults)?;
    not_ours(field, tag, &OWN_TAGS, faults)
}

/// No value contains `:`, so the texts decide what may stand before the first one.
fn not_ours(
    field: &Field<'_>,
    template: Template,
    reserved: &[&str],
    faults: &mut Faults,
) -> Option<Template> {
    let has_colon = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains(':'));
    let first = match template.pieces.first() {
        Some(Piece::Text(text)) => text.as_str(),
        _ => "",
    };
    let may_become = |own: &&&str| match first.split_once(':') {
        Some((before, _)) => before == **own,
        None => own.starts_with(first) && template.pieces.iter().any(has_colon),
    };
    let Some(own) = reserved.iter().find(may_become) else {
        return Some(template);
    };
    let message = format!(
        "{} could be one of Edgeweir's own, which begin with `{own}:`",
        quote(&template.text())
    );
    field.fault(faults, message, "begin it with another text");
    None
}

fn template(field: &Field<'_>, scope: &Scope<'_>, faults: &mut Faults) -> Option<Template> {
    let text = field.text("write it in quotes: \"books:{id}\"", faults)?;
    match Template::parse(text, scope) {
        Ok(template) => Some(template),
        Err((message, help)) => {
            field.fault(faults, message, help);
            None
        }
    }
}

fn tag_list(field: &Field<'_>, scope: &Scope<'_>, faults: &mut Faults) -> Option<Vec<Template>> {
    let items = field.list(MAX_TAGS, faults)?;
    different(items, |item, faults| tag(item, scope, faults), faults)
}

/// All of a list, none of them twice.
fn different(
    items: Vec<Field<'_>>,
    read: impl Fn(&Field<'_>, &mut Faults) -> Option<Template>,
    faults: &mut Faults,
) -> Option<Vec<Template>> {
    let mut templates: Vec<Option<Template>> = Vec::with_capacity(items.len());
    for item in items {
        let template = read(&item, faults);
        if template.is_some() && templates.contains(&template) {
            let message = format!("{} is there twice", item.label());
            item.fault(faults, message, "leave it out");
        }
        templates.push(template);
    }
    templates.into_iter().collect()
}

/// A list of names, or a table from name to default.
fn query(
    field: &Field<'_>,
    matched: Option<&Matched>,
    faults: &mut Faults,
) -> Option<Vec<QueryParameter>> {
    let items: Vec<(Field<'_>, &str, Option<Field<'_>>)> = match &field.node.value {
        Value::List(_) => field
            .list(MAX_QUERY_PARAMETERS, faults)?
            .into_iter()
            .filter_map(|item| {
                let name = item.text("write names in quotes: [\"sort\", \"page\"]", faults)?;
                Some((item, name, None))
            })
            .collect(),
        _ => {
            let members =
                field.members(faults, "write [\"sort\", \"page\"] or { sort = \"views\" }")?;
            if members.len() > MAX_QUERY_PARAMETERS {
                let message = format!("`query` has {} parameters", members.len());
                field.fault(
                    faults,
                    message,
                    format!("at most {MAX_QUERY_PARAMETERS} are possible"),
                );
            }
            members
                .into_iter()
                .map(|(name, member)| (member.clone(), name, Some(member)))
                .collect()
        }
    };
    let taken = matched.map(Matched::placeholders).unwrap_or_default();
    let mut parameters: Vec<QueryParameter> = Vec::with_capacity(items.len());
    for (item, name, default) in items {
        if let Some((message, help)) = bad_parameter(name, &taken, &parameters) {
            item.fault_at_name(faults, message, help);
        }
        let default = match default {
            Some(field) => Some(default_value(&field, faults)?),
            None => None,
        };
        parameters.push(QueryParameter {
            name: name.to_owned(),
            default,
        });
    }
    Some(parameters)
}

fn bad_parameter(
    name: &str,
    taken: &[&str],
    before: &[QueryParameter],
) -> Option<(String, &'static str)> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~[]".contains(&byte));
    if !fits {
        return Some((
            format!("{} is no name of a query parameter", quote(name)),
            "write 1 to 64 of a-z, A-Z, 0-9, -, ., _, ~, [ and ]",
        ));
    }
    if taken.contains(&name) {
        return Some((
            format!("`{name}` is a placeholder of the path too"),
            "rename the placeholder",
        ));
    }
    let repeated = before.iter().any(|parameter| parameter.name == name);
    repeated.then(|| (format!("`{name}` is there twice"), "leave it out"))
}

fn default_value(field: &Field<'_>, faults: &mut Faults) -> Option<String> {
    let text = field.text("write defaults in quotes: page = \"1\"", faults)?;
    if text.len() > MAX_VALUE_BYTES {
        let message = format!("the default of {} has {} bytes", field.label(), text.len());
        field.fault(
            faults,
            message,
            format!("at most {MAX_VALUE_BYTES} are possible"),
        );
        return None;
    }
    Some(text.to_owned())
}

/// What a write purges.
pub fn purge(
    field: &Field<'_>,
    matched: Option<&Matched>,
    faults: &mut Faults,
) -> Option<PurgeRule> {
    let table = field.table("`purge`", &["keys", "tags", "else", "mode"], faults)?;
    unbuilt::purge(&table, faults);
    let written = Scope {
        values: matched.map(Matched::placeholders),
        hash: false,
        user: true,
        json: true,
        why: "a write has no listed query parameters",
    };
    let always = Scope {
        user: false,
        json: false,
        why: "`else` is purged when a value is missing: only placeholders of the path are always there",
        ..written.clone()
    };
    let keys = match table
        .get("keys")
        .map(|field| field.list(MAX_PURGE_KEYS, faults))
    {
        Some(items) => items.and_then(|items| {
            different(
                items,
                |item, faults| own_key(item, &written, faults),
                faults,
            )
        }),
        None => Some(Vec::new()),
    };
    let tags = match table.get("tags") {
        Some(field) => tag_list(&field, &written, faults),
        None => Some(Vec::new()),
    };
    let otherwise = match table.get("else") {
        Some(field) => tag_list(&field, &always, faults),
        None => Some(Vec::new()),
    };
    let rule = PurgeRule {
        keys: keys?,
        tags: tags?,
        otherwise: otherwise?,
    };
    if rule.keys.is_empty() && rule.tags.is_empty() {
        field.fault(
            faults,
            "`purge` purges nothing",
            "list `keys` or `tags`, or remove it",
        );
    }
    let may_miss = rule
        .keys
        .iter()
        .chain(&rule.tags)
        .flat_map(|template| &template.pieces)
        .any(|piece| matches!(piece, Piece::User | Piece::Body(_) | Piece::Response(_)));
    if let Some(field) = table.get("else")
        && !may_miss
    {
        let message = "`else` never happens: no value of this purge can be missing";
        field.fault_at_name(faults, message, "remove it");
    }
    Some(rule)
}
