//! Whom a list names: networks, users, and ids.

use super::super::bounds::{MAX_SUBJECT_BYTES, MAX_SUBJECTS};
use super::super::error::Faults;
use super::super::field::{Field, quote};
use super::super::network;
use super::super::types::{By, Subject};

const HELP: &str =
    "write addresses, networks or users: [\"192.0.2.1\", \"10.0.0.0/8\", \"user:42\"]";

/// What a list may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinds {
    Networks,
    NetworksAndUsers,
    All,
}

impl Kinds {
    /// Of a limit; one that has a fault might count by anything.
    pub fn of(by: Option<&By>) -> Self {
        match by {
            Some(By::Ip | By::Global) => Self::NetworksAndUsers,
            Some(By::User | By::Header(_)) | None => Self::All,
        }
    }
}

/// A list of different subjects.
pub fn list(field: &Field<'_>, kinds: Kinds, faults: &mut Faults) -> Option<Vec<Subject>> {
    let items = field.list(MAX_SUBJECTS, faults)?;
    let mut subjects = Vec::with_capacity(items.len());
    let mut is_whole = true;
    for item in items {
        let subject = subject(&item, kinds, faults);
        is_whole &= subject.is_some();
        let Some(subject) = subject else { continue };
        if subjects.contains(&subject) {
            let message = format!("{} is there twice", item.label());
            item.fault(faults, message, "leave it out");
        }
        subjects.push(subject);
    }
    is_whole.then_some(subjects)
}

fn subject(item: &Field<'_>, kinds: Kinds, faults: &mut Faults) -> Option<Subject> {
    let text = item.text(HELP, faults)?;
    let (message, help) = match network::read(text) {
        Ok(Some((bits, prefix))) => return Some(Subject::Network { bits, prefix }),
        Err(problem) => problem,
        Ok(None) => match other(text, kinds) {
            Ok(subject) => return Some(subject),
            Err((problem, help)) => (format!("{} {problem}", quote(text)), help.to_owned()),
        },
    };
    item.fault(faults, message, help);
    None
}

/// A user or an id; else why it is none, and what to do.
fn other(text: &str, kinds: Kinds) -> Result<Subject, (&'static str, &'static str)> {
    let user = text.strip_prefix("user:");
    if kinds == Kinds::Networks {
        return Err((
            "is no network",
            "write addresses or networks: [\"192.0.2.1\", \"10.0.0.0/8\"]",
        ));
    }
    if kinds == Kinds::NetworksAndUsers && user.is_none() {
        return Err(("is no address, and this limit knows no other ids", HELP));
    }
    if !(1..=MAX_SUBJECT_BYTES).contains(&user.unwrap_or(text).len()) {
        return Err(("is nobody", "write 1 to 256 bytes"));
    }
    Ok(match user {
        Some(user) => Subject::User(user.to_owned()),
        None => Subject::Id(text.to_owned()),
    })
}

/// Nobody is both let through and refused.
pub fn exclude(allow: &[Subject], deny: &[Subject], list: &Field<'_>, faults: &mut Faults) {
    for (index, subject) in deny.iter().enumerate() {
        if allow.contains(subject)
            && let Some(item) = list.item(index)
        {
            let message = format!("{} is in `allow` too", item.label());
            item.fault(faults, message, "keep it in one of the two");
        }
    }
}
