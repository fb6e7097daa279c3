//! Fields of the grammar whose feature this version does not build: their shape is
//! checked, and that they are there is a fault.

use super::super::bounds::{MAX_LIFE_MS, MIN_TTL_MS};
use super::super::error::Faults;
use super::super::field::{Field, Table};

/// Values of one placeholder of `warm`.
const MAX_VALUES: usize = 1000;

fn not_built(field: &Field<'_>, what: &str, faults: &mut Faults) {
    let message =
        format!("{what} is part of the policy's grammar, but this version does not build it yet");
    field.fault_at_name(faults, message, "remove it");
}

/// Of a route.
pub fn route(table: &Table<'_>, faults: &mut Faults) {
    for (name, shape) in [("publish", publish as Shape), ("view", view)] {
        field(table, name, shape, faults);
    }
}

/// Of a cache rule.
pub fn cache(table: &Table<'_>, faults: &mut Faults) {
    field(table, "warm", warm, faults);
}

type Shape = fn(&Field<'_>, &mut Faults);

fn field(table: &Table<'_>, name: &str, shape: Shape, faults: &mut Faults) {
    if let Some(field) = table.get(name) {
        shape(&field, faults);
        not_built(&field, &format!("`{name}`"), faults);
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

fn view(field: &Field<'_>, faults: &mut Faults) {
    const HELP: &str = "write placeholders by kind: { story = \"{story}\" }";
    for (_, member) in field.members(faults, HELP).unwrap_or_default() {
        text(&member, faults);
    }
}
