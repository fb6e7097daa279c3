//! What an entry is in Redis and for whom, and what that leaves without a meaning.

use super::super::error::Faults;
use super::super::field::Table;
use super::super::types::Form;

/// `scope` and `format`. A user's entries are packed whatever `format` says.
pub fn form(table: &Table<'_>, faults: &mut Faults) -> Option<Form> {
    let packed = match table.get("format") {
        Some(field) => field.choice(&[("packed", Form::Packed)], faults)?,
        None => Form::Plain,
    };
    match table.get("scope") {
        Some(field) => field.choice(&[("shared", packed), ("user", Form::User)], faults),
        None => Some(packed),
    }
}

/// Fields that say nothing beside another one.
pub fn without(table: &Table<'_>, names: &[&str], beside: &str, help: &str, faults: &mut Faults) {
    for name in names {
        if let Some(field) = table.get(name) {
            let message = format!("`{name}` has no meaning {beside}");
            field.fault_at_name(faults, message, help);
        }
    }
}
