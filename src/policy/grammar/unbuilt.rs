//! Fields of the grammar whose feature this version does not build: their shape is
//! checked, and that they are there is a fault.

use super::super::error::Faults;
use super::super::field::{Field, Table};

fn not_built(field: &Field<'_>, what: &str, faults: &mut Faults) {
    let message =
        format!("{what} is part of the policy's grammar, but this version does not build it yet");
    field.fault_at_name(faults, message, "remove it");
}

/// Of a route.
pub fn route(table: &Table<'_>, faults: &mut Faults) {
    field(table, "publish", publish, faults);
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
