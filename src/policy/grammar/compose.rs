//! One answer made of other routes' answers.

use super::super::bounds::{MAX_NAME_BYTES, MAX_PARTS, MAX_VALUE_BYTES};
use super::super::error::{Faults, nearest};
use super::super::field::{Field, list, quote};
use super::super::key::Values;
use super::super::node::Value;
use super::super::template::PathValues;
use super::super::types::{Each, Form, Part};
use super::route::Draft;
use super::whole::index_of;

/// The parts of a route that has `compose`.
pub fn parts(draft: &Draft<'_>, drafts: &[Draft<'_>], faults: &mut Faults) -> Option<Vec<Part>> {
    const HELP: &str = "name the parts: { books = \"top-books\" }";
    let field = draft.compose_field.as_ref()?;
    let mut parts = Vec::new();
    for (name, member) in field.members(faults, HELP)? {
        if !is_part_name(name) {
            let message = format!("{} is no name of a part", quote(name));
            member.fault_at_name(faults, message, "write 1 to 64 of a-z, A-Z, 0-9, - and _");
        }
        parts.extend(part(name, &member, drafts, faults));
    }
    if matches!(&field.node.value, Value::Table(entries) if entries.is_empty()) {
        field.fault(faults, "`compose` has no parts", HELP);
    }
    let answers: usize = parts
        .iter()
        .map(|part| part.each.as_ref().map_or(1, |each| each.values.len()))
        .sum();
    if answers > MAX_PARTS {
        let message = format!("`compose` is made of {answers} answers");
        field.fault(faults, message, format!("at most {MAX_PARTS} are possible"));
    }
    Some(parts)
}

fn is_part_name(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn part(name: &str, member: &Field<'_>, drafts: &[Draft<'_>], faults: &mut Faults) -> Option<Part> {
    const HELP: &str = "name the route: route = \"top-books\"";
    let (of, each_field) = match &member.node.value {
        Value::Text(_) => (member.clone(), None),
        _ => {
            let table = member.table("a part", &["route", "each"], faults)?;
            (table.need("route", HELP, faults)?, table.get("each"))
        }
    };
    let route_name = of.text(HELP, faults)?;
    let Some(route) = index_of(route_name, drafts) else {
        let help = match nearest(
            route_name,
            drafts.iter().filter_map(|draft| draft.name.as_deref()),
        ) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "name one of this policy's routes".to_owned(),
        };
        of.fault(
            faults,
            format!("no route is called {}", quote(route_name)),
            help,
        );
        return None;
    };
    let draft = drafts.get(route)?;
    if draft.cache_field.is_none() {
        let message = format!("the route `{route_name}` has no `cache`");
        of.fault(faults, message, "compose only routes that are cached");
        return None;
    }
    if draft.cache.as_ref().is_some_and(|rule| rule.by_origin) {
        let message = format!("the route `{route_name}` is cached by its origin's headers");
        of.fault(
            faults,
            message,
            "compose only routes with `mode = \"policy\"`",
        );
        return None;
    }
    let form = draft.cache.as_ref().map(|rule| rule.form);
    let complaint = match form {
        Some(Form::User) => Some("is one user's"),
        Some(Form::Packed) => Some("is packed, and the parts are joined as plain JSON"),
        Some(Form::Plain) | None => None,
    };
    if let Some(complaint) = complaint {
        let message = format!("what the route `{route_name}` caches {complaint}");
        of.fault(
            faults,
            message,
            "compose only shared routes without a `format`",
        );
        return None;
    }
    let placeholders = draft.matched.as_ref()?.placeholders();
    let each = match &each_field {
        Some(field) => Some(each(field, faults)?),
        None => None,
    };
    let given = each.as_ref().map(|each| each.placeholder.as_str());
    if placeholders != given.into_iter().collect::<Vec<_>>() {
        let message = match (placeholders.as_slice(), given) {
            ([], Some(given)) => format!(
                "the route `{route_name}` has no placeholder {}",
                quote(given)
            ),
            (_, Some(given)) => format!(
                "`each` gives {}, the route `{route_name}` has {}",
                quote(given),
                list(&placeholders)
            ),
            (_, None) => format!("the route `{route_name}` needs {}", list(&placeholders)),
        };
        let help = match placeholders.as_slice() {
            [] => "remove `each`".to_owned(),
            [one] => format!("write each = {{ {one} = [ … ] }}"),
            _ => "a part can be repeated by one placeholder only".to_owned(),
        };
        each_field
            .as_ref()
            .unwrap_or(member)
            .fault(faults, message, help);
        return None;
    }
    check_keys(&each_field.unwrap_or(of), draft, each.as_ref(), faults);
    Some(Part {
        name: name.to_owned(),
        route,
        each,
    })
}

/// `{ parent_id = ["education", "business"] }`
fn each(field: &Field<'_>, faults: &mut Faults) -> Option<Each> {
    const HELP: &str = "write one placeholder and its values: { id = [\"a\", \"b\"] }";
    let members = field.members(faults, HELP)?;
    let [(placeholder, values)] = members.as_slice() else {
        field.fault(
            faults,
            format!("`each` has {} placeholders", members.len()),
            HELP,
        );
        return None;
    };
    let items = values.list(MAX_PARTS, faults)?;
    if items.is_empty() {
        values.fault(faults, format!("{} has no values", values.label()), HELP);
    }
    let mut texts = Vec::with_capacity(items.len());
    for item in &items {
        let text = item.text("write values in quotes", faults)?;
        if text.is_empty() || text.len() > MAX_VALUE_BYTES {
            let message = format!("{} has {} bytes", item.label(), text.len());
            item.fault(
                faults,
                message,
                format!("1 to {MAX_VALUE_BYTES} are possible"),
            );
        }
        if texts.iter().any(|known| known == text) {
            item.fault(
                faults,
                format!("{} is there twice", quote(text)),
                "leave it out",
            );
        }
        texts.push(text.to_owned());
    }
    Some(Each {
        placeholder: (*placeholder).to_owned(),
        values: texts,
    })
}

/// Every answer that a part is made of has a path and a key.
fn check_keys(at: &Field<'_>, draft: &Draft<'_>, each: Option<&Each>, faults: &mut Faults) {
    let (Some(matched), Some(rule)) = (&draft.matched, &draft.cache) else {
        return;
    };
    let values: Vec<Option<&String>> = match each {
        Some(each) => each.values.iter().map(Some).collect(),
        None => vec![None],
    };
    for value in values {
        let mut path = PathValues::default();
        if let (Some(each), Some(value)) = (each, value) {
            path.insert(each.placeholder.clone(), value.clone());
        }
        let selected = rule.select(None);
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
            let what = value.map_or("this part".to_owned(), |value| quote(value));
            let message = format!("{what} makes no path or no key");
            at.fault(
                faults,
                message,
                "use a value that is one segment of a path and not too long",
            );
        }
    }
}
