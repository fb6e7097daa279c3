//! TOML to a tree. Native only: the Worker gets the policy as JSON.
//!
//! The parser stops at its first error. A name given twice is the one that people
//! make beside others, so its line is left out and the rest is judged too.

use std::ops::Range;

use toml_edit::{Document, InlineTable, Item, Key, Table, TomlError};

use super::bounds::MAX_ERRORS;
use super::error::Faults;
use super::node::{Entry, Node, Value};

/// Reads TOML; `None` when it is none, which `faults` then says. A tree may come
/// with faults.
pub fn read(text: &str, faults: &mut Faults) -> Option<Node> {
    let mut remaining = text.to_owned();
    for _ in 0..MAX_ERRORS {
        let error = match Document::parse(remaining.as_str()) {
            Ok(document) => return Some(item(document.as_item(), 0)),
            Err(error) => error,
        };
        // What follows from leaving a line out is not the policy's fault.
        let repeated = repeated_line(&remaining, &error);
        if repeated.is_some() || faults.is_empty() {
            report(&remaining, &error, faults);
        }
        let line = repeated?;
        let blank = " ".repeat(line.len());
        remaining.replace_range(line, &blank);
    }
    None
}

fn report(text: &str, error: &TomlError, faults: &mut Faults) {
    let at = error.span().map_or(text.len(), |span| span.start);
    let message = error.message().trim();
    if message == "duplicate key" {
        let name = error.span().and_then(|span| text.get(span)).unwrap_or_default();
        faults.add("", Some(at), format!("`{name}` is given twice"), "keep one of them");
    } else {
        faults.add("", Some(at), format!("no TOML: {message}"), "mend the TOML there");
    }
}

/// The line of an entry that repeats a name, if the entry is all that it holds.
fn repeated_line(text: &str, error: &TomlError) -> Option<Range<usize>> {
    if error.message() != "duplicate key" {
        return None;
    }
    let at = error.span()?.start;
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let end = text.get(at..)?.find('\n').map_or(text.len(), |length| at + length);
    text.get(start..at)?.trim().is_empty().then_some(start..end)
}

fn item(item: &Item, or: usize) -> Node {
    match item {
        Item::None => Node { value: Value::Null, at: or },
        Item::Value(inner) => value(inner, or),
        Item::Table(inner) => table(inner, or),
        Item::ArrayOfTables(tables) => Node {
            value: Value::List(tables.iter().map(|inner| table(inner, or)).collect()),
            at: start(tables.span(), or),
        },
    }
}

fn start(span: Option<Range<usize>>, or: usize) -> usize {
    span.map_or(or, |span| span.start)
}

fn table(table: &Table, or: usize) -> Node {
    let entries = table.iter().map(|(name, _)| table.get_key_value(name));
    Node {
        value: Value::Table(entries.flatten().map(entry).collect()),
        at: start(table.span(), or),
    }
}

fn inline(table: &InlineTable, or: usize) -> Node {
    let entries = table.iter().map(|(name, _)| table.get_key_value(name));
    Node {
        value: Value::Table(entries.flatten().map(entry).collect()),
        at: start(table.span(), or),
    }
}

fn entry((key, of): (&Key, &Item)) -> Entry {
    let at = start(key.span(), 0);
    Entry {
        name: key.get().to_owned(),
        at,
        node: item(of, at),
    }
}

fn value(value: &toml_edit::Value, or: usize) -> Node {
    let at = start(value.span(), or);
    let value = match value {
        toml_edit::Value::String(text) => Value::Text(text.value().clone()),
        toml_edit::Value::Integer(integer) => Value::Integer(*integer.value()),
        toml_edit::Value::Float(_) => Value::Other("a number with a fraction or exponent"),
        toml_edit::Value::Boolean(boolean) => Value::Bool(*boolean.value()),
        toml_edit::Value::Datetime(_) => Value::Other("a date"),
        toml_edit::Value::Array(array) => {
            Value::List(array.iter().map(|inner| self::value(inner, at)).collect())
        }
        toml_edit::Value::InlineTable(inner) => inline(inner, at).value,
    };
    Node { value, at }
}
