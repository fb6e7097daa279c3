//! Fields of the grammar whose feature this version does not build: their shape is
//! checked, and that they are there is a fault.

use super::super::error::Faults;
use super::super::field::{Field, Table};
use super::super::node::Value;

fn not_built(field: &Field<'_>, what: &str, faults: &mut Faults) {
    let message =
        format!("{what} is part of the policy's grammar, but this version does not build it yet");
    field.fault_at_name(faults, message, "remove it");
}

/// Of a route.
pub fn route(table: &Table<'_>, faults: &mut Faults) {
    field(table, "publish", publish, faults);
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
