//! What is wrong with a policy: every fault, where it is, and what to do.
//!
//! Faults are collected with byte offsets; lines and columns are found once, at the end.

use std::fmt;

use super::bounds::MAX_ERRORS;

/// One thing that is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// RFC 6901, from the policy's root; or the name of the variable that is at fault.
    pub pointer: String,
    pub message: String,
    /// What to do.
    pub help: String,
    /// From 1; `None` when no text is at fault (a variable).
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// How many errors this one stands for: 1, but for the one that says how many more
    /// there are than are listed.
    pub count: usize,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "{line}:{column}: ")?;
        }
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for PolicyError {}

#[derive(Debug)]
struct Fault {
    pointer: String,
    /// `MAX` when no text is at fault.
    at: usize,
    message: String,
    help: String,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    unlisted: usize,
}

impl Faults {
    pub fn add(
        &mut self,
        pointer: &str,
        at: Option<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.insert(Fault {
            pointer: pointer.to_owned(),
            at: at.unwrap_or(usize::MAX),
            message: message.into(),
            help: help.into(),
        });
    }

    /// In the order of the text, and where that is the same as found.
    fn insert(&mut self, fault: Fault) {
        if self.list.len() >= MAX_ERRORS {
            self.unlisted += 1;
            return;
        }
        let before = self.list.iter().rposition(|other| other.at <= fault.at);
        let place = before.map_or(0, |index| index + 1);
        self.list.insert(place, fault);
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn into_errors(self, text: &str) -> Vec<PolicyError> {
        let mut errors: Vec<PolicyError> = self
            .list
            .into_iter()
            .map(|fault| {
                let place = (fault.at < usize::MAX).then(|| place(text, fault.at));
                PolicyError {
                    pointer: fault.pointer,
                    message: fault.message,
                    help: fault.help,
                    line: place.map(|(line, _)| line),
                    column: place.map(|(_, column)| column),
                    count: 1,
                }
            })
            .collect();
        if self.unlisted > 0 {
            errors.push(PolicyError {
                pointer: String::new(),
                message: format!("{} more errors are not listed", self.unlisted),
                help: "mend these first".to_owned(),
                line: None,
                column: None,
                count: self.unlisted,
            });
        }
        errors
    }
}

/// Line and column of a byte offset, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

/// The closest of some names, if one is close enough to be meant.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > 64 {
        return None;
    }
    let enough = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let replaced = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
