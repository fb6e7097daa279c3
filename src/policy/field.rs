//! Reading a tree by the grammar's shapes: tables with known fields, text, whole
//! numbers, durations, sizes, choices. What does not fit is a fault and `None`.

use std::ops::RangeInclusive;

use super::bounds::{MAX_NAME_BYTES, MAX_REQUESTS};
use super::error::{Faults, nearest};
use super::measure::{duration_ms, show_bytes, show_ms, size_bytes};
use super::node::{Entry, Node, Value};
use edgeweir_json::unescaped;

/// A value in its place.
#[derive(Debug, Clone)]
pub struct Field<'n> {
    pub node: &'n Node,
    /// RFC 6901.
    pub pointer: String,
    /// Where its name stands, or itself when it has none.
    pub named_at: usize,
}

/// A table whose names have been checked.
#[derive(Debug)]
pub struct Table<'n>(Field<'n>);

impl<'n> Field<'n> {
    pub fn root(node: &'n Node) -> Self {
        Self {
            node,
            pointer: String::new(),
            named_at: node.at,
        }
    }

    fn member(&self, entry: &'n Entry) -> Self {
        Self {
            node: &entry.node,
            pointer: below(&self.pointer, &entry.name),
            named_at: entry.at,
        }
    }

    /// A member of a table.
    pub fn child(&self, name: &str) -> Option<Self> {
        let Value::Table(entries) = &self.node.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| entry.name == name)?;
        Some(self.member(entry))
    }

    /// An item of a list.
    pub fn item(&self, index: usize) -> Option<Self> {
        let Value::List(nodes) = &self.node.value else {
            return None;
        };
        let node = nodes.get(index)?;
        Some(Self {
            node,
            pointer: below(&self.pointer, &index.to_string()),
            named_at: node.at,
        })
    }

    /// At the value.
    pub fn fault(&self, faults: &mut Faults, message: impl Into<String>, help: impl Into<String>) {
        faults.add(&self.pointer, Some(self.node.at), message, help);
    }

    /// At the name.
    pub fn fault_at_name(
        &self,
        faults: &mut Faults,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        faults.add(&self.pointer, Some(self.named_at), message, help);
    }

    /// Its name as people call it: `ttl`, or `limit[0]` in a list.
    pub fn label(&self) -> String {
        match self.name_of() {
            name if name.is_empty() => "the policy".to_owned(),
            name => format!("`{name}`"),
        }
    }

    /// The same without quotes; empty at the root.
    pub fn name_of(&self) -> String {
        let mut parts = self.pointer.rsplit('/');
        let last = parts.next().unwrap_or_default();
        match parts.next() {
            Some(list) if !list.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) => {
                format!("{list}[{last}]")
            }
            _ => unescaped(last),
        }
    }

    fn wrong_type(&self, faults: &mut Faults, wanted: &str, help: impl Into<String>) {
        let is = self.node.value.kind();
        self.fault(
            faults,
            format!("{} is {is}, not {wanted}", self.label()),
            help,
        );
    }

    /// The members of a table whose names are free.
    pub fn members(&self, faults: &mut Faults, help: &str) -> Option<Vec<(&'n str, Field<'n>)>> {
        let Value::Table(entries) = &self.node.value else {
            self.wrong_type(faults, "a table", help);
            return None;
        };
        let mut members = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            // A table has few members.
            let mut before = entries.iter().take(index);
            let member = self.member(entry);
            if before.all(|other| other.name != entry.name) {
                members.push((entry.name.as_str(), member));
            } else {
                let message = format!("{} is given twice", member.label());
                member.fault_at_name(faults, message, "keep one of them");
            }
        }
        Some(members)
    }

    /// A table with these fields and no others; `what` names it.
    pub fn table(&self, what: &str, known: &[&str], faults: &mut Faults) -> Option<Table<'n>> {
        let help = format!("write a table with the fields {}", list(known));
        for (name, member) in self.members(faults, &help)? {
            if known.contains(&name) {
                continue;
            }
            let help = match nearest(name, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the fields are {}", list(known)),
            };
            let message = format!("{} is no field of {what}", quote(name));
            member.fault_at_name(faults, message, help);
        }
        Some(Table(self.clone()))
    }

    /// A list of at most `most` items.
    pub fn list(&self, most: usize, faults: &mut Faults) -> Option<Vec<Field<'n>>> {
        let Value::List(nodes) = &self.node.value else {
            self.wrong_type(faults, "a list", "write it in brackets: [ … ]");
            return None;
        };
        if nodes.len() > most {
            let message = format!("{} has {} items", self.label(), nodes.len());
            self.fault(faults, message, format!("at most {most} are possible"));
            return None;
        }
        Some(
            (0..nodes.len())
                .filter_map(|index| self.item(index))
                .collect(),
        )
    }

    pub fn text(&self, help: &str, faults: &mut Faults) -> Option<&'n str> {
        match &self.node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong_type(faults, "text", help);
                None
            }
        }
    }

    /// `[a-z0-9]` and then `-` and `_` too: what may stand in keys, headers and metrics.
    pub fn name(&self, faults: &mut Faults) -> Option<&'n str> {
        const HELP: &str = "write 1 to 64 of a-z, 0-9, - and _, beginning with a letter or digit";
        let text = self.text(HELP, faults)?;
        if is_name(text) {
            return Some(text);
        }
        let message = format!("{} is no name", quote(text));
        self.fault(faults, message, HELP);
        None
    }

    pub fn boolean(&self, faults: &mut Faults) -> Option<bool> {
        match self.node.value {
            Value::Bool(value) => Some(value),
            _ => {
                self.wrong_type(faults, "true or false", "write true or false");
                None
            }
        }
    }

    pub fn integer(&self, range: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        let (least, most) = range.clone().into_inner();
        let help = format!("write a whole number from {least} to {most}");
        let Value::Integer(number) = self.node.value else {
            self.wrong_type(faults, "a whole number", help);
            return None;
        };
        let inside = u64::try_from(number)
            .ok()
            .filter(|number| range.contains(number));
        if inside.is_none() {
            self.fault(faults, format!("{} is {number}", self.label()), help);
        }
        inside
    }

    pub fn duration(&self, range: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        const HELP: &str =
            "write a whole number and its unit: \"500ms\", \"90s\", \"15m\", \"24h\"";
        let text = self.text(HELP, faults)?;
        self.measured(
            text,
            duration_ms(text),
            range,
            (HELP, show_ms),
            "duration",
            faults,
        )
    }

    pub fn size(&self, range: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        const HELP: &str = "write a whole number and its unit: \"64KB\", \"1MB\"";
        let text = self.text(HELP, faults)?;
        self.measured(
            text,
            size_bytes(text),
            range,
            (HELP, show_bytes),
            "size",
            faults,
        )
    }

    fn measured(
        &self,
        text: &str,
        amount: Option<u64>,
        range: RangeInclusive<u64>,
        (help, show): (&str, fn(u64) -> String),
        what: &str,
        faults: &mut Faults,
    ) -> Option<u64> {
        let Some(amount) = amount else {
            let message = format!("{} is {}, which is no {what}", self.label(), quote(text));
            self.fault(faults, message, help);
            return None;
        };
        if range.contains(&amount) {
            return Some(amount);
        }
        let help = format!(
            "write from \"{}\" to \"{}\"",
            show(*range.start()),
            show(*range.end())
        );
        let message = format!("{} is {}", self.label(), show(amount));
        self.fault(faults, message, help);
        None
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)], faults: &mut Faults) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let index = self.word(&known, faults)?;
        words.get(index).map(|(_, value)| *value)
    }

    /// Which of some words.
    fn word(&self, known: &[&str], faults: &mut Faults) -> Option<usize> {
        let choices = format!("write one of {}", list(known));
        let text = self.text(&choices, faults)?;
        let found = known.iter().position(|word| *word == text);
        if found.is_none() {
            let help = match nearest(text, known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => choices,
            };
            self.fault(faults, format!("{} is {}", self.label(), quote(text)), help);
        }
        found
    }
}

impl<'n> Table<'n> {
    pub fn get(&self, name: &str) -> Option<Field<'n>> {
        self.0.child(name)
    }

    /// At the first of some fields that is there, or at the table itself.
    pub fn fault(
        &self,
        names: &[&str],
        faults: &mut Faults,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let field = names.iter().find_map(|name| self.get(name));
        field
            .as_ref()
            .unwrap_or(&self.0)
            .fault(faults, message, help);
    }

    /// A field that may be left out, as the next three.
    pub fn integer(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        or: u64,
        faults: &mut Faults,
    ) -> Option<u64> {
        self.get(name)
            .map_or(Some(or), |field| field.integer(range, faults))
    }

    /// Requests or cost units.
    pub fn units(
        &self,
        name: &str,
        least: u64,
        or: Option<u32>,
        faults: &mut Faults,
    ) -> Option<u32> {
        let Some(field) = self.get(name) else {
            return or;
        };
        let units = field.integer(least..=u64::from(MAX_REQUESTS), faults)?;
        u32::try_from(units).ok()
    }

    pub fn boolean(&self, name: &str, or: bool, faults: &mut Faults) -> Option<bool> {
        self.get(name)
            .map_or(Some(or), |field| field.boolean(faults))
    }

    pub fn duration(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        or: u64,
        faults: &mut Faults,
    ) -> Option<u64> {
        self.get(name)
            .map_or(Some(or), |field| field.duration(range, faults))
    }

    /// A field that must be there.
    pub fn need(&self, name: &str, help: &str, faults: &mut Faults) -> Option<Field<'n>> {
        let field = self.get(name);
        if field.is_none() {
            self.0.fault(faults, format!("`{name}` is missing"), help);
        }
        field
    }
}

/// Names of routes and limits.
pub fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES
        && text
            .bytes()
            .next()
            .is_some_and(|first| !matches!(first, b'-' | b'_'))
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
}

/// RFC 6901 section 3.
pub fn below(pointer: &str, name: &str) -> String {
    let mut pointer = format!("{pointer}/");
    for character in name.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            _ => pointer.push(character),
        }
    }
    pointer
}

/// Something of the policy in a message, not longer than a line.
pub fn quote(text: &str) -> String {
    let mut rest = text.chars();
    let mut quoted = String::from("`");
    for character in rest.by_ref().take(64) {
        match character {
            // What makes text look otherwise than it is.
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => {
                quoted.extend(character.escape_unicode());
            }
            '\'' | '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted.extend(character.escape_default()),
            _ => quoted.push(character),
        }
    }
    if rest.next().is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// "`a`, `b` and `c`".
pub fn list(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => {
            let first: Vec<String> = first.iter().map(|name| format!("`{name}`")).collect();
            format!("{} and `{last}`", first.join(", "))
        }
    }
}
