//! Fields of the grammar whose feature this version does not build: their shape is
//! checked, and that they are there is a fault.

use super::super::bounds::{MAX_LIFE_MS, MIN_TTL_MS};
use super::super::error::Faults;
use super::super::field::{Field, Table, quote};
use super::super::node::Value;

/// Values of one placeholder of `warm`.
const MAX_VALUES: usize = 1000;

fn not_built(field: &Field<'_>, what: &str, faults: &mut Faults) {
    let message =
        format!("{what} is part of the policy's grammar, but this version does not build it yet");
    field.fault_at_name(faults, message, "remove it");
}

/// Of a route.
pub fn route(table: &Table<'_>, faults: &mut Faults) {
    for (name, shape) in [("fill", text as Shape), ("publish", publish)] {
        field(table, name, shape, faults);
    }
}

/// Of a cache rule.
pub fn cache(table: &Table<'_>, faults: &mut Faults) {
    field(table, "warm", warm, faults);
    words(table, "scope", &["shared"], &["user"], faults);
    words(table, "format", &[], &["packed"], faults);
}

/// Whether a duration is `$NAME`, which is then a fault.
pub fn variable(field: &Field<'_>, faults: &mut Faults) -> bool {
    let Value::Text(text) = &field.node.value else {
        return false;
    };
    let Some(name) = text.strip_prefix('$') else {
        return false;
    };
    let is_variable = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if is_variable {
        not_built(
            field,
            &format!("{} = {}", field.name_of(), quote(text)),
            faults,
        );
    }
    is_variable
}

/// Of a purge rule.
pub fn purge(table: &Table<'_>, faults: &mut Faults) {
    words(table, "mode", &["hard"], &["soft"], faults);
}

type Shape = fn(&Field<'_>, &mut Faults);

fn field(table: &Table<'_>, name: &str, shape: Shape, faults: &mut Faults) {
    if let Some(field) = table.get(name) {
        shape(&field, faults);
        not_built(&field, &format!("`{name}`"), faults);
    }
}

/// A field with some words that are built and some that are not.
fn words(table: &Table<'_>, name: &str, built: &[&str], planned: &[&str], faults: &mut Faults) {
    let Some(field) = table.get(name) else { return };
    let choices: Vec<(&str, bool)> = built
        .iter()
        .map(|word| (*word, true))
        .chain(planned.iter().map(|word| (*word, false)))
        .collect();
    if field.choice(&choices, faults) == Some(false)
        && let Value::Text(word) = &field.node.value
    {
        not_built(&field, &format!("`{name} = \"{word}\"`"), faults);
    }
}

fn text(field: &Field<'_>, faults: &mut Faults) {
    field.text("write it in quotes", faults);
}

fn texts(field: &Field<'_>, faults: &mut Faults) {
    for item in field.list(MAX_VALUES, faults).unwrap_or_default() {
        text(&item, faults);
    }
}

fn warm(field: &Field<'_>, faults: &mut Faults) {
    let table = field.table("`warm`", &["every", "values"], faults);
    if let Some(every) = table.as_ref().and_then(|table| table.get("every")) {
        every.duration(MIN_TTL_MS..=MAX_LIFE_MS, faults);
    }
    if let Some(values) = table.as_ref().and_then(|table| table.get("values")) {
        const HELP: &str = "write lists by placeholder: { id = [\"a\", \"b\"] }";
        for (_, list) in values.members(faults, HELP).unwrap_or_default() {
            texts(&list, faults);
        }
    }
}

fn publish(field: &Field<'_>, faults: &mut Faults) {
    const FIELDS: [&str; 3] = ["channel", "event", "data"];
    if let Some(table) = field.table("`publish`", &FIELDS, faults) {
        for name in FIELDS {
            if let Some(field) = table.get(name) {
                text(&field, faults);
            }
        }
    }
}
