//! TOML to a tree. Native only: the Worker gets the policy as JSON.
//!
//! The parser stops at its first error. A name given twice is the one that people
//! make beside others, so the second is set aside under another name and the rest is
//! judged too.

use std::ops::Range;
use std::panic::catch_unwind;

use toml_edit::{Document, InlineTable, Item, Key, Table};

use super::bounds::MAX_ERRORS;
use super::error::Faults;
use super::node::{Entry, Node, Value};

/// Reads TOML; `None` when it is none, which `faults` then says. A tree may come
/// with faults.
pub fn read(text: &str, faults: &mut Faults) -> Option<Node> {
    let mut aside = Aside::default();
    for _ in 0..MAX_ERRORS {
        let renamed = aside.apply(text);
        // toml_edit 0.23 panics at some broken tables ("all items have spans").
        let Ok(parsed) = catch_unwind(|| Document::parse(renamed.as_str())) else {
            let help = "look for a table or a dotted key that redefines a value";
            faults.add("", None, "no TOML: its parser gave up", help);
            return None;
        };
        let error = match parsed {
            Ok(document) => return Some(aside.item(document.as_item(), 0)),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(renamed.len()..renamed.len());
        let span = aside.origin(span.start)..aside.origin(span.end);
        let at = Some(span.start);
        if error.message() != "duplicate key" {
            let message = format!("no TOML: {}", error.message().trim());
            faults.add("", at, message, "mend the TOML there");
            return None;
        }
        let name = text.get(span.clone()).unwrap_or_default();
        faults.add(
            "",
            at,
            format!("`{name}` is given twice"),
            "keep one of them",
        );
        if !aside.set(span) {
            return None;
        }
    }
    None
}

/// Names that repeat another, by where they stand in the text.
#[derive(Default)]
struct Aside(Vec<(Range<usize>, String)>);

impl Aside {
    /// False if it was set aside before.
    fn set(&mut self, span: Range<usize>) -> bool {
        let is_new = !self.0.iter().any(|(known, _)| known.start == span.start);
        self.0
            .push((span, format!("_given_twice_{}_", self.0.len())));
        self.0.sort_by_key(|(span, _)| span.start);
        is_new
    }

    fn apply(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (span, name) in self.0.iter().rev() {
            out.replace_range(span.clone(), name);
        }
        out
    }

    /// Where an offset of the renamed text is in the text itself.
    fn origin(&self, at: usize) -> usize {
        // How much longer the renamed text is, up to here.
        let mut longer = 0_isize;
        for (span, name) in &self.0 {
            let start = span.start.saturating_add_signed(longer);
            if at < start {
                break;
            }
            if at < start + name.len() {
                return span.start;
            }
            longer += name.len().cast_signed() - span.len().cast_signed();
        }
        at.saturating_add_signed(-longer)
    }

    fn start(&self, span: Option<Range<usize>>, or: usize) -> usize {
        span.map_or(or, |span| self.origin(span.start))
    }

    fn item(&self, item: &Item, or: usize) -> Node {
        match item {
            Item::None => Node {
                value: Value::Null,
                at: or,
            },
            Item::Value(value) => self.value(value, or),
            Item::Table(table) => self.table(table, or),
            Item::ArrayOfTables(tables) => Node {
                value: Value::List(tables.iter().map(|table| self.table(table, or)).collect()),
                at: self.start(tables.span(), or),
            },
        }
    }

    fn table(&self, table: &Table, or: usize) -> Node {
        let entries = table.iter().map(|(name, _)| table.get_key_value(name));
        Node {
            value: self.entries(entries),
            at: self.start(table.span(), or),
        }
    }

    fn inline(&self, table: &InlineTable) -> Value {
        self.entries(table.iter().map(|(name, _)| table.get_key_value(name)))
    }

    fn entries<'i>(&self, entries: impl Iterator<Item = Option<(&'i Key, &'i Item)>>) -> Value {
        let kept = entries
            .flatten()
            .filter(|(key, _)| !self.0.iter().any(|(_, name)| name == key.get()));
        let entries = kept.map(|(key, item)| {
            let at = self.start(key.span(), 0);
            Entry {
                name: key.get().to_owned(),
                at,
                node: self.item(item, at),
            }
        });
        Value::Table(entries.collect())
    }

    fn value(&self, value: &toml_edit::Value, or: usize) -> Node {
        let at = self.start(value.span(), or);
        let value = match value {
            toml_edit::Value::String(text) => Value::Text(text.value().clone()),
            toml_edit::Value::Integer(integer) => Value::Integer(*integer.value()),
            toml_edit::Value::Float(_) => Value::Other("a number with a fraction or exponent"),
            toml_edit::Value::Boolean(boolean) => Value::Bool(*boolean.value()),
            toml_edit::Value::Datetime(_) => Value::Other("a date"),
            toml_edit::Value::Array(items) => {
                Value::List(items.iter().map(|item| self.value(item, at)).collect())
            }
            toml_edit::Value::InlineTable(table) => self.inline(table),
        };
        Node { value, at }
    }
}
