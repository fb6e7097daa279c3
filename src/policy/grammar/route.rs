//! One route: its name, what it matches, and what applies to it.

use super::super::bounds::{MAX_METHOD_BYTES, MAX_METHODS};
use super::super::error::Faults;
use super::super::field::{Field, quote};
use super::super::node::Value;
use super::super::types::{
    CacheRule, Defaults, FillRule, Limit, Part, PathTemplate, PurgeRule, RedisDown, Route, Switch,
    ViewRule,
};
use super::{Overrides, REDIS_DOWN, cache, limit, unbuilt, view};

const FIELDS: [&str; 11] = [
    "name",
    "match",
    "limit",
    "redis_down",
    "cache",
    "purge",
    "compose",
    "fill",
    "publish",
    "view",
    "switch",
];

/// A route as far as it could be read; `None` beside a field that is there means a
/// fault that is already known.
pub struct Draft<'n> {
    pub field: Field<'n>,
    pub name: Option<String>,
    pub matched: Option<Matched>,
    /// Inner `None`: the default ones.
    pub limits: Option<Option<Vec<Limit>>>,
    pub redis_down: Option<Option<RedisDown>>,
    pub switches: Option<Vec<Switch>>,
    pub cache_field: Option<Field<'n>>,
    pub cache: Option<CacheRule>,
    pub purge_field: Option<Field<'n>>,
    pub purge: Option<PurgeRule>,
    pub fill_field: Option<Field<'n>>,
    pub compose_field: Option<Field<'n>>,
    /// Inner `None`: nothing is counted.
    pub view: Option<Option<ViewRule>>,
}

/// What `match` says.
pub struct Matched {
    /// Empty: any.
    pub methods: Vec<String>,
    pub path: PathTemplate,
}

impl Matched {
    /// Only what is read and has no effect may be kept or composed.
    pub fn is_get(&self) -> bool {
        self.methods.iter().any(|method| method == "GET")
            && self
                .methods
                .iter()
                .all(|method| matches!(method.as_str(), "GET" | "HEAD"))
    }

    pub fn placeholders(&self) -> Vec<&str> {
        self.path.placeholders().collect()
    }
}

pub fn draft<'n>(
    field: &Field<'n>,
    redis_ms: u64,
    overrides: &Overrides,
    faults: &mut Faults,
) -> Draft<'n> {
    let mut draft = Draft {
        field: field.clone(),
        name: None,
        matched: None,
        limits: None,
        redis_down: None,
        switches: None,
        cache_field: None,
        cache: None,
        purge_field: None,
        purge: None,
        fill_field: None,
        compose_field: None,
        view: None,
    };
    let Some(table) = field.table("a route", &FIELDS, faults) else {
        return draft;
    };
    unbuilt::route(&table, faults);
    draft.name = table
        .need(
            "name",
            "name the route; the name appears in keys, headers and metrics",
            faults,
        )
        .and_then(|field| field.name(faults).map(str::to_owned));
    draft.matched = table
        .need(
            "match",
            "say what it matches: match = \"GET /api/books/{id}\"",
            faults,
        )
        .and_then(|field| matched(&field, faults));
    draft.limits = match table.get("limit") {
        Some(field) => limit::list(&field, redis_ms, faults).map(Some),
        None => Some(None),
    };
    draft.redis_down = match table.get("redis_down") {
        Some(field) => field.choice(&REDIS_DOWN, faults).map(Some),
        None => Some(None),
    };
    draft.switches = match table.get("switch") {
        Some(field) => switches(&field, faults),
        None => Some(Vec::new()),
    };
    let matched = draft.matched.as_ref();
    draft.cache_field = table.get("cache");
    draft.purge_field = table.get("purge");
    draft.fill_field = table.get("fill");
    draft.compose_field = table.get("compose");
    if let Some(field) = &draft.cache_field {
        draft.cache = cache::rule(field, matched, overrides, faults);
    }
    if let Some(field) = &draft.purge_field {
        draft.purge = cache::purge(field, matched, faults);
    }
    draft.view = match table.get("view") {
        Some(field) => {
            let cache = draft.cache_field.is_some().then_some(draft.cache.as_ref());
            view::rule(&field, matched, cache, faults).map(Some)
        }
        None => Some(None),
    };
    exclude(&draft, faults);
    draft
}

/// One variable, or a list of them.
fn switches(field: &Field<'_>, faults: &mut Faults) -> Option<Vec<Switch>> {
    let items = match &field.node.value {
        Value::List(_) => field.list(Switch::VARIABLES.len(), faults)?,
        _ => vec![field.clone()],
    };
    let mut switches = Vec::new();
    let mut is_whole = true;
    for item in items {
        let Some(switch) = item.choice(&Switch::VARIABLES, faults) else {
            is_whole = false;
            continue;
        };
        if switches.contains(&switch) {
            let message = format!("{} is there twice", item.label());
            item.fault(faults, message, "leave it out");
        }
        switches.push(switch);
    }
    is_whole.then_some(switches)
}

/// A route has one way to answer.
fn exclude(draft: &Draft<'_>, faults: &mut Faults) {
    let get = draft.matched.as_ref().is_none_or(Matched::is_get);
    for (field, what) in [
        (&draft.cache_field, "`cache`"),
        (&draft.compose_field, "`compose`"),
    ] {
        if let Some(field) = field
            && !get
        {
            let message = format!("{what} is on a route that takes other methods than GET");
            field.fault_at_name(faults, message, "match GET alone; it stands for HEAD too");
        }
    }
    if let (Some(_), Some(field)) = (&draft.cache_field, &draft.compose_field) {
        let message = "`compose` is on a route that has a `cache`";
        field.fault_at_name(
            faults,
            message,
            "keep one of them; the parts are cached by their own routes",
        );
    }
    let answers = draft.cache_field.is_some() || draft.compose_field.is_some();
    if let (Some(field), true) = (&draft.purge_field, answers) {
        let message = "`purge` is on a route that answers from the cache";
        field.fault_at_name(faults, message, "purge on the routes that write");
    }
    let reads = draft.matched.as_ref().is_some_and(Matched::is_get);
    if let (Some(field), true) = (&draft.fill_field, answers || reads) {
        let message = "`fill` is on a route that does not write";
        field.fault_at_name(faults, message, "fill on the routes that write");
    }
}

fn matched(field: &Field<'_>, faults: &mut Faults) -> Option<Matched> {
    const HELP: &str =
        "write methods and a path: \"GET /api/books/{id}\" or \"PUT|PATCH /api/books/{id}\"";
    let text = field.text(HELP, faults)?;
    let Some((list, path)) = text.split_once(' ') else {
        field.fault(faults, format!("`match` is {}", quote(text)), HELP);
        return None;
    };
    let methods = match methods(list) {
        Ok(methods) => Some(methods),
        Err(message) => {
            field.fault(
                faults,
                message,
                "write methods as \"GET\", \"PUT|PATCH\", or \"*\" for any",
            );
            None
        }
    };
    let path = match PathTemplate::parse(path) {
        Ok(path) => Some(path),
        Err((message, help)) => {
            field.fault(faults, message, help);
            None
        }
    };
    Some(Matched {
        methods: methods?,
        path: path?,
    })
}

fn methods(list: &str) -> Result<Vec<String>, String> {
    if list == "*" {
        return Ok(Vec::new());
    }
    let mut methods: Vec<String> = Vec::new();
    for method in list.split('|') {
        let fits = (1..=MAX_METHOD_BYTES).contains(&method.len())
            && method
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !fits {
            return Err(format!("{} is no method", quote(method)));
        }
        if methods.iter().any(|known| known == method) {
            return Err(format!("the method `{method}` is there twice"));
        }
        methods.push(method.to_owned());
    }
    if methods.len() > MAX_METHODS {
        return Err(format!(
            "{} methods are more than {MAX_METHODS}",
            methods.len()
        ));
    }
    Ok(methods)
}

impl Draft<'_> {
    /// The route in a sentence.
    pub fn called(&self) -> String {
        match &self.name {
            Some(name) => format!("the route `{name}`"),
            None => "another route".to_owned(),
        }
    }

    /// The route, if nothing of it has a fault.
    pub fn finish(
        self,
        parts: Option<Vec<Part>>,
        fill: Option<FillRule>,
        defaults: &Defaults,
    ) -> Option<Route> {
        let Matched { methods, path, .. } = self.matched?;
        Some(Route {
            name: self.name?,
            methods,
            path,
            limits: self.limits?.unwrap_or_else(|| defaults.limits.clone()),
            redis_down: self.redis_down?.unwrap_or(defaults.redis_down),
            cache: self.cache,
            purge: self.purge,
            fill,
            compose: parts,
            view: self.view?,
            switches: self.switches?,
        })
    }
}
