//! How a route's answers are kept, and what a write purges.

use super::super::bounds::*;
use super::super::error::Faults;
use super::super::field::{Field, Table, quote};
use super::super::node::Value;
use super::super::template::Scope;
use super::super::types::{CacheRule, Form, Piece, PurgeRule, QueryParameter, Template};
use super::form::{form, without};
use super::route::Matched;
use super::{Overrides, life, warm};

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
    overrides: &Overrides,
    faults: &mut Faults,
) -> Option<CacheRule> {
    let table = field.table("`cache`", &FIELDS, faults)?;
    let form = form(&table, faults)?;
    let by_origin = match table.get("mode") {
        Some(field) => field.choice(&[("policy", false), ("http", true)], faults)?,
        None => false,
    };
    if by_origin {
        return of_origin(&table, matched, form, faults);
    }
    let query = match table.get("query") {
        Some(field) => query(&field, matched, faults),
        None => Some(Vec::new()),
    };
    let ttl = life::ttl(&table, overrides, faults);
    let stale_ms = life::stale(&table, ttl.as_ref(), faults);
    let l1_ms = life::l1(&table, ttl.as_ref(), faults);
    let negative_ms = table
        .get("negative")
        .map(|field| field.duration(MIN_TTL_MS..=MAX_LIFE_MS, faults));
    let ttl_ms = ttl.as_ref().map(|ttl| ttl.ms);
    let warmed = warm::rule(&table, ttl_ms, matched, query.as_deref(), faults);
    let patience_ms = warm::patience(&table, stale_ms, faults);
    let max_bytes = max_bytes(&table, faults);
    let forward = table
        .get("credentials")
        .map(|field| field.choice(&[("forward", true)], faults));
    if form == Form::User {
        without(
            &table,
            &["l1", "credentials"],
            "with `scope = \"user\"`",
            "remove it: no isolate keeps a user's entries, and his credentials always go to the origin",
            faults,
        );
        without(
            &table,
            &["warm"],
            "with `scope = \"user\"`",
            "remove it: the cron is no user, so it can fetch nothing of one",
            faults,
        );
    }
    let scope = scope(matched, query.as_deref(), form);
    let tags = match table.get("tags") {
        Some(field) => tag_list(&field, &scope, faults),
        None => Some(Vec::new()),
    };
    let key = table
        .need("key", "name the entry: key = \"books:{id}\"", faults)
        .and_then(|field| key(&field, matched, query.as_deref(), &scope, faults));
    let l1_ms = match form {
        Form::User => Some(Some(0)),
        _ => l1_ms,
    };
    let rule = CacheRule {
        key: key?,
        ttl_ms: ttl.as_ref()?.ms,
        ttl_from: ttl?.from,
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
        form,
        // A user's is a fault already.
        warm: warmed?.filter(|_| form != Form::User),
        patience_ms: patience_ms?,
    };
    warm::check(&table, matched, &rule, faults);
    Some(rule)
}

/// The rule of `mode = "http"`: most is the origin's to say.
fn of_origin(
    table: &Table<'_>,
    matched: Option<&Matched>,
    form: Form,
    faults: &mut Faults,
) -> Option<CacheRule> {
    let mut names = vec![
        "key",
        "query",
        "ttl",
        "l1",
        "negative",
        "credentials",
        "warm",
        "patience",
    ];
    match form {
        Form::Plain => {}
        Form::Packed => names.push("format"),
        Form::User => names.push("scope"),
    }
    without(
        table,
        &names,
        "with `mode = \"http\"`",
        "remove it: the origin's headers decide",
        faults,
    );
    let stale_ms = match table.get("stale") {
        Some(field) => field.duration(0..=MAX_LIFE_MS, faults),
        None => Some(0),
    };
    let max_bytes = max_bytes(table, faults);
    let tags = match table.get("tags") {
        Some(field) => tag_list(&field, &scope(matched, Some(&[]), Form::Plain), faults),
        None => Some(Vec::new()),
    };
    Some(CacheRule {
        key: Template { pieces: Vec::new() },
        ttl_ms: 0,
        ttl_from: None,
        stale_ms: stale_ms?,
        l1_ms: Some(0),
        negative_ms: None,
        max_bytes: max_bytes?,
        tags: tags?,
        query: Vec::new(),
        by_origin: true,
        forward_credentials: false,
        form: Form::Plain,
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

fn scope<'a>(
    matched: Option<&'a Matched>,
    query: Option<&'a [QueryParameter]>,
    form: Form,
) -> Scope<'a> {
    let values = matched.zip(query).map(|(matched, query)| {
        let listed = query.iter().map(|parameter| parameter.name.as_str());
        matched.placeholders().into_iter().chain(listed).collect()
    });
    Scope {
        values,
        hash: query.is_none_or(|query| !query.is_empty()),
        user: form == Form::User,
        json: false,
        why: "`{hash}` needs a `query`; `{user}` needs `scope = \"user\"`; bodies are for `purge`",
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
    if scope.user && !key.pieces.contains(&Piece::User) {
        let message = "`{user}` is not in the key: users would share one entry";
        field.fault(faults, message, "put {user} into the key");
    }
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
    let is_soft = match table.get("mode") {
        Some(field) => field.choice(&[("hard", false), ("soft", true)], faults),
        None => Some(false),
    };
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
        is_soft: is_soft?,
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
